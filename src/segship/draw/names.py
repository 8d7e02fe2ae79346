"""Names of objects, each on a small plate, placed so that none hides another."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from segship.core.predictions import MaskCrop
from segship.draw.colors import Color
from segship.draw.legend import Font

_SMALLEST, _LARGEST = 11, 22
"""Pixels of the font: the smallest that is still read, and one that is large enough."""
FEW, _LEAST = 25, 1.3
"""An object has a name when its longer side is ``_LEAST`` times the font's size, and that many times more when there are more
than ``FEW``: names of a hundred nuclei would hide the nuclei."""
_WORST = 0.9
"""Cost above which no name is better than this place for it."""
_LATER = 0.08
"""Cost of each place that would have been better. Cost is the share of other objects that the plate hides."""
_APART = np.array([-1, -1, 1, 1])
"""Between two plates lies a pixel."""


class Name(NamedTuple):
    """What to write, and of which object."""

    text: str
    mask: MaskCrop
    color: Color


class _Plates:
    """Where names can go: in the picture, on no other name, and little of them on other objects."""

    def __init__(self, size: tuple[int, int], boxes: NDArray[np.float64]) -> None:
        self._width, self._height = size
        self._boxes = boxes
        self._areas = np.maximum(np.prod(boxes[:, 2:] - boxes[:, :2], axis=1), 1)
        self._taken: list[NDArray[np.float64]] = []

    def take(self, index: int, places: Iterator[NDArray[np.float64]]) -> NDArray[np.float64] | None:
        """The cheapest of the places (x0, y0, x1, y1) for the object's name, best wished for first; None if none will do."""
        least, best = _WORST, None
        for rank, place in enumerate(places):
            if _LATER * rank >= least:
                break
            cost = self._cost(index, place) + _LATER * rank
            if cost < least:
                least, best = cost, place
        if best is not None:
            self._taken.append(best)
        return best

    def _cost(self, index: int, place: NDArray[np.float64]) -> float:
        x0, y0, x1, y1 = place.tolist()
        if x0 < 0 or y0 < 0 or x1 > self._width or y1 > self._height:
            return np.inf
        if self._taken and _shared(place + _APART, np.array(self._taken)).any():
            return np.inf
        hidden = _shared(place, self._boxes) / self._areas
        hidden[index] = 0
        return float(hidden.sum())


def write_names(canvas: Image.Image, names: Sequence[Name]) -> None:
    """Write on the canvas the names that have room, earlier ones before later ones."""
    size = int(min(max((canvas.width * canvas.height) ** 0.5 / 55, _SMALLEST), _LARGEST))
    font, draw = ImageFont.load_default(size), ImageDraw.Draw(canvas, "RGBA")
    for name, plate in place_names(names, canvas.size, font, size):
        _write(draw, name, plate, font, size)


def place_names(names: Sequence[Name], image: tuple[int, int], font: Font, size: int) -> list[tuple[Name, NDArray[np.float64]]]:
    """The names that have room, each with its plate x0, y0, x1, y1 in an image of (width, height) pixels."""
    boxes = np.array([box(name.mask) for name in names], np.float64).reshape(-1, 4)
    plates = _Plates(image, boxes)
    least = _LEAST * size * max(1, len(names) / FEW)
    placed = []
    for index, name in enumerate(names):
        if max(name.mask.pixels.shape) < least or name.mask.area < size**2:
            continue
        plate = plates.take(index, _places(name.mask, round(font.getlength(name.text) + 0.7 * size), round(1.3 * size)))
        if plate is not None:
            placed.append((name, plate))
    return placed


def _places(mask: MaskCrop, width: int, height: int) -> Iterator[NDArray[np.float64]]:
    """Where the plate may go: within the object if it is large, else over, under, or beside it."""
    x0, y0, x1, y1 = box(mask)
    x, y = _middle(mask)
    gap = 2
    tops = [y0 - height - gap, y1 + gap, y0 + gap]
    if x1 - x0 > 1.5 * width and y1 - y0 > 2.5 * height:
        yield _plate(x - width / 2, y - height / 2, width, height)
    for top in tops:
        for left in (x - width / 2, x0, x1 - width):
            yield _plate(left, top, width, height)
    yield _plate(x1 + gap, y - height / 2, width, height)
    yield _plate(x0 - gap - width, y - height / 2, width, height)


def _plate(left: float, top: float, width: int, height: int) -> NDArray[np.float64]:
    x, y = round(left), round(top)
    return np.array([x, y, x + width, y + height], np.float64)


def _middle(mask: MaskCrop) -> tuple[float, float]:
    """x and y of a pixel in the middle of the object: of its middle row the middle of the longest stretch."""
    rows = mask.pixels.sum(1)
    y = int(np.searchsorted(rows.cumsum(), rows.sum() / 2))
    edges = np.flatnonzero(np.diff(mask.pixels[y].astype(np.int8), prepend=0, append=0))
    starts, ends = edges[::2], edges[1::2]
    longest = int(np.argmax(ends - starts))
    return mask.left + (starts[longest] + ends[longest]) / 2, mask.top + y + 0.5


def _write(draw: ImageDraw.ImageDraw, name: Name, plate: NDArray[np.float64], font: Font, size: int) -> None:
    x0, y0, x1, y1 = plate.tolist()
    dark = tuple(round(part * 0.3) for part in name.color)
    draw.rounded_rectangle((x0, y0, x1 - 1, y1 - 1), radius=size * 0.3, fill=(*dark, 205))
    draw.text(((x0 + x1) / 2, (y0 + y1) / 2), name.text, (255, 255, 255), font, anchor="mm")


def _shared(place: NDArray[np.float64], boxes: NDArray[np.float64]) -> NDArray[np.float64]:
    """Pixels that a box has in common with each of (n, 4)."""
    sides = np.minimum(boxes[:, 2:], place[2:]) - np.maximum(boxes[:, :2], place[:2])
    shared: NDArray[np.float64] = np.prod(np.maximum(sides, 0), axis=1)
    return shared


def box(mask: MaskCrop) -> tuple[int, int, int, int]:
    """x0, y0, x1, y1 of a crop, pixels."""
    height, width = mask.pixels.shape
    return mask.left, mask.top, mask.left + width, mask.top + height
