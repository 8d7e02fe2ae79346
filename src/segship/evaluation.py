"""Judge and time what already exists: an engine or a checkpoint on a data set, an engine against its checkpoint."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from segship.core.engine import MANIFEST, Engine
from segship.core.environment import available_threads
from segship.core.errors import BadArgument, BadDataset, StorageFailed
from segship.core.image import ImageArray
from segship.core.profile import Profile
from segship.core.progress import Progress, silent
from segship.core.spec import Size
from segship.datasets import for_model, open_dataset
from segship.evidence import policy, records
from segship.evidence.measure import Schedule
from segship.evidence.predictors import verify_invariance
from segship.evidence.records import Timing, Verdict
from segship.judging import REFERENCE, Judge, machine, time_all
from segship.predictor import EnginePredictor, Predictor, load_engine
from segship.tasks import task_of

_NOISE_SIZE = (512, 512)


@dataclass(frozen=True)
class Evaluation:
    """The task's metric (``metric_name``, points) over a labelled data set, also by class name, and the mean time of an image."""

    metric_name: str
    metric: float
    classes: dict[str, float | None]
    images: int
    ms_per_image: float

    def as_json(self) -> dict[str, Any]:
        """Plain values under the metric's name."""
        return {
            self.metric_name: None if np.isnan(self.metric) else round(self.metric, 4),  # JSON has no NaN
            "classes": {name: None if value is None else round(value, 4) for name, value in self.classes.items()},
            "images": self.images,
            "ms_per_image": round(self.ms_per_image, 3),
        }


def open_predictor(path: Path | str, *, threads: int | None = None, facts: Mapping[str, Any] | None = None) -> Predictor:
    """An engine directory or a checkpoint, whichever ``path`` is. ``facts`` are for checkpoints only."""
    if (Path(path) / MANIFEST).is_file() or str(path).rstrip("/").endswith(".engine"):
        if facts:
            raise BadArgument(f"{path} is an engine, whose facts are fixed: leave --fact out, or give the checkpoint")
        return load_engine(path, threads=threads)
    from segship.pipeline import load_model

    return load_model(path, threads=threads, **(facts or {}))


def evaluate(predictor: Predictor, data: Path | str, *, progress: Progress = silent) -> Evaluation:
    """The metric of a predictor on a labelled folder, image file in, prediction out, one image at a time."""
    spec = predictor.spec
    dataset, task = for_model(open_dataset(data, spec.task), spec), task_of(spec)
    if not dataset.labelled:
        raise BadDataset(
            f"{data} has no labels, which {task.METRIC} needs: give a labelled folder, or compare engines with segship verify"
        )
    scorer = task.scorer(len(spec.classes), dataset.ignore)
    spent = 0.0
    for index, sample in enumerate(dataset.samples):
        truth = dataset.load_truth(sample)
        begin = time.perf_counter()
        prediction = predictor.predict(sample.image)
        spent += time.perf_counter() - begin
        if truth.size != prediction.size:
            raise BadDataset(
                f"{sample.name}: the label has {truth.size[0]} x {truth.size[1]} pixels, the image as this model reads it "
                f"{prediction.size[0]} x {prediction.size[1]} (EXIF orientation): turn the file itself and remove the tag"
            )
        scorer.add(truth, prediction)
        progress("evaluate", index + 1, len(dataset))
    scores = scorer.scores()
    names = dataset.classes or spec.classes
    per_class = {name: None if np.isnan(value) else float(value) for name, value in zip(names, scores.per_class, strict=True)}
    return Evaluation(task.METRIC, scores.mean, per_class, len(dataset), 1000 * spent / max(len(dataset), 1))


def verify(
    engine: Path | str,
    against: Path | str | None,
    data: Path | str | None,
    *,
    max_drop: float,
    facts: Mapping[str, Any],
    progress: Progress = silent,
) -> list[Verdict]:
    """Prove an engine again; the verdicts are also appended to its evidence.

    Without ``against`` or without ``data`` only the invariance tests run (on the data's images, or on noise).
    """
    if against is not None and data is None:
        raise BadArgument("to compare with a checkpoint, images are needed: give --data DIR")
    with load_engine(engine) as candidate:
        _refuse_read_only(candidate.engine)
        if against is not None and data is not None:
            verdicts = _beside_model(candidate, against, data, max_drop, facts, progress)
        else:
            images = _images(candidate, data)
            limits = policy.invariance_limits(candidate.engine.manifest.precision, candidate.spec.task)
            title = "the result does not depend on its company"
            verdicts = [verify_invariance(candidate, images, limits=limits, title=title, candidate_name=name_of(candidate))]
        _keep(candidate.engine, verdicts)
    return verdicts


def _beside_model(
    candidate: EnginePredictor,
    against: Path | str,
    data: Path | str,
    max_drop: float,
    facts: Mapping[str, Any],
    progress: Progress,
) -> list[Verdict]:
    from segship.pipeline import check_made_of, load_model

    spec = candidate.spec
    model = load_model(against, **facts)
    check_made_of(candidate.engine, model, against)
    model = model.with_spec(spec)
    dataset = for_model(open_dataset(data, spec.task), spec)
    judge = Judge(model, dataset, dataset.samples, max_drop, progress)
    return list(judge.verdicts(candidate, name_of(candidate), candidate.engine.manifest.precision))


def name_of(candidate: EnginePredictor) -> str:
    """Backend and precision, as ``deploy`` names its candidates."""
    return f"{candidate.engine.manifest.backend} {candidate.engine.manifest.precision}"


def _images(candidate: EnginePredictor, data: Path | str | None) -> list[tuple[str, ImageArray]]:
    if data is not None:
        samples = open_dataset(data).samples[:3]
        images = [(sample.name, candidate.read(sample.image)) for sample in samples]
        return images if len(images) > 1 else [*images, ("mirrored", np.ascontiguousarray(images[0][1][:, ::-1]))]
    size = image_size_of(candidate)
    return [(f"noise {seed}", noise(size, seed)) for seed in range(3)]


def image_size_of(predictor: Predictor) -> Size:
    """An image size (height, width) that the predictor takes."""
    signature = predictor.signature
    return signature.image_size or signature.input_size or _NOISE_SIZE


def noise(size: Size, seed: int) -> ImageArray:
    """A picture of coloured clouds, (height, width, 3) uint8: noise with structure, so that networks answer several classes."""
    rng = np.random.default_rng(seed)
    small = rng.integers(0, 256, (6, 8, 3), dtype=np.uint8)
    return np.asarray(Image.fromarray(small).resize((size[1], size[0]), Image.Resampling.BICUBIC))


def _refuse_read_only(engine: Engine) -> None:
    """What is measured is kept in the engine: that it cannot be is found out now, not when all is measured."""
    place = engine.evidence if engine.evidence.exists() else engine.path
    if not os.access(place, os.W_OK):
        raise StorageFailed(
            f"{place} cannot be written, and what is measured is kept there: give a copy of the engine of your own"
        )


def _keep(engine: Engine, verdicts: Sequence[Verdict]) -> None:
    for verdict in verdicts:
        records.append(engine.evidence / "verdicts.jsonl", verdict)


def bench(
    engines: Sequence[Path],
    against: Path | None,
    image: Path | None,
    *,
    rounds: int,
    threads: int | None,
    facts: Mapping[str, Any],
    progress: Progress = silent,
) -> list[Timing]:
    """Time engines (and the checkpoint ``against`` in PyTorch) side by side; timings are appended to each engine's evidence.

    ``image`` None: a picture of noise, of the size that the first engine of fixed size takes.
    """
    opened = {path: load_engine(path, threads=threads) for path in engines}
    for each in opened.values():
        _refuse_read_only(each.engine)
    predictors: dict[str, Predictor] = {str(path): engine for path, engine in opened.items()}
    if against is not None:
        other = open_predictor(against, threads=threads, facts=facts)
        predictors = {str(against) if isinstance(other, EnginePredictor) else REFERENCE: other, **predictors}
    here = machine(threads or available_threads())
    choosiest = min(opened.values(), key=lambda engine: engine.signature.input_size is None)
    with _image_file(image, choosiest) as file:
        timings = time_all(predictors, file, here, Schedule(rounds=rounds), progress)
    for path, engine in opened.items():
        for (name, _), timing in timings.items():
            if name == str(path):
                records.append(engine.engine.evidence / "timings.jsonl", timing)
        engine.close()
    return list(timings.values())


def profile(engine: Path, image: Path | None, *, threads: int | None = None) -> Profile:
    """Where the time of an engine's network goes; ``image`` None: on noise of a size that it takes."""
    with load_engine(engine, threads=threads) as opened:
        return opened.profile(image if image is not None else noise(image_size_of(opened), 0))


@contextmanager
def _image_file(image: Path | None, predictor: Predictor) -> Iterator[Path]:
    """The image, or a JPEG of noise that is gone afterwards."""
    if image is not None:
        yield image
        return
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "noise.jpg"
        Image.fromarray(noise(image_size_of(predictor), 0)).save(file, quality=95)
        yield file
