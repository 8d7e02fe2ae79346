"""Objects of a truth: cut out of a map of ids, or drawn from what a COCO file says."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import msgspec
import numpy as np
from numpy.typing import NDArray

from segship.core.predictions import Instances, MaskCrop
from segship.core.rle import crop_of, decompress
from segship.core.spec import Size

Box = tuple[float, float, float, float]
"""x0, y0, x1, y1."""


Run = Annotated[int, msgspec.Meta(ge=0, le=2**40)]
"""Pixels; bounded so that their sum stays a number."""


class RunLengths(msgspec.Struct, frozen=True):
    """COCO's RLE: ``size`` (height, width), and runs down the columns, as numbers or compressed."""

    size: tuple[int, int]
    counts: str | tuple[Run, ...]


Outline = tuple[tuple[float, ...], ...]
"""Polygons x, y, x, y ... that make one object together."""

_FARTHEST = 10
"""How many image sides a polygon may lie away: pycocotools draws every pixel of its edge, at five times the size."""


def crops_by_id(ids: NDArray[np.integer]) -> dict[int, MaskCrop]:
    """The mask of each id in a map (height, width), 0 left out, in the order of ids."""
    rows, columns = np.nonzero(ids)
    names, which = np.unique(ids[rows, columns], return_inverse=True)
    low, high = np.full((2, len(names)), np.iinfo(np.intp).max), np.zeros((2, len(names)), np.intp)
    for axis, place in enumerate((rows, columns)):
        np.minimum.at(low[axis], which, place)
        np.maximum.at(high[axis], which, place + 1)
    return {
        int(name): MaskCrop(int(top), int(left), ids[top:bottom, left:right] == name)
        for name, top, left, bottom, right in zip(names, *low, *high, strict=True)
    }


def box_of(mask: MaskCrop) -> Box:
    """The edges of the crop: of its pixels when it is cut tightly."""
    height, width = mask.pixels.shape
    return mask.left, mask.top, mask.left + width, mask.top + height


def true_objects(
    size: Size, masks: Sequence[MaskCrop], classes: Sequence[int], crowd: Sequence[bool], boxes: Sequence[Box]
) -> Instances:
    """Truth: every score is 1."""
    return Instances(
        size=size,
        boxes=np.array(boxes, np.float32).reshape(-1, 4),
        scores=np.ones(len(masks), np.float32),
        classes=np.array(classes, np.int64),
        masks=tuple(masks),
        crowd=np.array(crowd, bool),
    )


def draw(segmentation: msgspec.Raw, size: Size) -> MaskCrop:
    """The mask of an object of a COCO file in an image of ``size``; ValueError says what is wrong with it."""
    shape = msgspec.json.decode(segmentation, type=RunLengths | Outline | None)
    if not shape:
        raise ValueError("it has a box but no mask")
    if isinstance(shape, tuple):
        return _draw_outline(shape, size)
    if tuple(shape.size) != size:
        raise ValueError(f"it has a mask of {shape.size[0]} x {shape.size[1]} pixels, its image {size[0]} x {size[1]}")
    runs = decompress(shape.counts) if isinstance(shape.counts, str) else np.array(shape.counts, np.int64)
    return crop_of(runs, size)


def _draw_outline(outline: Outline, size: Size) -> MaskCrop:
    from pycocotools import mask

    lengths = [len(polygon) for polygon in outline]
    if min(lengths) < 4 or (lengths[0] == 4 and max(lengths) > 4):  # the first polygon of four numbers makes all of them boxes
        raise ValueError(f"it has a polygon of {min(lengths)} numbers, expected at least three points")
    if max(abs(value) for polygon in outline for value in polygon) > _FARTHEST * max(size):
        raise ValueError("it has a polygon far outside its image")
    parts = mask.frPyObjects([list(polygon) for polygon in outline], *size)
    return crop_of(decompress(mask.merge(parts)["counts"].decode()), size)
