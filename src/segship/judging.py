"""Prove and time the engines that ``deploy`` built, side by side with PyTorch on the same images."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import msgspec
import numpy as np

from segship.core.engine import Engine
from segship.core.environment import Environment, environment
from segship.core.errors import BadEngine, RunFailed
from segship.core.image import ImageArray
from segship.core.packing import pack, unpack
from segship.core.precision import Precision
from segship.core.predictions import Prediction
from segship.core.progress import Progress, silent
from segship.datasets import Dataset, Sample
from segship.evidence import gains, policy
from segship.evidence.measure import Key, Schedule, Scope, measure
from segship.evidence.predictors import Named, verify_invariance, verify_tensors
from segship.evidence.records import Candidate, Timing, Verdict
from segship.evidence.verify import AGREEMENT, CANDIDATE_METRIC, DROP, REFERENCE_METRIC, compare_predictions
from segship.predictor import Predictor, load_engine
from segship.tasks import task_of

PACKAGES = ("segship", "numpy", "pillow", "opencv-python-headless", "onnxruntime", "openvino", "torch", "onnx")
REFERENCE = "PyTorch fp32"

_TENSOR_IMAGES = 3
_BATCH_IMAGES = 3


@dataclass(frozen=True)
class Tried:
    """A candidate and its engine; the engine is None where none could be built (``record.skipped`` says why)."""

    record: Candidate
    engine: Engine | None

    def with_(self, **changes: object) -> Tried:
        """The same with some fields of the record replaced."""
        return replace(self, record=msgspec.structs.replace(self.record, **changes))

    @property
    def right(self) -> bool:
        """Whether it was built and judged, and every verdict holds: without evidence nothing is right."""
        built = self.engine is not None and self.record.skipped is None
        return built and bool(self.record.verdicts) and all(self.record.verdicts)


class Predictions:
    """Predictions in little memory: compressed, since they are mostly long runs of one class."""

    def __init__(self, predictions: Iterator[Prediction]) -> None:
        self._packed = [pack(each) for each in predictions]

    def __iter__(self) -> Iterator[Prediction]:
        return map(unpack, self._packed)

    def __getitem__(self, index: int) -> Prediction:
        return unpack(self._packed[index])


class Judge:
    """Judges engines beside one PyTorch model on one set of images; PyTorch runs once on each."""

    def __init__(
        self, model: Predictor, dataset: Dataset, samples: Sequence[Sample], max_drop: float, progress: Progress
    ) -> None:
        self._model, self._dataset, self._samples = model, dataset, samples
        self._max_drop, self._progress = max_drop, progress

    @cached_property
    def references(self) -> Predictions:
        """PyTorch's predictions of all samples."""
        return Predictions(self._predictions(self._model, "PyTorch"))

    def prove(self, tried: Tried) -> Tried:
        """The candidate with its verdicts: invariance, tensors, and the whole data set."""
        if tried.engine is None:
            return tried
        try:
            with load_engine(tried.engine.path) as engine:
                verdicts = self.verdicts(engine, tried.record.name, tried.engine.manifest.precision)
        except (RunFailed, BadEngine) as error:  # one bad candidate does not end the search
            return replace(tried.with_(skipped=f"it was built, but does not run: {error}"), engine=None)
        whole = verdicts[-1].measured
        return tried.with_(
            verdicts=verdicts,
            metric=whole.get(CANDIDATE_METRIC) if self._dataset.labelled else None,
            drop=whole.get(DROP),
            agreement=whole.get(AGREEMENT),
            size_bytes=tried.engine.size_bytes,
        )

    def verdicts(self, engine: Predictor, name: str, precision: Precision) -> tuple[Verdict, ...]:
        """Invariance, tensors, predictions or dataset: in this order."""
        few = self._few()
        return (
            verify_invariance(
                engine,
                few,
                limits=policy.invariance_limits(precision, engine.spec.task),
                title="the result does not depend on its company",
                candidate_name=name,
                reference=self._model,
            ),
            verify_tensors(
                self._model,
                engine,
                few,
                tie_margin=policy.TIE_MARGIN,
                limits=policy.tensor_limits(precision, engine.spec.task),
                title="the network's output is PyTorch's",
                reference_name=REFERENCE,
                candidate_name=name,
            ),
            self.compare(engine, name),
        )

    def compare(self, engine: Predictor, name: str) -> Verdict:
        """The last of the verdicts alone: the data set's metric of both, or without labels their agreement."""
        labelled = self._dataset.labelled
        return compare_predictions(
            self.references,
            self._predictions(engine, name),
            (self._dataset.load_truth(sample) for sample in self._samples) if labelled else None,
            task=task_of(engine.spec),
            classes=engine.spec.classes,
            ignore=self._dataset.ignore,
            limits=policy.prediction_limits(self._max_drop),
            names=[sample.name for sample in self._samples],
            title="the data set's metric is PyTorch's" if labelled else "the predictions are PyTorch's",
            reference=REFERENCE,
            candidate=name,
        )

    def reference_metric(self, tried: Sequence[Tried]) -> float | None:
        """PyTorch's own metric, as measured beside the engines; None without labels."""
        found = (
            verdict.measured.get(REFERENCE_METRIC)
            for each in tried
            for verdict in each.record.verdicts
            if verdict.level == "dataset"
        )
        return next(found, None)

    def photo(self, name: str) -> tuple[int, ImageArray]:
        """Index and pixels of the sample ``name``."""
        index = next(index for index, sample in enumerate(self._samples) if sample.name == name)
        return index, self._model.read(self._samples[index].image)

    def _few(self) -> list[Named]:
        """A few images of one size, the size of the first."""
        images: list[Named] = []
        for sample in self._samples:
            pixels = self._model.read(sample.image)
            if not images or pixels.shape == images[0][1].shape:
                images.append((sample.name, pixels))
            if len(images) == max(_TENSOR_IMAGES, _BATCH_IMAGES):
                break
        if len(images) == 1:  # invariance needs two different images
            images.append((f"{images[0][0]} (mirrored)", np.ascontiguousarray(images[0][1][:, ::-1])))
        return images

    def _predictions(self, predictor: Predictor, name: str) -> Iterator[Prediction]:
        for index, sample in enumerate(self._samples):
            yield predictor.predict(sample.image)
            self._progress(f"verify {name}", index + 1, len(self._samples))

    def time(self, tried: Sequence[Tried], schedule: Schedule, threads: int) -> list[Tried]:
        """All candidates with their timings, PyTorch in front as one more: in turns, network alone and image file to mask."""
        predictors: dict[str, Predictor] = {REFERENCE: self._model}
        with ExitStack() as opened:
            for each in tried:
                if each.engine is not None:
                    predictors[each.record.name] = opened.enter_context(load_engine(each.engine.path, threads=threads))
            timings = time_all(predictors, self._samples[0].image, machine(threads), schedule, self._progress)
        reference = Candidate(
            name=REFERENCE, backend="torch", precision="fp32", metric=self.reference_metric(tried), drop=0.0, agreement=100.0
        )
        return [
            each
            if each.record.name not in predictors
            else each.with_(
                network_ms=timings[each.record.name, "network"].median_ms,
                image_ms=timings[each.record.name, "image"].median_ms,
                timings=tuple(timings[each.record.name, scope] for scope in SCOPES),
            )
            for each in (Tried(reference, None), *tried)
        ]

    def profile(self, tried: Sequence[Tried], threads: int) -> list[Tried]:
        """The candidates with profiles: the chosen one, and INT8 or mixed ones that are not much faster than FP32."""
        records = [each.record for each in tried]
        asked = [each.record.chosen or not gains.pays(each.record, records) for each in tried]
        return [self._profiled(each, threads) if wanted else each for each, wanted in zip(tried, asked, strict=True)]

    def _profiled(self, tried: Tried, threads: int) -> Tried:
        if tried.engine is None:
            return tried
        self._progress(f"profile {tried.record.name}", 0, None)
        with load_engine(tried.engine.path, threads=threads) as engine:
            return tried.with_(profile=engine.profile(self._samples[0].image))


SCOPES: tuple[Scope, ...] = ("network", "image")


def time_all(
    predictors: Mapping[str, Predictor], image: Path, environment: Environment, schedule: Schedule, progress: Progress = silent
) -> dict[Key, Timing]:
    """Time predictors side by side on one image file, both scopes in turns."""
    runs = {(name, scope): timed_run(each, image, scope) for name, each in predictors.items() for scope in SCOPES}
    first = next(iter(predictors.values()))
    size = first.prepare(image).frame.input
    return measure(runs, input_size=size, batch=1, environment=environment, schedule=schedule, progress=progress)


def timed_run(predictor: Predictor, image: Path, scope: Scope) -> Callable[[], object]:
    """A function that does the whole work once: image file to mask, or the network on fixed arrays.

    Of a sliding-window model, the network alone is all windows of the image.
    """
    if scope == "image":
        return lambda: predictor.predict(image)
    prepared = predictor.prepare(image)
    if predictor.spec.slide is not None:
        return lambda: predictor.predict_prepared([prepared])
    return predictor.session.bind(predictor.feeds(prepared.tensor, prepared.frame))


def machine(threads: int) -> Environment:
    """Where a measurement of segship is taken."""
    return environment(PACKAGES, threads)
