"""From instance masks and stuff maps to one panoptic map, as detectron2's ``combine_semantic_and_instance_outputs`` does in the
form that Panoptic FCN gives it (dvlab-research/PanopticFCN f4141c3, ``panoptic_seg.py``).

Probabilities come at a quarter of the network input's size. Officially they are enlarged four times, cut to the content, and
resized to the image, all bilinear; only then is decided. Both resizes work on rows and columns separately, so for rows, and
for columns, they are one small matrix each (:class:`Axis`), and an instance needs only the part of it that its pixels touch.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from segship.core.predictions import MaskCrop, PanopticMap, Segment
from segship.core.spec import Frame, PanopticDecode
from segship.tasks.product import product

Float = NDArray[np.float32]

_STRIDE = 4
_LARGE = 1 << 22
"""Multiplications from which OpenCV's two resizes of the whole map are faster than the two products of its part."""


@dataclass(frozen=True)
class Parts:
    """What the network says of one image, maps at a quarter of its input's size: ``masks`` (k, h, w) probabilities of objects
    in falling order of ``scores`` (k,), with ``classes`` (k,); ``stuff`` (n_stuff, h, w) probabilities, class 0 being all
    things as one, and which classes are ``seen`` (n_stuff,)."""

    masks: Float
    scores: Float
    classes: NDArray[np.int64]
    stuff: Float
    seen: NDArray[np.bool_]


@dataclass(frozen=True)
class Axis:
    """One axis of the two resizes: ``weights`` (pixels of the image, cells of the map), rows adding up to 1, and the
    ``first`` and ``last`` cell of each pixel, both rising."""

    weights: Float
    first: NDArray[np.int64]
    last: NDArray[np.int64]

    @classmethod
    @lru_cache(maxsize=64)  # images of one data set come in few sizes
    def between(cls, cells: int, content: int, image: int) -> Axis:
        """From ``cells`` of the map through ``content`` pixels of the enlarged and cut map to ``image`` pixels."""
        enlarged = _bilinear(cells, _STRIDE * cells)[:content]
        weights = enlarged if content == image else product(_bilinear(content, image), enlarged)
        touched = weights > 0
        return cls(weights.astype(np.float32), touched.argmax(1), cells - 1 - touched[:, ::-1].argmax(1))

    def around(self, start: int, stop: int) -> tuple[slice, slice]:
        """The pixels that the cells ``start`` to ``stop`` (exclusive) have a part in, and all cells that these pixels need."""
        low, high = np.searchsorted(self.last, start), np.searchsorted(self.first, stop)
        if low >= high:  # beyond the content
            return slice(0, 0), slice(0, 0)
        return slice(int(low), int(high)), slice(int(self.first[low]), int(self.last[high - 1]) + 1)


def _bilinear(source: int, target: int) -> NDArray[np.float64]:
    """``interpolate(mode="bilinear", align_corners=False)`` of one axis as a matrix (target, source)."""
    position = np.maximum((np.arange(target) + 0.5) * (source / target) - 0.5, 0.0)
    low = np.minimum(position.astype(np.int64), source - 1)
    share = position - low
    matrix = np.zeros((target, source))
    rows = np.arange(target)
    matrix[rows, low] = 1 - share
    matrix[rows, np.minimum(low + 1, source - 1)] += share
    return matrix


def panoptic_map(parts: Parts, decode: PanopticDecode, frame: Frame) -> PanopticMap:
    """The panoptic map: objects in the order of their scores, each over what is still free, then stuff over the rest."""
    ids = np.zeros(frame.image, np.int32)
    things = _add_things(ids, parts, decode, frame)
    return PanopticMap(ids, (*things, *_add_stuff(ids, stuff_labels(parts, frame), decode, len(things))))


def thing_masks(masks: Float, threshold: float, frame: Frame) -> list[MaskCrop]:
    """The pixels of the image that belong to each of ``masks`` (k, h, w): probability above ``threshold``."""
    rows, columns = (
        Axis.between(cells, content, image)
        for cells, content, image in zip(masks.shape[1:], frame.content, frame.image, strict=True)
    )
    return [_in_image(mask, threshold, rows, columns, frame) for mask in masks]


def _in_image(mask: Float, threshold: float, rows: Axis, columns: Axis, frame: Frame) -> MaskCrop:
    """Bilinear values lie between those of their cells: above the threshold only where some cell is."""
    inside = mask > threshold
    y, x = (np.flatnonzero(inside.any(axis)) for axis in (1, 0))
    if not len(y):
        return MaskCrop(0, 0, np.zeros((0, 0), bool))
    (down, cells_y), (across, cells_x) = rows.around(y[0], y[-1] + 1), columns.around(x[0], x[-1] + 1)
    height, width, n_cells = down.stop - down.start, across.stop - across.start, mask[cells_y, cells_x].shape
    if height * n_cells[1] * (n_cells[0] + width) > _LARGE:
        return MaskCrop(down.start, across.start, _resized(mask, frame)[down, across] > threshold)
    tall = product(rows.weights[down, cells_y], mask[cells_y, cells_x])
    cells = product(tall, columns.weights[across, cells_x].T)
    return MaskCrop(down.start, across.start, cells > threshold)


def _resized(cells: Float, frame: Frame) -> Float:
    """A map (h, w) enlarged, cut to the content, and resized to the image (height, width)."""
    import cv2  # costs 0.1 s to import

    (height, width), (h, w) = frame.image, frame.content
    larger = cv2.resize(cells, (_STRIDE * cells.shape[1], _STRIDE * cells.shape[0]), interpolation=cv2.INTER_LINEAR)[:h, :w]
    if (h, w) != (height, width):
        larger = cv2.resize(larger, (width, height), interpolation=cv2.INTER_LINEAR)
    found: Float = larger
    return found


def stuff_labels(parts: Parts, frame: Frame) -> NDArray[np.uint16]:
    """The most probable stuff class of each pixel of the image, (height, width); 0 where none is seen, or things."""
    labels = np.zeros(frame.image, np.uint16)
    best = np.zeros(frame.image, np.float32)
    for index in np.flatnonzero(parts.seen):  # an unseen class has the probability 0 everywhere
        larger = _resized(parts.stuff[index], frame)
        np.copyto(labels, index, where=larger > best, casting="unsafe")
        np.maximum(best, larger, out=best)
    return labels


def _add_things(ids: NDArray[np.int32], parts: Parts, decode: PanopticDecode, frame: Frame) -> list[Segment]:
    """Write objects into ``ids``, unless too much of them is taken."""
    n_kept = np.count_nonzero(parts.scores >= decode.score_threshold)  # the first ones: scores fall
    segments: list[Segment] = []
    crops = thing_masks(parts.masks[:n_kept], decode.mask_threshold, frame)
    for crop, class_id, score in zip(crops, parts.classes, parts.scores, strict=False):
        h, w = crop.pixels.shape
        window = ids[crop.top : crop.top + h, crop.left : crop.left + w]
        free = crop.pixels & (window == 0)
        area, n_free = crop.area, np.count_nonzero(free)
        if n_free == 0 or (area - n_free) / area > decode.overlap:
            continue
        segments.append(Segment(len(segments) + 1, int(class_id), is_thing=True, score=float(score)))
        window[free] = segments[-1].id
    return segments


def _add_stuff(ids: NDArray[np.int32], labels: NDArray[np.uint16], decode: PanopticDecode, n_things: int) -> list[Segment]:
    """Write stuff classes into what is left of ``ids``, those with enough pixels."""
    labels = np.where(ids == 0, labels, 0)
    areas = np.bincount(labels.ravel())
    areas[0] = 0  # the class that stands for all things is no stuff
    classes = np.flatnonzero(areas >= max(decode.stuff_area, 1))
    segments = [
        Segment(number, decode.n_things + int(index) - 1, is_thing=False) for number, index in enumerate(classes, n_things + 1)
    ]
    new_ids = np.zeros(len(areas), np.int32)
    new_ids[classes] = [segment.id for segment in segments]
    np.add(ids, new_ids[labels], out=ids)
    return segments
