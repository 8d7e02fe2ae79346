"""What candidates are made of and judged on: one model with its graph, and images, some to calibrate on and some to judge on."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from segship.core.environment import available_threads
from segship.core.files import storage_errors
from segship.core.precision import PrecisionPlan
from segship.core.progress import Progress
from segship.core.spec import Size
from segship.datasets import Dataset, Sample, for_model, open_dataset
from segship.evidence import policy
from segship.evidence.measure import Schedule
from segship.judging import Judge
from segship.pipeline import ModelPredictor, export, load_model
from segship.quantiser import Quantiser

PrecisionChoice = Literal["auto", "fp32", "fp16", "int8"]


@dataclass(frozen=True)
class Options:
    """How to search. ``size``: ``"auto"`` fixes the sizes when all images have one size, ``"free"`` never does.

    ``budget_minutes``: after so long the search for a mixed plan measures no more. ``plan``: build this one beside FP32, and
    search nothing.
    """

    backend: str = "auto"
    precision: PrecisionChoice = "auto"
    plan: PrecisionPlan | None = None
    max_drop: float = policy.MAX_DROP
    size: Literal["auto", "free"] = "auto"
    calibration_images: int = 64
    evaluation_images: int = 100
    threads: int | None = None
    budget_minutes: float = 30.0
    schedule: Schedule = field(default_factory=lambda: Schedule(rounds=5, budget_s=60))


@dataclass(frozen=True)
class Trial:
    """``calibration`` and ``judged`` are disjoint, but for a folder of one image; ``image_size`` None: sizes are free."""

    model: ModelPredictor
    dataset: Dataset
    calibration: tuple[Sample, ...]
    judged: tuple[Sample, ...]
    image_size: Size | None
    quantiser: Quantiser
    judge: Judge
    threads: int


def set_up(checkpoint: Path | str, data: Path | str, options: Options, clock: Stages, progress: Progress, **facts: Any) -> Trial:
    """Load the checkpoint, divide the images, export the graph. ``facts`` are those of :func:`segship.load_model`."""
    with clock("load"):
        model = load_model(checkpoint, threads=options.threads, **facts)
        dataset = for_model(open_dataset(data, model.spec.task), model.spec)
        model = model.named_after(dataset.classes, dataset.colors)
        calibration, judged = split(dataset, options)
        image_size = common_size(model, dataset.samples) if options.size == "auto" else None
    with clock("export"):
        graph = export(model, image_size=image_size)
    quantiser = Quantiser(model, graph, [sample.image for sample in calibration], progress)
    judge = Judge(model, dataset, judged, options.max_drop, progress)
    threads = options.threads or available_threads()
    return Trial(model, dataset, calibration, judged, image_size, quantiser, judge, threads)


def split(dataset: Dataset, options: Options) -> tuple[tuple[Sample, ...], tuple[Sample, ...]]:
    """Calibration and evaluation images: disjoint, but for a folder of one image, which serves as both."""
    if len(dataset) == 1:
        return dataset.samples, dataset.samples
    return dataset.split(options.calibration_images, options.evaluation_images)


def common_size(model: ModelPredictor, samples: Sequence[Sample]) -> Size | None:
    """The size that all images have (height, width), or None when they differ; asked until two differ."""
    sizes = (model.size_of(sample.image) for sample in samples)
    first = next(sizes)
    return first if all(size == first for size in sizes) else None


def notes(trial: Trial) -> tuple[str, ...]:
    """Facts that a reader of the report must know."""
    model, dataset = trial.model, trial.dataset
    found = list(dataset.notes)
    if not dataset.labelled:
        found.append("the images have no labels: the engines are judged by their agreement with PyTorch")
    if trial.calibration == trial.judged:
        found.append(
            "one image serves for calibration and for judging: give a folder of images for a result that means something"
        )
    if trial.image_size is None:
        found.append("image sizes are free: speed was measured on the first image")
    if model.spec.slide is not None:
        found.append("sliding windows: the network alone was timed with all windows of one image, their sum and the decision")
    if dataset.classes is not None and dataset.classes != model.spec.classes:
        ours, theirs = next(pair for pair in zip(model.spec.classes, dataset.classes, strict=True) if pair[0] != pair[1])
        found.append(
            f"the model and the data set name classes differently (first {ours!r} and {theirs!r}): they were matched by number"
        )
    return tuple(found)


@contextmanager
def scratch_beside(output: Path) -> Iterator[Path]:
    """A directory for the candidates on the output's own file system, gone at the end whatever happens."""
    with storage_errors(output):  # around its making only: what fails inside has sentences of its own
        output.parent.mkdir(parents=True, exist_ok=True)
        scratch = tempfile.TemporaryDirectory(dir=output.parent, prefix=f".{output.name}.candidates-")
    with scratch as folder:
        yield Path(folder)


class Stages:
    """Adds up the wall-clock seconds of each stage."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self.seconds: dict[str, float] = {}

    @contextmanager
    def __call__(self, stage: str) -> Iterator[None]:
        self._progress(stage, 0, None)
        begin = time.perf_counter()
        yield
        self.seconds[stage] = round(self.seconds.get(stage, 0.0) + time.perf_counter() - begin, 2)
