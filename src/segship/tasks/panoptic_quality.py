"""Panoptic quality (Kirillov et al. 2019, https://arxiv.org/abs/1801.00868), and how far two panoptic maps agree.

The rules are those of the official COCO panoptic API (cocodataset/panopticapi, ``evaluation.py``): matched is what has more
than half of its union in common; void truth counts in no union; what lies mostly on void, or on a crowd of its own class,
is no error.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from segship.core.predictions import BoolArray, PanopticMap
from segship.tasks.scoring import Scores

_VOID = -1
"""The class of pixels without a segment."""
_MATCH = 0.5
"""IoU above which two segments are the same object. Segments of one map are disjoint, so that above one half none has two
partners; at exactly one half it could."""


class Quality(NamedTuple):
    """Means over ``n`` classes, in percent, NaN when n is 0: PQ; SQ, the IoU of matched segments; RQ, the F1 score of finding
    them. PQ of a class is SQ x RQ."""

    pq: float
    sq: float
    rq: float
    n: int


class _Overlap(NamedTuple):
    """What two maps have in common. Row or column 0 is void, row i the first map's segment i - 1, and so for columns.

    ``pixels`` (m + 1, n + 1) int64; ``rows`` (m + 1,) and ``columns`` (n + 1,): class ids, -1 for void.
    """

    pixels: NDArray[np.int64]
    rows: NDArray[np.int64]
    columns: NDArray[np.int64]


class PanopticQuality:
    """PQ of each class, and over the classes that occur. Keeps four numbers of each image and class."""

    def __init__(self, n_classes: int, ignore: int | None) -> None:
        self._n_classes, self._ignore = n_classes, ignore
        self._tallies: list[NDArray[np.float64]] = []
        self._is_thing: dict[int, bool] = {}

    def add(self, truth: PanopticMap, prediction: PanopticMap) -> None:
        """Count one image. Truth of the class ``ignore`` is void.

        Raises ValueError for maps of two sizes, and for a class id that is not below ``n_classes``.
        """
        self._tallies.append(_tally(truth, prediction, self._n_classes, self._ignore))
        for segment in prediction.segments:
            self._is_thing.setdefault(segment.class_id, segment.is_thing)
        self._is_thing.update({segment.class_id: segment.is_thing for segment in truth.segments})

    def scores(self) -> Scores:
        """PQ in percent; the support is the number of truth segments, without crowds."""
        true, _, missed, _ = self._sums()
        return Scores(self.overall()["all"].pq, self.per_class()[0], (true + missed).astype(np.int64))

    def per_class(self) -> NDArray[np.float64]:
        """PQ, SQ and RQ of each class in percent, (3, n_classes), NaN for classes that do not occur."""
        true, false, missed, iou = self._sums()
        cases = true + (false + missed) / 2
        sq = np.divide(iou, true, out=np.zeros_like(iou), where=true > 0)
        rq = np.divide(true, cases, out=np.zeros_like(iou), where=cases > 0)
        return np.where(cases > 0, 100 * np.stack([sq * rq, sq, rq]), np.nan)

    def overall(self) -> dict[str, Quality]:
        """The means over the classes that occur: of ``"all"``, ``"things"`` and ``"stuff"``.

        A class is a thing or stuff as the truth has it, or where the truth lacks it, as the predictions have it.
        """
        values = self.per_class()
        occurs = np.isfinite(values[0])
        things = np.array([self._is_thing.get(c, False) for c in range(self._n_classes)], bool)
        parts = {"all": occurs, "things": occurs & things, "stuff": occurs & ~things}
        return {name: _mean(values[:, part]) for name, part in parts.items()}

    def resampled(self, weights: NDArray[np.float64]) -> NDArray[np.float64]:
        """PQ (r,) of each row of ``weights`` (r, images)."""
        tallies = np.array(self._tallies)
        sums = (weights @ tallies.reshape(len(tallies), -1)).reshape(-1, 4, self._n_classes)
        true, false, missed, iou = np.moveaxis(sums, 1, 0)
        cases = true + (false + missed) / 2
        each = np.divide(iou, cases, out=np.zeros_like(iou), where=cases > 0)
        n = np.asarray((cases > 0).sum(-1))
        mean: NDArray[np.float64] = np.divide(100 * each.sum(-1), n, out=np.full(n.shape, np.nan), where=n > 0)
        return mean

    def _sums(self) -> NDArray[np.float64]:
        """True positives, false positives, false negatives and summed IoU over all images, (4, n_classes)."""
        return np.sum(self._tallies, axis=0) if self._tallies else np.zeros((4, self._n_classes))


def agreement(first: PanopticMap, second: PanopticMap) -> float:
    """Share of pixels on which two maps agree, 0 to 1. Symmetric; needs no truth.

    Agreed is a pixel that is void in both, of one stuff class in both, or of two objects that are the same: of one class,
    with more than half of their union in common.
    """
    overlap = _overlap(first, second)
    return float(overlap.pixels[_same(first, second, overlap)].sum() / max(first.ids.size, 1))


def overlaps(first: PanopticMap, second: PanopticMap) -> list[tuple[int, int]]:
    """Of each object (no stuff) that is the same in both maps, the pixels that both give it, and that either does."""
    overlap = _overlap(first, second)
    things = np.array([False, *(segment.is_thing for segment in first.segments)])
    same = _same(first, second, overlap) & things[:, None]
    either = overlap.pixels.sum(1, keepdims=True) + overlap.pixels.sum(0) - overlap.pixels
    return list(zip(overlap.pixels[same].tolist(), either[same].tolist(), strict=True))


def agreeing(first: PanopticMap, second: PanopticMap) -> BoolArray:
    """The pixels on which two maps agree, (height, width) bool, as :func:`agreement` counts them."""
    same: BoolArray = _same(first, second, _overlap(first, second))[places(first), places(second)]
    return same


def _tally(truth: PanopticMap, prediction: PanopticMap, n_classes: int, ignore: int | None) -> NDArray[np.float64]:
    """True positives, false positives, false negatives and summed IoU of one image, (4, n_classes)."""
    pixels, rows, columns = _overlap(truth, prediction)
    rows = np.where(rows == ignore, _VOID, rows) if ignore is not None else rows
    largest = max(rows.max(), columns.max())
    if largest >= n_classes:
        raise ValueError(f"a segment has class id {largest}, there are {n_classes} classes: give all of them")
    crowd = np.array([False, *(segment.crowd for segment in truth.segments)])
    void = pixels[rows == _VOID].sum(0)
    iou = _ious(pixels, void)
    matched = (rows[:, None] == columns) & (rows[:, None] != _VOID) & ~crowd[:, None] & (iou > _MATCH)
    missed = ~matched.any(1) & ~crowd & (rows != _VOID)
    excused = void + _crowd_pixels(truth, pixels, columns)
    false = ~matched.any(0) & (columns != _VOID) & (2 * excused <= pixels.sum(0))
    pairs = np.nonzero(matched)
    return np.stack(
        [
            np.bincount(rows[pairs[0]], minlength=n_classes),
            np.bincount(columns[false], minlength=n_classes),
            np.bincount(rows[missed], minlength=n_classes),
            np.bincount(rows[pairs[0]], weights=iou[pairs], minlength=n_classes),
        ]
    ).astype(np.float64)


def _crowd_pixels(truth: PanopticMap, pixels: NDArray[np.int64], columns: NDArray[np.int64]) -> NDArray[np.int64]:
    """Pixels (n + 1,) that each predicted segment has on a crowd of its class.

    Of several crowds of one class the last one counts alone: so does the official code, which holds them by class.
    """
    crowds = {segment.class_id: row for row, segment in enumerate(truth.segments, 1) if segment.crowd}
    on_crowd = [pixels[crowds[c], i] if c in crowds else 0 for i, c in enumerate(columns.tolist())]
    return np.array(on_crowd, np.int64)


def _same(first: PanopticMap, second: PanopticMap, overlap: _Overlap) -> BoolArray:
    """Which pairs of segments, (m + 1, n + 1), are one and the same thing to both maps."""
    row_things, column_things = (np.array([False, *(s.is_thing for s in each.segments)]) for each in (first, second))
    alike = (overlap.rows[:, None] == overlap.columns) & (row_things[:, None] == column_things)
    objects = _ious(overlap.pixels, np.zeros(len(overlap.columns), np.int64)) > _MATCH
    same: BoolArray = alike & (objects | ~row_things[:, None])
    return same


def _ious(pixels: NDArray[np.int64], void: NDArray[np.int64]) -> NDArray[np.float64]:
    """IoU of each pair, (m + 1, n + 1), where ``void`` (n + 1,) pixels of each column are in no union."""
    union = pixels.sum(1)[:, None] + pixels.sum(0) - pixels - void
    ious: NDArray[np.float64] = np.divide(pixels, union, out=np.zeros(pixels.shape), where=union > 0)
    return ious


def _overlap(first: PanopticMap, second: PanopticMap) -> _Overlap:
    if first.size != second.size:
        raise ValueError(f"two maps of one image have one size, got {first.size} and {second.size} (height, width)")
    rows, columns = _classes(first), _classes(second)
    cells = places(first).reshape(-1).astype(np.int64) * len(columns) + places(second).reshape(-1)
    return _Overlap(np.bincount(cells, minlength=len(rows) * len(columns)).reshape(len(rows), len(columns)), rows, columns)


def _classes(panoptic: PanopticMap) -> NDArray[np.int64]:
    return np.array([_VOID, *(segment.class_id for segment in panoptic.segments)], np.int64)


def places(panoptic: PanopticMap) -> NDArray[np.int32]:
    """For each pixel (height, width) 0 for void, else 1 + the place of its segment in the list: ids are any numbers."""
    ids = np.array([0, *(segment.id for segment in panoptic.segments)], np.int32)
    order = np.argsort(ids)
    found: NDArray[np.int32] = order.astype(np.int32)[np.searchsorted(ids[order], panoptic.ids)]
    return found


def _mean(values: NDArray[np.float64]) -> Quality:
    """The means of PQ, SQ and RQ (3, n)."""
    n = values.shape[1]
    pq, sq, rq = values.mean(1).tolist() if n else [float("nan")] * 3
    return Quality(pq, sq, rq, n)
