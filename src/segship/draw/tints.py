"""Colours that tell objects of one class apart and still look like their class: its hue, darker, lighter, a little turned."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

import numpy as np
from numpy.typing import NDArray

from segship.draw.colors import Color, from_oklab, to_oklab

_STEPS = ((0.0, 0.0), (0.15, 6.0), (-0.13, -6.0), (0.06, -14.0), (-0.06, 14.0), (0.22, -6.0), (-0.20, 4.0))
"""Lightness (OKLab, 0 to 1) and hue (degrees) of each tint, away from the class's own colour."""
_MIDDLE, _SHIFT = (0.57, 0.70), 0.15
"""The lightness that tints lie around, where the class's own would put them beyond black or white, and how far that may be
from it."""
_NEAR = 0.25
"""How much like one tint another is taken to be: two objects side by side share none while there are others."""


def tints(classes: Sequence[int], boxes: NDArray[np.float64], colors: Sequence[Color]) -> list[Color]:
    """A colour for each object, unlike those of its class nearby.

    ``classes`` n class ids; ``boxes`` (n, 4) x0, y0, x1, y1, pixels. Large ones choose first, and only neighbours count, so
    that in two predictions the same object mostly gets the same one; without neighbours that is the class's own colour.
    """
    ids, chosen = np.array(classes, np.int64), np.full(len(classes), -1)
    order = np.lexsort((boxes[:, 1], boxes[:, 0], -np.prod(boxes[:, 2:] - boxes[:, :2], axis=1)))
    for index in order.tolist():
        others = np.flatnonzero((ids == ids[index]) & (chosen >= 0))
        crowding = np.zeros(len(_STEPS))
        np.add.at(crowding, chosen[others], _closeness(boxes[index], boxes[others]))
        chosen[index] = int(np.argmin((crowding @ _likeness()).round(9)))
    return [tint(colors[c], int(step)) for c, step in zip(ids.tolist(), chosen, strict=True)]


@cache
def tint(color: Color, step: int) -> Color:
    """The ``step``-th tint of a colour; the first one is the colour itself."""
    if step == 0:
        return color
    lighter, turn = _STEPS[step]
    lab = to_oklab(np.array([color]))[0]
    lightness = max(0.0, lab[0] + min(max(np.clip(lab[0], *_MIDDLE) - lab[0], -_SHIFT), _SHIFT) + lighter)
    angle = np.deg2rad(turn)
    a, b = lab[1] * np.cos(angle) - lab[2] * np.sin(angle), lab[1] * np.sin(angle) + lab[2] * np.cos(angle)
    red, green, blue = from_oklab(np.array([[lightness, a, b]]))[0].tolist()
    return red, green, blue


@cache
def _likeness() -> NDArray[np.float64]:
    """How alike two tints are, (tint, tint), 1 for the same."""
    steps = np.array(_STEPS) / (0.1, 14.0)
    distance = np.linalg.norm(steps[:, None] - steps, axis=2)
    return np.where(distance == 0, 1.0, _NEAR / np.maximum(distance, 1))


def _closeness(box: NDArray[np.float64], others: NDArray[np.float64]) -> NDArray[np.float64]:
    """1 for boxes that touch, less with the gap between them, 0 where that is as long as ``box``."""
    gap = np.maximum(np.maximum(others[:, :2] - box[2:], box[:2] - others[:, 2:]), 0)
    length = max(float(np.max(box[2:] - box[:2])), 1.0)
    closeness: NDArray[np.float64] = np.maximum(1 - np.hypot(gap[:, 0], gap[:, 1]) / length, 0)
    return closeness
