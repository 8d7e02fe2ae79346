"""Boundary IoU (Cheng et al. 2021, https://arxiv.org/abs/2103.16562): how well outlines are met, whatever the object's size.

IoU of a large object hardly sees its outline; boundary IoU compares nothing else: of either mask only the pixels near its own
border. A pixel is near when a square of ``2 width + 1`` pixels around it leaves the mask or the image
(bowenc0221/boundary-iou-api, ``mask_to_boundary``, which erodes by 3 x 3 ``width`` times).
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from segship.core.predictions import BoolArray, Instances, LabelArray, MaskCrop, SemanticMap
from segship.core.spec import Size
from segship.tasks.matching import pairs
from segship.tasks.scoring import Scores
from segship.tasks.semantic import MeanIoU

RATIO = 0.02
"""Width of the boundary as a share of the image's diagonal (section 5 of the paper; 0.5 % for Cityscapes in its code)."""
_OUTSIDE = 2**16 - 1
"""Stands around the image, and for what is not judged. No class has that id: a uint16 label map ends one below."""


class BoundaryIoU(MeanIoU):
    """Boundary IoU of each class of label maps, in percent, and its mean over the classes that occur; a scorer as for mIoU.

    ``support``: truth pixels in the boundary. Where the truth is ``ignore``, both maps are: what is not judged has the same
    outline in both.
    """

    def __init__(self, n_classes: int, ignore: int | None, ratio: float = RATIO) -> None:
        super().__init__(n_classes, ignore)
        self._ratio = ratio

    def add(self, truth: SemanticMap, prediction: SemanticMap) -> None:
        """Count one image. Raises ValueError for maps of two sizes."""
        width = boundary_width(truth.size, self._ratio)
        self._tallies.append(_tally(truth.labels, prediction.labels, self._n_classes, self._ignore, width))


def boundary_iou(truth_labels: LabelArray, labels: LabelArray, n_classes: int, ignore: int | None, ratio: float = RATIO) -> float:
    """Mean boundary IoU of one label map (height, width), 0 to 100 percent; NaN when no pixel is judged."""
    scorer = BoundaryIoU(n_classes, ignore, ratio)
    scorer.add(SemanticMap(truth_labels), SemanticMap(labels))
    return scorer.scores().mean


def matched_boundary_iou(truth: Instances, prediction: Instances, n_classes: int, ratio: float = RATIO) -> Scores:
    """Boundary IoU of objects that were found, in percent: the mean over the pairs of each class, and over the classes.

    Pairs are objects of one class with a mask IoU above one half. What was missed plays no part: how many there are is AP's
    concern. ``support``: pairs of each class; a class without any is NaN.
    """
    width = boundary_width(truth.size, ratio)
    found = pairs(truth, prediction)
    classes = truth.classes[[i for i, _, _ in found]].astype(np.int64)
    ious = [mask_boundary_iou(truth.masks[i], prediction.masks[j], width) for i, j, _ in found]
    count = np.bincount(classes, minlength=n_classes)
    sums = np.bincount(classes, weights=ious, minlength=n_classes)
    per_class = np.divide(100 * sums, count, out=np.full(len(count), np.nan), where=count > 0)
    return Scores(float(np.nanmean(per_class)) if count.any() else math.nan, per_class, count)


def mask_boundary_iou(first: MaskCrop, second: MaskCrop, width: int) -> float:
    """Boundary IoU of two masks of one image, 0 to 1, for a boundary ``width`` pixels wide; 1 for two empty masks."""
    one, other = mask_boundary(first.pixels, width), mask_boundary(second.pixels, width)
    top, left = max(first.top, second.top), max(first.left, second.left)
    bottom = max(top, min(first.top + one.shape[0], second.top + other.shape[0]))
    right = max(left, min(first.left + one.shape[1], second.left + other.shape[1]))
    shared = (
        one[top - first.top : bottom - first.top, left - first.left : right - first.left]
        & other[top - second.top : bottom - second.top, left - second.left : right - second.left]
    ).sum()
    union = one.sum() + other.sum() - shared
    return float(shared / union) if union else 1.0


def boundary_width(size: Size, ratio: float = RATIO) -> int:
    """Pixels, at least 1, of ``ratio`` of the diagonal of an image of ``size`` (height, width)."""
    return max(1, round(ratio * math.hypot(*size)))


def mask_boundary(mask: BoolArray, width: int) -> BoolArray:
    """The pixels of a mask (h, w) that are at most ``width`` pixels from its outside; what is not in the array is outside."""
    near: BoolArray = mask & label_boundary(mask.astype(np.uint8), width)
    return near


def label_boundary(labels: LabelArray, width: int) -> BoolArray:
    """The pixels (height, width) with another label, or the image's end, at most ``width`` pixels away in row and column.

    That is the boundary of every class at once: a pixel is inside its class where the smallest label of the square around it
    is also the largest.
    """
    import cv2  # costs 0.1 s to import

    if not labels.size:
        return np.zeros(labels.shape, bool)
    # one pixel of padding does: OpenCV's own border, outside of it, is never the smallest nor the largest
    padded = np.pad(labels.astype(np.uint16), 1, constant_values=_OUTSIDE)
    square = np.ones((2 * width + 1, 2 * width + 1), np.uint8)
    border: BoolArray = np.not_equal(cv2.erode(padded, square), cv2.dilate(padded, square))[1:-1, 1:-1]
    return border


def _tally(truth: LabelArray, labels: LabelArray, n_classes: int, ignore: int | None, width: int) -> NDArray[np.int64]:
    """Boundary pixels of each class that both maps share, of the truth, and of the prediction: (3, n_classes)."""
    if truth.shape != labels.shape:
        raise ValueError(f"two label maps of one image have one size, got {truth.shape} and {labels.shape} (height, width)")
    judged = truth != ignore if ignore is not None else np.ones(truth.shape, bool)
    truth, labels = (np.where(judged, each, np.uint16(_OUTSIDE)) for each in (truth, labels))
    of_truth, of_labels = label_boundary(truth, width) & judged, label_boundary(labels, width) & judged
    chosen = (truth[of_truth & of_labels & (truth == labels)], truth[of_truth], labels[of_labels])
    return np.stack([np.bincount(each, minlength=n_classes)[:n_classes] for each in chosen])
