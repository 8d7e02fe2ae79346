"""Semantic segmentation: what logits mean, how far two label maps agree, and mIoU.

Logits are (batch, class, height, width) float32; label maps are (height, width) uint8 or uint16 in the image's frame.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from segship.core.backend import Array
from segship.core.predictions import LabelArray, SemanticMap
from segship.core.spec import Frame, ModelSpec, SemanticDecode, Size
from segship.tasks.scoring import Scores

METRIC = "mIoU"


def label_dtype(n_classes: int) -> type[np.uint8] | type[np.uint16]:
    """The smallest type that holds every class id, with 255 left free for "ignore" in 8 bits."""
    return np.uint8 if n_classes <= 255 else np.uint16


def decode(outputs: Mapping[str, Array], spec: ModelSpec, frame: Frame) -> list[SemanticMap]:
    """Label maps from logits (batch, class, height, width): the official resizes in order, then the decision."""
    assert isinstance(spec.decode, SemanticDecode)
    batch = np.asarray(outputs[spec.outputs[0].name], np.float32)
    return [SemanticMap(decide(in_frame(logits, spec.decode, frame), spec.decode.threshold)) for logits in batch]


def in_frame(logits: NDArray[np.float32], decode: SemanticDecode, frame: Frame) -> NDArray[np.float32]:
    """Logits (class, height, width) after the official resizes, in order."""
    for step in decode.resize_to:
        if step == "content":
            logits = logits[:, : frame.content[0], : frame.content[1]]
        else:
            logits = resize_logits(logits, frame.input if step == "input" else frame.image)
    return logits


def scorer(n_classes: int, ignore: int | None) -> MeanIoU:
    """A fresh sum for mIoU."""
    return MeanIoU(n_classes, ignore)


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


def overlaps(first: SemanticMap, second: SemanticMap) -> list[tuple[int, int]]:
    """None: a label map holds no objects."""
    return []


def confusion(truth: LabelArray, prediction: LabelArray, n_classes: int, ignore: int | None) -> NDArray[np.int64]:
    """Pixel counts (n_classes, n_classes), rows truth, columns prediction; pixels whose truth is ``ignore`` are left out."""
    counted = truth != ignore if ignore is not None else np.ones(truth.shape, bool)
    cells = truth[counted].astype(np.int64) * n_classes + prediction[counted]
    return np.bincount(cells, minlength=n_classes * n_classes).reshape(n_classes, n_classes)


class MeanIoU:
    """Intersection over union of each class, and mIoU over the classes that occur (as mmsegmentation and PASCAL VOC).

    Of an image it keeps each class's pixels that are right, in the truth, and in the prediction: all of a confusion matrix
    that IoU needs, so a thousand images cost kilobytes each and not a matrix each.
    """

    def __init__(self, n_classes: int, ignore: int | None) -> None:
        self._n_classes, self._ignore = n_classes, ignore
        self._tallies: list[NDArray[np.int64]] = []

    def add(self, truth: SemanticMap, prediction: SemanticMap) -> None:
        """Count one image."""
        matrix = confusion(truth.labels, prediction.labels, self._n_classes, self._ignore)
        self._tallies.append(np.stack([np.diag(matrix), matrix.sum(1), matrix.sum(0)]))

    def scores(self) -> Scores:
        """IoU in percent."""
        right, truth, predicted = np.sum(self._tallies, axis=0) if self._tallies else np.zeros((3, self._n_classes), np.int64)
        union = truth + predicted - right
        per_class = np.divide(100.0 * right, union, out=np.full(len(union), np.nan), where=union > 0)
        return Scores(float(np.nanmean(per_class)) if np.any(union > 0) else float("nan"), per_class, truth)

    def resampled(self, weights: NDArray[np.float64]) -> NDArray[np.float64]:
        """mIoU (r,) of each row of ``weights`` (r, images)."""
        tallies = np.array(self._tallies, np.float64)
        right, truth, predicted = np.moveaxis((weights @ tallies.reshape(len(tallies), -1)).reshape(-1, 3, self._n_classes), 1, 0)
        union = truth + predicted - right
        each = np.divide(right, union, out=np.zeros_like(union), where=union > 0)
        n = np.asarray((union > 0).sum(-1))
        mean: NDArray[np.float64] = np.divide(100 * each.sum(-1), n, out=np.full(n.shape, np.nan), where=n > 0)
        return mean
