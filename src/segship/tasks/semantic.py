"""Semantic segmentation: what logits mean, how far two label maps agree, and mIoU.

Logits are (batch, class, height, width) float32; label maps are (height, width) uint8 or uint16 in the image's frame.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from segship.core.predictions import LabelArray, SemanticMap
from segship.core.spec import SemanticDecode, Size

METRIC = "mIoU"


def label_dtype(n_classes: int) -> type[np.uint8] | type[np.uint16]:
    """The smallest type that holds every class id, with 255 left free for "ignore" in 8 bits."""
    return np.uint8 if n_classes <= 255 else np.uint16


def decode(logits: NDArray[np.float32], spec: SemanticDecode, input_size: Size, image_size: Size) -> SemanticMap:
    """Label map of one image from its logits (class, height, width): the official resizes in order, then the decision."""
    sizes = {"input": input_size, "image": image_size}
    for step in spec.resize_to:
        logits = resize_logits(logits, sizes[step])
    return SemanticMap(decide(logits, spec.threshold))


def decide(logits: NDArray[np.float32], threshold: float | None) -> LabelArray:
    """Class ids (height, width) from logits (class, height, width): argmax, or for one channel sigmoid above threshold."""
    if logits.shape[0] == 1:
        # sigmoid(x) > t  <=>  x > log(t / (1 - t)), without the exponential of every pixel
        limit = 0.5 if threshold is None else threshold
        above: LabelArray = (logits[0] > np.log(limit / (1 - limit))).astype(np.uint8)
        return above
    labels: LabelArray = np.argmax(logits, axis=0).astype(label_dtype(logits.shape[0]))
    return labels


def resize_logits(logits: NDArray[np.float32], size: Size) -> NDArray[np.float32]:
    """Bilinear resize with half-pixel centres, edges repeated: ``interpolate(mode="bilinear", align_corners=False)``.

    OpenCV's float INTER_LINEAR is that rule; it widens no filter when it shrinks, as PyTorch does not.
    """
    if logits.shape[1:] == size:
        return logits
    import cv2  # costs 0.1 s to import: only paid where the graph does not resize by itself

    resized = np.empty((logits.shape[0], *size), np.float32)
    for source, target in zip(logits, resized, strict=True):
        cv2.resize(source, (size[1], size[0]), dst=target, interpolation=cv2.INTER_LINEAR)
    return resized


def agreement(first: SemanticMap, second: SemanticMap) -> float:
    """Share of pixels with the same class, 0 to 1. Symmetric; needs no truth."""
    return float(np.mean(first.labels == second.labels))


def confusion(truth: LabelArray, prediction: LabelArray, n_classes: int, ignore: int | None) -> NDArray[np.int64]:
    """Pixel counts (n_classes, n_classes), rows truth, columns prediction; pixels whose truth is ``ignore`` are left out."""
    counted = truth != ignore if ignore is not None else np.ones(truth.shape, bool)
    cells = truth[counted].astype(np.int64) * n_classes + prediction[counted]
    return np.bincount(cells, minlength=n_classes * n_classes).reshape(n_classes, n_classes)


@dataclass(frozen=True)
class IoU:
    """IoU per class in percent (NaN where the class is in neither truth nor prediction) and their mean."""

    per_class: NDArray[np.float64]
    mean: float


def iou(confusion_matrix: NDArray[np.int64]) -> IoU:
    """Intersection over union of each class, and mIoU over the classes that occur (as mmsegmentation and PASCAL VOC)."""
    matrix = confusion_matrix.astype(np.float64)
    intersection = np.diag(matrix)
    union = matrix.sum(0) + matrix.sum(1) - intersection
    per_class = np.divide(100 * intersection, union, out=np.full(len(union), np.nan), where=union > 0)
    return IoU(per_class, float(np.nanmean(per_class)) if np.any(union > 0) else float("nan"))
