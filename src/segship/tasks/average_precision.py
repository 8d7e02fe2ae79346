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

_ALL_AREAS = [0, 1e10]
_EPSILON = float(np.spacing(1))
_CHUNK = 1 << 22
"""Numbers in one intermediate array of the bootstrap: 32 MB."""


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
        return 100 * np.array(aps).reshape(self._n_classes, len(weights), 10)


def _mean(values: NDArray[np.float64]) -> float:
    present = values[~np.isnan(values)]
    return float(present.mean()) if len(present) else float("nan")


def coco_objects(objects: Instances) -> dict[int, list[dict[str, Any]]]:
    """What COCOeval reads of each object, by class. Ids start at 1: 0 would mean "not matched"."""
    rows: dict[int, list[dict[str, Any]]] = {}
    crowd = objects.crowd if objects.crowd is not None else np.zeros(len(objects), bool)
    corners = objects.boxes.astype(np.float64)
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
    truths = sum((weights[:, each.image] * each.truths for each in judged), np.zeros(len(weights)))
    if not np.any(truths):
        return np.full((len(weights), 10), np.nan)
    columns, images, copies = _in_order(judged, int(weights.max()))
    right, count = (np.concatenate([getattr(each, name) for each in judged], 1)[:, columns] for name in ("right", "count"))
    precision = np.zeros((len(weights), 10))
    step = max(1, _CHUNK // max(1, len(columns)))
    for start in range(0, len(weights), step):
        rows = slice(start, start + step)
        times = weights[rows][:, images]
        times = np.where(copies > 0, times >= copies, times)
        precision[rows] = _precision(times, right, count, truths[rows])
    return np.where(truths[:, None] > 0, precision, np.nan)


def _in_order(judged: list[Judged], most: int) -> tuple[NDArray[np.intp], NDArray[np.int64], NDArray[np.int64]]:
    """The class's detections by score, as column numbers; the image of each; and of how many copies of the image it stands for.

    Copy 0: for all of them. Detections of one image with one score are listed copy by copy (1 to ``most``), since their order
    matters and a repeated image repeats them as a block; any other detection's copies follow one another.
    """
    scores = np.concatenate([each.scores for each in judged])
    images = np.repeat([each.image for each in judged], [len(each.scores) for each in judged])
    order = np.argsort(-scores, kind="stable")
    equal = (np.diff(scores[order]) == 0) & (np.diff(images[order]) == 0)
    block = np.cumsum(np.append(True, ~equal)[: len(order)])
    tied = np.append(False, equal)[: len(order)] | np.append(equal, False)[: len(order)]
    times = np.where(tied, most, 1)
    place = np.repeat(np.arange(len(order)), times)
    copy = np.arange(len(place)) - np.repeat(np.cumsum(times) - times, times) + 1
    copy = np.where(tied[place], copy, 0)
    listed = np.lexsort((place, copy, block[place]))
    columns = order[place[listed]]
    return columns, images[columns], copy[listed]


def _precision(
    times: NDArray[np.float64], right: BoolArray, count: BoolArray, truths: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Mean precision (rows, 10) over the 101 recalls, of detections that occur ``times`` (rows, d) and are ``right`` (10, d).

    Only right detections need a look: recall rises at them alone, and the precision that COCO reads there is the best from
    there on, which lies at a right one too.
    """
    result = np.zeros((len(times), len(right)))
    for threshold, (hits, counted) in enumerate(zip(right, count, strict=True)):
        if not hits.any():
            continue
        found = np.cumsum(times[:, hits], 1)
        detected = np.cumsum(times * counted, 1)[:, hits]
        best = np.maximum.accumulate((found / (detected + _EPSILON))[:, ::-1], 1)[:, ::-1]
        with np.errstate(invalid="ignore", divide="ignore"):
            recall = found / truths[:, None]
        reached = np.searchsorted(RECALLS, recall, side="right")
        result[:, threshold] = (np.diff(reached, axis=1, prepend=0) * best).sum(1) / len(RECALLS)
    return result
