"""Find the fastest engine that is still right: build every candidate, prove it, time it, keep the best."""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, Literal

import msgspec

from segship import showcase
from segship.backends import DEPLOYABLE, load_backend, usable_backend
from segship.core.engine import Engine, refuse_foreign
from segship.core.environment import available_threads
from segship.core.errors import BackendUnavailable, BadArgument, BuildFailed
from segship.core.files import replace_directory, storage_errors
from segship.core.precision import Precision
from segship.core.progress import Progress, silent
from segship.core.spec import Size
from segship.datasets import Dataset, Sample, for_model, open_dataset
from segship.diagnostics import diagnose
from segship.evidence import policy
from segship.evidence.measure import Schedule
from segship.evidence.records import Candidate, Deployment
from segship.evidence.searches import Found
from segship.judging import Judge, Tried
from segship.pipeline import ModelPredictor, build, export, load_model
from segship.quantiser import Quantiser
from segship.search import mixed_candidate
from segship.tasks import task_of

PrecisionChoice = Literal["auto", "fp32", "fp16", "int8"]


@dataclass(frozen=True)
class Options:
    """How to search. ``size``: ``"auto"`` fixes the sizes when all images have one size, ``"free"`` never does.

    ``budget_minutes``: after so long the search for a mixed plan measures no more groups of layers.
    """

    backend: str = "auto"
    precision: PrecisionChoice = "auto"
    max_drop: float = policy.MAX_DROP
    size: Literal["auto", "free"] = "auto"
    calibration_images: int = 64
    evaluation_images: int = 100
    threads: int | None = None
    budget_minutes: float = 30.0
    schedule: Schedule = field(default_factory=lambda: Schedule(rounds=5, budget_s=60))


@dataclass(frozen=True)
class Delivered:
    """What deploy leaves behind: the engine (None when no candidate was right), the report, and all that was found out."""

    engine: Engine | None
    report: Path
    deployment: Deployment

    def as_json(self) -> dict[str, Any]:
        """Plain values: what was chosen, and every candidate with its numbers (without the raw samples)."""
        chosen = next((candidate for candidate in self.deployment.candidates if candidate.chosen), None)
        return {
            "engine": str(self.engine.path) if self.engine else None,
            "report": str(self.report),
            "backend": chosen.backend if chosen else None,
            "precision": chosen.precision if chosen else None,
            "metric": self.deployment.metric_name,
            "max_drop": self.deployment.max_drop,
            "candidates": [candidate.as_json() for candidate in self.deployment.candidates],
            "notes": list(self.deployment.notes),
            "calibration": msgspec.to_builtins(self.deployment.calibration),
            "seconds": self.deployment.seconds,
        }


def deploy(
    checkpoint: Path | str,
    data: Path | str,
    output: Path | str,
    *,
    options: Options | None = None,
    progress: Progress = silent,
    **facts: Any,
) -> Delivered:
    """From checkpoint and images to the fastest engine within ``options.max_drop``, its evidence and its report.

    ``facts`` are those of :func:`segship.load_model`. Nothing is left at ``output`` when anything fails or is interrupted.
    Raises :class:`segship.core.errors.BadInput` and its kinds, and :class:`segship.core.errors.BuildFailed` when no candidate
    can be built. When candidates are built but none is right, ``Delivered.engine`` is None and the report says why.
    """
    options, output = options or Options(), Path(output)
    clock = Stages(progress)
    with clock("load"):
        wanted = wanted_candidates(options)
        refuse_foreign(output)
        model = load_model(checkpoint, threads=options.threads, **facts)
        dataset = for_model(open_dataset(data, model.spec.task), model.spec)
        model = model.named_after(dataset.classes, dataset.colors)
        calibration, judged = split(dataset, options)
        image_size = common_size(model, dataset.samples) if options.size == "auto" else None
    with clock("export"):
        graph = export(model, image_size=image_size)
    with scratch_beside(output) as scratch:
        quantiser = Quantiser(model, graph, [sample.image for sample in calibration], progress)
        tried = [build_candidate(candidate, quantiser, scratch, clock) for candidate in wanted]
        if not any(each.engine for each in tried):
            raise BuildFailed(
                "no candidate could be built: " + "; ".join(f"{each.record.name}: {each.record.skipped}" for each in tried)
            )
        judge = Judge(model, dataset, judged, options.max_drop, progress)
        with clock("verify"):
            tried = [judge.prove(each) for each in tried]
        with clock("diagnose"):
            integer = next((each.engine for each in tried if each.engine and each.record.precision == "int8"), None)
            diagnosis = diagnose(quantiser, model, dataset, calibration, integer) if integer is not None else None
        with clock("search"):
            mixed, searches = search_mixed(tried, quantiser, judge, model, output, options, progress)
        with clock("measure"):
            tried = judge.time([*tried, *mixed], options.schedule, options.threads or available_threads())
        tried = choose(tried)
        said = (
            *notes(model, dataset, calibration, judged, image_size),
            *precision_notes(tried),
            *(diagnosis.notes if diagnosis else ()),
        )
        deployment = summary(model, dataset, tried, options, (len(calibration), len(judged)), said, clock)
        delivered = deliver(
            msgspec.structs.replace(deployment, searches=tuple(searches), calibration=diagnosis), tried, judge, output
        )
    shutil.rmtree(search_folder(output), ignore_errors=True)
    return delivered


def search_folder(output: Path) -> Path:
    """Where a search keeps its engines until the deployment has ended: beside the output, to be found again."""
    return output.with_name(f".{output.name}.search")


def search_mixed(
    tried: Sequence[Tried],
    quantiser: Quantiser,
    judge: Judge,
    model: ModelPredictor,
    output: Path,
    options: Options,
    progress: Progress,
) -> tuple[list[Tried], list[Found]]:
    """With ``--precision auto``: a mixed candidate for each INT8 engine that was built and is not right."""
    if options.precision != "auto":
        return [], []
    deadline = time.monotonic() + 60 * options.budget_minutes
    wrong = [each for each in tried if each.record.precision == "int8" and each.engine is not None and not each.right]
    results = [
        mixed_candidate(each, quantiser, judge, model, quantiser.images, search_folder(output), progress, deadline=deadline)
        for each in wrong
    ]
    return [candidate for candidate, _ in results], [found for _, found in results]


def summary(
    model: ModelPredictor,
    dataset: Dataset,
    tried: Sequence[Tried],
    options: Options,
    images: tuple[int, int],
    said: tuple[str, ...],
    clock: Stages,
) -> Deployment:
    """Everything that was found out; ``images`` counts calibration and evaluation images."""
    return Deployment(
        title=f"{model.spec.variant} on {dataset.root.resolve().name}",
        task=model.spec.task,
        metric_name=task_of(model.spec).METRIC if dataset.labelled else "agreement",
        max_drop=options.max_drop,
        candidates=tuple(each.record for each in tried),
        calibration_images=images[0],
        evaluation_images=images[1],
        notes=said,
        seconds=clock.seconds,
        created=datetime.now(timezone.utc).isoformat(timespec="seconds"),
    )


def wanted_candidates(options: Options) -> list[Candidate]:
    """Every backend and precision to try; those that cannot be tried here carry the reason.

    Raises :class:`BadArgument` for FP16 (no backend here runs it on this processor), :class:`BackendUnavailable` when the
    one backend asked for is missing.
    """
    names = DEPLOYABLE if options.backend == "auto" else (options.backend,)
    if options.backend != "auto":
        usable_backend(options.backend)
    candidates = []
    for name in names:
        backend = load_backend(name)
        precisions: tuple[Precision, ...] = ("fp32", "int8") if options.precision == "auto" else (options.precision,)
        for precision in precisions:
            problem = backend.probe()
            if problem is None and precision not in backend.TRAITS.precisions:
                problem = (
                    f"{name} accepts {precision} graphs and runs them in fp32 on this processor; "
                    f"it runs {', '.join(backend.TRAITS.precisions)}"
                )
            candidates.append(Candidate(name=f"{name} {precision}", backend=name, precision=precision, skipped=problem))
    if all(candidate.skipped for candidate in candidates):
        reasons = "; ".join(dict.fromkeys(str(candidate.skipped) for candidate in candidates))
        kind = BadArgument if options.precision == "fp16" else BackendUnavailable
        raise kind(f"nothing to build with --backend {options.backend} --precision {options.precision}: {reasons}")
    return candidates


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


def build_candidate(candidate: Candidate, quantiser: Quantiser, scratch: Path, clock: Stages) -> Tried:
    """The candidate's engine, in the scratch directory; a build that fails is a recorded fact."""
    if candidate.skipped:
        return Tried(candidate, None)
    tried, traits = Tried(candidate, None), load_backend(candidate.backend).TRAITS
    try:
        if candidate.precision == "int8":
            with clock("calibrate"):
                quantiser.calibrate()
        with clock("build"):
            integer = candidate.precision == "int8"
            ready = quantiser.quantised(traits) if integer else quantiser.plain(traits)
            calibrated = quantiser.record() if integer else None
            engine = build(
                ready, candidate.backend, scratch / f"{candidate.name.replace(' ', '-')}.engine", calibration=calibrated
            )
    except BuildFailed as error:
        return tried.with_(skipped=str(error))
    return Tried(candidate, engine)


def choose(tried: Sequence[Tried]) -> list[Tried]:
    """Mark the fastest right candidate, judged by image file to mask: that is what a user waits for."""
    best = min((each for each in tried if each.right), key=image_time, default=None)
    return [each.with_(chosen=best is not None and each is best) for each in tried]


def image_time(tried: Tried) -> float:
    """Milliseconds from image file to mask, as little disturbed by other processes as can be; infinite if not timed."""
    return min((timing.quiet_ms for timing in tried.record.timings if timing.scope == "image"), default=float("inf"))


def notes(
    model: ModelPredictor, dataset: Dataset, calibration: Sequence[Sample], judged: Sequence[Sample], image_size: Size | None
) -> tuple[str, ...]:
    """Facts that a reader of the report must know."""
    found = list(dataset.notes)
    if not dataset.labelled:
        found.append("the images have no labels: the engines are judged by their agreement with PyTorch")
    if calibration == judged:
        found.append(
            "one image serves for calibration and for judging: give a folder of images for a result that means something"
        )
    if image_size is None:
        found.append("image sizes are free: speed was measured on the first image")
    if model.spec.slide is not None:
        found.append("sliding windows: the network alone was timed with all windows of one image, their sum and the decision")
    if dataset.classes is not None and dataset.classes != model.spec.classes:
        ours, theirs = next(pair for pair in zip(model.spec.classes, dataset.classes, strict=True) if pair[0] != pair[1])
        found.append(
            f"the model and the data set name classes differently (first {ours!r} and {theirs!r}): they were matched by number"
        )
    return tuple(found)


def precision_notes(tried: Sequence[Tried]) -> tuple[str, ...]:
    """A sentence for each built candidate that the runtime runs in another precision than asked, or cannot tell."""
    found = []
    for each in tried:
        if each.engine is None:
            continue
        report = each.engine.manifest.built.precision
        if report.found is None:
            found.append(f"{each.record.name}: the runtime cannot be asked what its layers run in")
        elif report.disagreements:
            first = report.disagreements[0]
            found.append(
                f"{each.record.name}: {len(report.disagreements)} of {len(report.layers)} layers run in another precision than "
                f"asked (first {first.layer}: {first.found} instead of {first.asked})"
            )
    return tuple(found)


def deliver(deployment: Deployment, tried: Sequence[Tried], judge: Judge, output: Path) -> Delivered:
    """Put the chosen engine with evidence and report at ``output``; without one, only a report beside it."""
    chosen = next((each for each in tried if each.record.chosen), None)
    shown = chosen or next((each for each in tried if each.engine is not None), None)
    examples = showcase.worst_examples(shown, judge) if shown else []
    if chosen is None or chosen.engine is None:
        report = output.with_name(f"{output.name.removesuffix('.engine')}.report.html")
        showcase.write_report(report, deployment, None, examples, output)
        return Delivered(None, report, deployment)
    showcase.write_evidence(chosen.engine, deployment, examples)
    showcase.write_report(chosen.engine.path / showcase.REPORT, deployment, chosen.engine.manifest, examples, output)
    replace_directory(chosen.engine.path, output)
    return Delivered(Engine(output, chosen.engine.manifest), output / showcase.REPORT, deployment)


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
