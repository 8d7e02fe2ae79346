"""Mask AP and box AP as COCO defines them: pycocotools decides what is right in each image, this module adds it up.

pycocotools' own sum (``COCOeval.accumulate``) cannot weigh images, which the bootstrap needs a thousand times. The one here
gives the same number (tests compare the two).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from segship.core.errors import BadDataset
from segship.core.predictions import BoolArray, Instances
from segship.core.rle import compress, runs_of
from segship.tasks.scoring import Scores

MOST_DETECTIONS = 100
"""Of one class in one image that COCO counts (``maxDets``)."""

RECALLS = np.linspace(0.0, 1.0, 101)
"""Where COCO reads the precision off; made as COCOeval makes it, so that equal numbers compare equal."""

N_THRESHOLDS = 10
"""IoU .50 to .95."""

_ALL_AREAS = [0, 1e10]
_EPSILON = float(np.spacing(1))


@dataclass(frozen=True)
class Judged:
    """The detections of one class in one image, best first: ``scores`` (d,), and for each of the 10 IoU thresholds whether
    they are ``right`` (10, d), and whether they ``count`` (10, d). ``truths``: how many objects there are to find."""

    image: int
    scores: NDArray[np.float64]
    right: BoolArray
    count: BoolArray
    truths: int


class AveragePrecision:
    """AP@[.5:.95] of masks in percent, mean over the classes that have truth; of an image only :class:`Judged` is kept."""

    def __init__(self, n_classes: int) -> None:
        self._n_classes, self._images = n_classes, 0
        self._judged: dict[str, list[list[Judged]]] = {kind: [[] for _ in range(n_classes)] for kind in ("segm", "bbox")}

    def add(self, truth: Instances, prediction: Instances) -> None:
        """Count one image."""
        if truth.size != prediction.size:
            raise BadDataset(
                f"the truth is {truth.size[0]} x {truth.size[1]} pixels (height x width), the prediction {prediction.size[0]} x "
                f"{prediction.size[1]}: give truth in the frame in which the model sees the image (an EXIF tag may turn it)"
            )
        rows = coco_objects(truth), coco_objects(prediction)
        for kind, classes in self._judged.items():
            for class_id, judged in judge(*rows, kind, self._images).items():
                if class_id < self._n_classes:
                    classes[class_id].append(judged)
        self._images += 1

    def scores(self) -> Scores:
        """Mask AP in percent; ``support``: objects to find. Extras: mask AP50, mask AP75 and box AP."""
        weights = np.ones((1, self._images))
        masks, boxes = (self._per_class(kind, weights)[:, 0] for kind in ("segm", "bbox"))
        support = np.array([sum(each.truths for each in judged) for judged in self._judged["segm"]], np.int64)
        extras = {
            "mask AP50": _mean(masks[:, 0]),
            "mask AP75": _mean(masks[:, 5]),
            "box AP": _mean(boxes.mean(-1)),
        }
        return Scores(_mean(masks.mean(-1)), masks.mean(-1), support, extras)

    def resampled(self, weights: NDArray[np.float64]) -> NDArray[np.float64]:
        """Mask AP (r,) when image i occurs ``weights[r, i]`` times: COCOeval's number with the copies in a row."""
        each = self._per_class("segm", weights).mean(-1)
        there = ~np.isnan(each)
        n = there.sum(0)
        mean: NDArray[np.float64] = np.divide(np.where(there, each, 0).sum(0), n, out=np.full(n.shape, np.nan), where=n > 0)
        return mean

    def _per_class(self, kind: str, weights: NDArray[np.float64]) -> NDArray[np.float64]:
        """AP (class, row of weights, IoU threshold) in percent, NaN where there is no truth."""
        aps = [accumulate(judged, weights) for judged in self._judged[kind]]
        return 100 * np.array(aps).reshape(self._n_classes, len(weights), N_THRESHOLDS)


def _mean(values: NDArray[np.float64]) -> float:
    present = values[~np.isnan(values)]
    return float(present.mean()) if len(present) else float("nan")


def coco_objects(objects: Instances) -> dict[int, list[dict[str, Any]]]:
    """What COCOeval reads of each object, by class. Ids start at 1: 0 would mean "not matched"."""
    rows: dict[int, list[dict[str, Any]]] = {}
    crowd = objects.crowd if objects.crowd is not None else np.zeros(len(objects), bool)
    # an IoU that is no number would pass COCOeval's comparison as a match: a box that overflowed in FP16 covers nothing
    corners = np.where(np.isfinite(objects.boxes).all(1, keepdims=True), objects.boxes, 0).astype(np.float64)
    for i, mask in enumerate(objects.masks):
        x0, y0, x1, y1 = corners[i].tolist()
        row = {
            "id": i + 1,
            "segmentation": {"size": list(objects.size), "counts": compress(runs_of(mask, objects.size)).encode()},
            "bbox": [x0, y0, x1 - x0, y1 - y0],
            "score": float(objects.scores[i]),
            "area": mask.area,
            "iscrowd": int(crowd[i]),
            "ignore": int(crowd[i]),
        }
        rows.setdefault(int(objects.classes[i]), []).append(row)
    return rows


def judge(
    truth: dict[int, list[dict[str, Any]]], prediction: dict[int, list[dict[str, Any]]], kind: str, image: int
) -> dict[int, Judged]:
    """What COCOeval says of one image, for each class that is in it."""
    from pycocotools.cocoeval import COCOeval

    evaluator = COCOeval(iouType=kind)
    evaluator.params.maxDets = [MOST_DETECTIONS]
    judged = {}
    for class_id in sorted({*truth, *prediction}):
        # What COCOeval.evaluate prepares from files, for one image and class
        evaluator._gts[0, class_id], evaluator._dts[0, class_id] = truth.get(class_id, []), prediction.get(class_id, [])
        evaluator.ious = {(0, class_id): evaluator.computeIoU(0, class_id)}
        found = evaluator.evaluateImg(0, class_id, _ALL_AREAS, MOST_DETECTIONS)
        count = ~found["dtIgnore"].astype(bool)
        judged[class_id] = Judged(
            image=image,
            scores=np.array(found["dtScores"], np.float64),
            right=(found["dtMatches"] > 0) & count,
            count=count,
            truths=int(np.count_nonzero(found["gtIgnore"] == 0)),
        )
    return judged


def accumulate(judged: list[Judged], weights: NDArray[np.float64]) -> NDArray[np.float64]:
    """AP of one class, (rows, 10) from 0 to 1, for each row of ``weights`` (rows, images); NaN in rows without truth."""
    precision = np.full((len(weights), N_THRESHOLDS), np.nan)
    if not judged:
        return precision
    ranked, images = Ranked.of(judged), [each.image for each in judged]
    times = weights[:, images].astype(np.int64)
    truths = times @ np.array([each.truths for each in judged])
    for row in np.flatnonzero(truths > 0):
        precision[row] = ranked.precision(times[row], int(truths[row]))
    return precision


@dataclass(frozen=True)
class Ranked:
    """All detections of one class, best first; of equal scores, the earlier image first.

    ``source`` (d,): position of its image in the list of images; ``block`` (d,): numbers the runs of equal scores in one image,
    or None when none is longer than one; ``right`` (10, d); ``count`` (10, d), or (1, d) when the IoU plays no part.
    """

    source: NDArray[np.int64]
    block: NDArray[np.int64] | None
    right: BoolArray
    count: BoolArray

    @staticmethod
    def of(judged: list[Judged]) -> Ranked:
        """Sort once, for all resamples."""
        scores = np.concatenate([each.scores for each in judged])
        source = np.repeat(np.arange(len(judged)), [len(each.scores) for each in judged])
        order = np.argsort(-scores, kind="stable")
        scores, source = scores[order], source[order]
        other = (np.diff(scores) != 0) | (np.diff(source) != 0)
        right, count = (np.concatenate([getattr(each, name) for each in judged], 1)[:, order] for name in ("right", "count"))
        block = None if other.all() else np.append(0, np.cumsum(other))
        return Ranked(source, block, right, count[:1] if np.all(count == count[:1]) else count)

    def precision(self, times: NDArray[np.int64], truths: int) -> NDArray[np.float64]:
        """Mean precision (10,) over the 101 recalls when each image occurs ``times`` (images,) and there are ``truths`` to find.

        Where no detection is right the curve does not rise, and its best precision lies at a right one: only those are read.
        """
        drawn = self._drawn(times)
        useful = np.any(self.right[:, drawn], axis=0)
        found = np.cumsum(self.right[:, drawn[useful]], axis=1)
        detected = np.cumsum(self.count[:, drawn], axis=1)[:, useful]
        best = np.maximum.accumulate((found / (detected + _EPSILON))[:, ::-1], axis=1)[:, ::-1]
        recalls_reached = np.searchsorted(RECALLS, np.arange(truths + 1) / truths, side="right")
        read: NDArray[np.float64] = np.diff(recalls_reached[found], axis=1, prepend=0) * best
        return np.asarray(read.sum(1) / len(RECALLS))

    def _drawn(self, times: NDArray[np.int64]) -> NDArray[np.int64]:
        """The detections of a resample, best first. Copies of an image repeat a run of equal scores as a whole."""
        repeats = times[self.source]
        drawn = np.repeat(np.arange(len(repeats)), repeats)
        if self.block is None:
            return drawn
        copy = np.arange(len(drawn)) - np.repeat(np.cumsum(repeats) - repeats, repeats)
        return drawn[np.lexsort((drawn, copy, self.block[drawn]))]
