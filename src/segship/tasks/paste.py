"""Small masks laid over their boxes, by the two official rules, computed only where a mask can be.

Bilinear interpolation is separable, so a pasted mask is ``rows @ mask @ columns.T`` with a few weights for each row and
column: exact in float32, where OpenCV's ``remap`` rounds positions to 1/32 of a cell. Serving path: numpy only.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from segship.core.predictions import MaskCrop
from segship.core.spec import InstanceDecode, Size
from segship.tasks.product import product

Floats = NDArray[np.float32]


def paste(masks: Floats, boxes: Floats, size: Size, decode: InstanceDecode) -> tuple[MaskCrop, ...]:
    """Masks (n, side, side) of probabilities and boxes (n, 4) x0, y0, x1, y1 in image pixels to n crops of the image.

    ``size``: (height, width) of the image. A mask with nothing in the image becomes a crop of no pixels.
    """
    one = _on_grid if decode.paste == "grid" else _on_whole_pixels
    return tuple(one(mask, box, size, decode.threshold) for mask, box in zip(masks, boxes.astype(np.float32), strict=True))


def cut_out(masks: NDArray[np.bool_]) -> tuple[MaskCrop, ...]:
    """Masks of the whole image (n, height, width) to crops around their pixels."""
    crops = []
    for mask in masks:
        rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
        top, bottom, left, right = (rows[0], rows[-1] + 1, columns[0], columns[-1] + 1) if len(rows) else (0, 0, 0, 0)
        crops.append(MaskCrop(int(top), int(left), mask[top:bottom, left:right]))
    return tuple(crops)


def _on_grid(mask: Floats, box: Floats, size: Size, threshold: float) -> MaskCrop:
    """Sample the mask at every pixel's centre, zeros around it (detectron2 and mmdetection ``_do_paste_mask``)."""
    rows = _grid_weights(box[1], box[3], size[0], mask.shape[0])
    columns = _grid_weights(box[0], box[2], size[1], mask.shape[1])
    return _crop(mask, rows, columns, threshold)


def _grid_weights(low: np.float32, high: np.float32, length: int, side: int) -> tuple[int, Floats]:
    """The first pixel that a mask from ``low`` to ``high`` may touch, and the weights (pixels, side) from there on."""
    if not (high > low and low < length and high > 0):  # no area, or not in the image; official code divides by zero
        return 0, np.zeros((0, side), np.float32)
    first, stop = max(math.floor(max(float(low), 0.0)) - 1, 0), min(math.ceil(min(float(high), length)) + 1, length)
    centres = np.arange(first, stop, dtype=np.float32) + np.float32(0.5)
    unit = (centres - low) / (high - low) * np.float32(2) - np.float32(1)  # as the official code rounds it
    return first, _hat(((unit + 1) * np.float32(side) - 1) / np.float32(2), side)


def _on_whole_pixels(mask: Floats, box: Floats, size: Size, threshold: float) -> MaskCrop:
    """Resize the mask, with a margin of one zero, to the box in whole pixels (torchvision ``paste_masks_in_image``)."""
    padded = np.pad(mask, 1)
    low, high = _expanded(box, np.float32(padded.shape[0] / mask.shape[0]))
    rows = _resize_weights(low[1], high[1], size[0], padded.shape[0])
    columns = _resize_weights(low[0], high[0], size[1], padded.shape[1])
    return _crop(padded, rows, columns, threshold)


def _expanded(box: Floats, factor: np.float32) -> tuple[list[int], list[int]]:
    """The box about its centre, ``factor`` times as large, cut off to whole pixels toward zero."""
    if not np.all(np.isfinite(box)):
        return [0, 0], [-1, -1]
    half, centre = (box[2:] - box[:2]) * np.float32(0.5) * factor, (box[2:] + box[:2]) * np.float32(0.5)
    return [int(edge) for edge in centre - half], [int(edge) for edge in centre + half]


def _resize_weights(low: int, high: int, length: int, side: int) -> tuple[int, Floats]:
    """As :func:`_grid_weights`, for a mask that is resized to the pixels ``low`` to ``high``, both included."""
    pixels = max(high - low + 1, 1)
    first, stop = max(low, 0), min(high + 1, length)
    if stop <= first:
        return 0, np.zeros((0, side), np.float32)
    inside = np.arange(first - low, stop - low, dtype=np.float32)
    at = (inside + np.float32(0.5)) * np.float32(side / pixels) - np.float32(0.5)
    return first, _hat(np.clip(at, 0, side - 1), side)


def _hat(at: Floats, side: int) -> Floats:
    """(n, side): the share of each cell in a linear interpolation at positions ``at`` (n,), in cells."""
    distance = np.abs(at[:, None] - np.arange(side, dtype=np.float32))
    return np.maximum(np.float32(1) - distance, np.float32(0))


def _crop(mask: Floats, rows: tuple[int, Floats], columns: tuple[int, Floats], threshold: float) -> MaskCrop:
    (top, down), (left, across) = rows, columns
    probability = product(down, product(mask.astype(np.float32), across.T))
    return MaskCrop(top, left, probability >= np.float32(threshold))
