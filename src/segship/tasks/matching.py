"""Which objects of two lists are the same, and how far two lists of objects agree."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from segship.core.predictions import Instances, MaskCrop

SAME = 0.5
"""Mask IoU above which two objects of one class can be the same (as in PQ)."""

SURE = 0.5
"""Score from which on an object is shown: the default of detectron2's demo (``--confidence-threshold``)."""


def agreement(first: Instances, second: Instances) -> float:
    """How far two lists of objects of one image are the same, 0 to 1. Symmetric; needs no truth.

    Objects of one class are paired one to one where their masks' IoU is above 0.5, best first. Each object weighs as much as
    its score: the sum over pairs of IoU x (score + score), divided by the sum of all scores. Nothing against nothing is 1, and
    an object without a pixel (no probability of its mask reaches the threshold) is nothing.
    """
    if first.size != second.size:
        raise ValueError(f"objects in an image of {first.size} cannot agree with objects in one of {second.size}")
    scores = np.concatenate([first.scores, second.scores]).astype(np.float64)
    if not np.isfinite(scores).all():  # scores that overflowed in FP16 agree with nothing
        return 0.0
    total = float(scores[[mask.area > 0 for mask in (*first.masks, *second.masks)]].sum()) if len(scores) else 0.0
    if total == 0:
        return 1.0
    shared = sum(iou * (float(first.scores[i]) + float(second.scores[j])) for i, j, iou in pairs(first, second))
    return min(shared / total, 1.0)


def overlaps(first: Instances, second: Instances) -> list[tuple[int, int]]:
    """How alike what both lists hold is: of each such object the pixels of both masks, and of either. Needs no truth.

    Objects that one of the two is not sure of (a score below 0.5, from which on official tools show them) do not count.
    """
    found = pairs(first, second)
    sure = [(i, j) for i, j, _ in found if min(first.scores[i], second.scores[j]) >= SURE]
    shared = [_shared(first.masks[i], second.masks[j]) for i, j in sure]
    return [(n, first.masks[i].area + second.masks[j].area - n) for (i, j), n in zip(sure, shared, strict=True)]


def pairs(first: Instances, second: Instances) -> list[tuple[int, int, float]]:
    """Index in ``first``, index in ``second`` and mask IoU of the objects that are the same, each in one pair at most."""
    candidates = [(i, j, _iou(first.masks[i], second.masks[j])) for i, j in _possible(first, second)]
    # The order decides where one object could pair with two: it must not depend on which list is the first.
    candidates.sort(key=lambda pair: (-pair[2], pair[0] + pair[1], abs(pair[0] - pair[1])))
    taken_first, taken_second, chosen = set[int](), set[int](), []
    for i, j, iou in candidates:
        if iou > SAME and i not in taken_first and j not in taken_second:
            taken_first.add(i)
            taken_second.add(j)
            chosen.append((i, j, iou))
    return chosen


def _possible(first: Instances, second: Instances) -> list[tuple[int, int]]:
    """Pairs of one class whose crops overlap enough: IoU > 1/2 needs a shared area above a third of both areas' sum."""
    (top, left, bottom, right, area), others = (_extents(each)[:, :, None] for each in (first, second))
    top2, left2, bottom2, right2, area2 = others.transpose(0, 2, 1)
    height = np.minimum(bottom, bottom2) - np.maximum(top, top2)
    width = np.minimum(right, right2) - np.maximum(left, left2)
    room = np.minimum(np.maximum(height, 0) * np.maximum(width, 0), np.minimum(area, area2))
    possible = (first.classes[:, None] == second.classes) & (3 * room > area + area2)
    return [(int(i), int(j)) for i, j in np.argwhere(possible)]


def _extents(objects: Instances) -> NDArray[np.int64]:
    """(5, n): top, left, bottom, right and pixels of each mask."""
    rows = [
        (mask.top, mask.left, mask.top + mask.pixels.shape[0], mask.left + mask.pixels.shape[1], mask.area)
        for mask in objects.masks
    ]
    return np.array(rows, np.int64).reshape(-1, 5).T


def _iou(first: MaskCrop, second: MaskCrop) -> float:
    shared = _shared(first, second)
    return shared / (first.area + second.area - shared)


def _shared(first: MaskCrop, second: MaskCrop) -> int:
    """Pixels of both masks."""
    top, left = max(first.top, second.top), max(first.left, second.left)
    bottom = min(first.top + first.pixels.shape[0], second.top + second.pixels.shape[0])
    right = min(first.left + first.pixels.shape[1], second.left + second.pixels.shape[1])
    one, other = (
        mask.pixels[top - mask.top : bottom - mask.top, left - mask.left : right - mask.left] for mask in (first, second)
    )
    return int(np.count_nonzero(one & other))
