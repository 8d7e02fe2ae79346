"""Objects over a photo: a tint, a smooth outline, and a name where there is room for it."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache, lru_cache
from statistics import NormalDist
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from segship.core.predictions import MaskCrop
from segship.draw.colors import Color
from segship.draw.legend import printable
from segship.draw.names import FEW, Name, box, write_names
from segship.draw.tints import tints

_FILL, _CROWD_FILL = 0.5, 0.25
"""How much of the mix is the object's colour; the rest is photo."""
_PALE = 0.45
"""How much white an outline holds."""
_SHADE = 0.55
"""Strength of the dark line on both sides of an outline: it is seen on bright photos too."""


class Thing(NamedTuple):
    """An object to draw; ``score`` None where it says nothing."""

    mask: MaskCrop
    class_id: int
    score: float | None
    crowd: bool


def paint_things(
    canvas: Image.Image, things: Sequence[Thing], classes: Sequence[str], colors: Sequence[Color], *, names: bool
) -> None:
    """Draw the objects on the canvas, large ones first; with ``names``, also class and score of those that have room."""
    things = [thing for thing in things if thing.mask.pixels.size]
    boxes = np.array([box(thing.mask) for thing in things], np.float64).reshape(-1, 4)
    chosen = tints([thing.class_id for thing in things], boxes, colors)
    areas = [thing.mask.area for thing in things]
    order = sorted(range(len(things)), key=lambda i: (not things[i].crowd, -areas[i]))
    half = max(0.75, min(canvas.size) / 800)
    for index in order:
        _paint(canvas, things[index], chosen[index], half)
    # when there are many of one class, the legend has said it all
    if names and (len(things) <= FEW or len({thing.class_id for thing in things}) > 1):
        texts = [Name(_text(thing, classes), thing.mask, color) for thing, color in zip(things, chosen, strict=True)]
        write_names(canvas, [texts[index] for index in order])


def _paint(canvas: Image.Image, thing: Thing, color: Color, half: float) -> None:
    """Tint, shade and outline in one go. ``half``: half the outline's width, pixels."""
    margin = int(half) + 3
    padded = np.pad(thing.mask.pixels, margin)
    soft = Image.fromarray(padded.astype(np.uint8) * 255).filter(ImageFilter.GaussianBlur(_blur(half)))
    colors, opacity = _ink(color, half, _CROWD_FILL if thing.crowd else _FILL)
    layer = soft.copy()
    layer.putpalette(colors.tobytes())
    mask = Image.fromarray(opacity.take(np.asarray(soft)))
    canvas.paste(layer.convert("RGB"), (thing.mask.left - margin, thing.mask.top - margin), mask)


@lru_cache(1024)
def _ink(color: Color, half: float, strength: float) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Colour (256, 3) and opacity (256,) for each value of the blurred mask: the fill, on it the shade, on it the line."""
    distance = _distances(half)
    paper, opacity = np.zeros((256, 3)), np.zeros((256, 1))
    pale = np.array(color) * (1 - _PALE) + 255 * _PALE
    for ink, cover in (
        (np.array(color), strength * (distance + 0.5).clip(0, 1)),
        (np.zeros(3), _SHADE * (half + 1.5 - abs(distance)).clip(0, 1)),
        (pale, (half + 0.5 - abs(distance)).clip(0, 1)),
    ):
        paper = paper * (1 - cover[:, None]) + ink * cover[:, None]
        opacity = opacity * (1 - cover[:, None]) + cover[:, None]
    colors = np.divide(paper, opacity, out=np.zeros_like(paper), where=opacity > 0)
    return colors.round().astype(np.uint8), (255 * opacity[:, 0]).round().astype(np.uint8)


@cache
def _distances(half: float) -> NDArray[np.float64]:
    """Pixels from the edge, positive inside, for each value of a blurred mask: what Gaussian blur makes of a straight edge."""
    normal = NormalDist(sigma=_blur(half))
    return np.array([normal.inv_cdf(min(max(value / 255, 1e-6), 1 - 1e-6)) for value in range(256)])


def _blur(half: float) -> float:
    """Standard deviation, pixels: enough to measure distances across the line with eight bits."""
    return max(0.8, (half + 1.0) / 1.8)


def _text(thing: Thing, classes: Sequence[str]) -> str:
    name = printable(classes[thing.class_id]) or f"class {thing.class_id}"
    if thing.crowd:
        return f"{name} (crowd)"
    return name if thing.score is None else f"{name} {thing.score:.2f}"
