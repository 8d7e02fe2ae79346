"""Were the calibration images good enough? Each check says what was found on them, and what to do."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from hashlib import sha256
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from segship.core.engine import Engine
from segship.core.errors import BuildFailed
from segship.core.graph import Graph
from segship.core.predictions import Instances, PanopticMap, Prediction
from segship.datasets import Dataset, Sample
from segship.evidence.calibration import Check, Diagnosis, Saturation
from segship.graph.calibrate import Ranges
from segship.graph.passes.edit import place
from segship.predictor import Predictor, load_engine
from segship.quantiser import Quantiser

FEWEST_IMAGES = 8
_MOVED = 0.05
_MOST_MOVED = 0.15
"""Of all ranges, how many may move by ``_MOVED`` in the last quarter of the images: on the demo's scenes and CamVid a fifth to
two fifths do with 2 or 4 images, a tenth with 16."""

ALIKE = 0.99
"""Correlation of two thumbnails above which images are the same place and time: other scenes of one street data set reach 0.9."""
_THUMBNAIL = 16

_HARMFUL = 1e-2
"""Power of the clipping error over the tensor's: 8 bits over the whole range make about 1e-4 by rounding."""
_SHOWN = 5
_NAMED = 4


def diagnose(quantiser: Quantiser, model: Predictor, dataset: Dataset, samples: Sequence[Sample], engine: Engine) -> Diagnosis:
    """All checks of the quantiser's calibration on ``samples``; ``engine``: one that was built of it.

    Raises :class:`BuildFailed` when the engine is fed other numbers than it was calibrated with.
    """
    ranges = quantiser.calibrate()
    saturated = saturation(ranges, quantiser.graph)
    classes = model.spec.classes if dataset.classes is None else dataset.classes
    checks = [enough(ranges), varied([(sample.name, thumbnail(model, sample.image)) for sample in samples])]
    checks.append(classes_seen((_classes_on(sample, dataset, model) for sample in samples), classes))
    checks.append(not_clipped(saturated))
    checks.append(same_input(model, engine, samples[0].image))
    return Diagnosis(recipe=str(quantiser.recipe), images=len(samples), checks=tuple(checks), saturated=saturated[:_SHOWN])


def enough(ranges: Ranges) -> Check:
    """Whether more images would still move the ranges."""
    question = "enough images"
    moving = sum(moved > _MOVED for moved in ranges.moved.values())
    share = moving / max(len(ranges.moved), 1)
    last = max(1, ranges.images // 4)
    found = (
        f"the last {last} of {ranges.images} images moved {moving} of {len(ranges.moved)} ranges by more than {100 * _MOVED:g} %"
    )
    if ranges.images < FEWEST_IMAGES:
        found = f"{ranges.images} image{'s' if ranges.images != 1 else ''} for {len(ranges.tensors)} ranges"
        return Check(
            question,
            passed=False,
            found=found,
            advice=f"give at least {FEWEST_IMAGES}, a few dozen are better (--calibration-images)",
        )
    if share <= _MOST_MOVED:
        return Check(question, passed=True, found=found)
    return Check(question, passed=False, found=found, advice="they still grow: give more images (--calibration-images)")


def thumbnail(model: Predictor, image: Path) -> NDArray[np.float32]:
    """A small grey picture of mean 0 and length 1, shape (pixels,): what stays the same when an image is hardly changed."""
    grey = cv2.cvtColor(model.read(image), cv2.COLOR_RGB2GRAY)
    small = cv2.resize(grey, (_THUMBNAIL, _THUMBNAIL), interpolation=cv2.INTER_AREA).astype(np.float32).ravel()
    small -= small.mean()
    return np.asarray(small / max(float(np.linalg.norm(small)), 1e-6), np.float32)


def varied(thumbnails: Sequence[tuple[str, NDArray[np.float32]]]) -> Check:
    """Whether no two images show nearly the same."""
    question = "different images"
    pictures = np.stack([picture for _, picture in thumbnails])
    alike = np.argwhere(np.triu(pictures @ pictures.T > ALIKE, k=1))
    names = [name for name, _ in thumbnails]
    if not len(alike):
        return Check(question, passed=True, found=f"no two of {len(names)} images are nearly the same")
    pairs = ", ".join(f"{names[first]} and {names[second]}" for first, second in alike[:_NAMED])
    more = f" and {len(alike) - _NAMED} more pairs" if len(alike) > _NAMED else ""
    spare = len(np.unique(alike[:, 1]))
    found = f"{spare} of {len(names)} images show nearly the same as another ({pairs}{more})"
    return Check(question, passed=False, found=found, advice="they teach nothing new: take images of other places and times")


def classes_seen(seen: Iterable[set[int]], classes: Sequence[str]) -> Check:
    """Whether every class is on some image."""
    found = set[int]().union(*seen)
    missing = [name for index, name in enumerate(classes) if index not in found]
    said = f"{len(classes) - len(missing)} of {len(classes)} classes are on the images"
    if not missing:
        return Check("every class", passed=True, found=said)
    names = ", ".join(missing[:_NAMED]) + (f" and {len(missing) - _NAMED} more" if len(missing) > _NAMED else "")
    return Check(
        "every class",
        passed=False,
        found=f"{said}, never seen: {names}",
        advice="add images that show them, where these classes matter",
    )


def _classes_on(sample: Sample, dataset: Dataset, model: Predictor) -> set[int]:
    """By the labels; where there are none, by what PyTorch predicts."""
    truth = dataset.load_truth(sample) if dataset.labelled else model.predict(sample.image)
    return classes_of(truth) - {dataset.ignore}


def classes_of(prediction: Prediction) -> set[int]:
    """Class ids that occur in a prediction or truth of any task."""
    if isinstance(prediction, Instances):
        return set(prediction.classes.tolist())
    if isinstance(prediction, PanopticMap):
        return {segment.class_id for segment in prediction.segments}
    return set(np.unique(prediction.labels).tolist())


def saturation(ranges: Ranges, graph: Graph) -> tuple[Saturation, ...]:
    """Every tensor that is clipped, the most harmed first."""
    makers = {value.name: place(node) for node in graph.ir.graph for value in node.outputs}
    found = [
        Saturation(
            path=makers.get(name, name),
            tensor=name,
            clipped=100 * clipping.share,
            error_db=10 * math.log10(clipping.error),
            low=ranges.tensors[name].low,
            high=ranges.tensors[name].high,
        )
        for name, clipping in ranges.clipped.items()
        if clipping.error > 0
    ]
    return tuple(sorted(found, key=lambda each: -each.error_db))


def not_clipped(saturated: Sequence[Saturation]) -> Check:
    """Whether no range cuts off what its tensor says."""
    question = "nothing cut off"
    harmed = [each for each in saturated if each.error_db > 10 * math.log10(_HARMFUL)]
    if not harmed:
        most = f", most that of {saturated[0].path} ({saturated[0].clipped:.2g} % of its values)" if saturated else ""
        return Check(question, passed=True, found=f"{len(saturated)} ranges clip values, none of them to harm{most}")
    worst = ", ".join(f"{each.path} ({each.clipped:.2g} % of its values)" for each in harmed[:_NAMED])
    found = f"{len(harmed)} range{'s clip' if len(harmed) != 1 else ' clips'} what matters: {worst}"
    return Check(
        question, passed=False, found=found, advice="where the engine is wrong, give more images, or keep that layer in float"
    )


def same_input(model: Predictor, engine: Engine, image: Path) -> Check:
    """Whether the engine, by its own specification, is fed what was calibrated with. Raises :class:`BuildFailed` where not."""
    calibrated = model.network_feeds(image)["image"]
    with load_engine(engine.path) as loaded:
        fed = loaded.network_feeds(image)["image"]
    digests = [sha256(each.tobytes()).hexdigest() for each in (calibrated, fed)]
    if digests[0] != digests[1] or calibrated.shape != fed.shape:
        raise BuildFailed(
            f"{engine.path.name} was calibrated with other numbers than it is fed: {image.name} gives {calibrated.shape} "
            f"{digests[0][:12]} there and {fed.shape} {digests[1][:12]} here; build it again with the same preprocessing"
        )
    return Check(
        "the same input",
        passed=True,
        found=f"the engine is fed what it was calibrated with ({image.name}: {digests[0][:12]})",
    )
