"""Colours for classes that bring none: distinct, also for colour-blind eyes, and the same on every run.

The first seven are those of Okabe and Ito (2008). Each further colour is the one of a fixed grid that is farthest from
all before it, where the distance of two colours is their OKLab distance for normal, red-blind or green-blind eyes,
whichever is smallest; the latter two count for more than they are, else they alone would decide (with 40 colours,
1.6 raises the smallest distance for normal eyes by 40 % and costs the others next to nothing).
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

import numpy as np
from numpy.typing import NDArray

from segship.core.errors import BadArgument

Color = tuple[int, int, int]
"""RGB, 0 to 255."""

BACKGROUND_NAMES = ("background", "_background_", "unlabeled", "unlabelled", "void", "other")
"""Class names that mean "nothing": they get a dark slate, so that the things in front of them stand out."""

_SLATE: Color = (44, 48, 58)
_FIRST: tuple[Color, ...] = (
    (0, 114, 178),
    (230, 159, 0),
    (0, 158, 115),
    (204, 121, 167),
    (86, 180, 233),
    (213, 94, 0),
    (240, 228, 66),
)
_LEVELS = (0, 36, 73, 109, 146, 182, 219, 255)
_LIGHTNESS = (0.40, 0.93)
"""OKLab lightness of the grid's colours: visible on a dark photo and on the legend's white."""
_LEAST_CHROMA = 0.045
"""Greys are left out: a photo is full of them."""

_TO_LMS = np.array(
    [
        [0.4122214708, 0.5363325363, 0.0514459929],
        [0.2119034982, 0.6806995451, 0.1073969566],
        [0.0883024619, 0.2817188376, 0.6299787005],
    ]
)
_TO_LAB = np.array(
    [
        [0.2104542553, 0.7936177850, -0.0040720468],
        [1.9779984951, -2.4285922050, 0.4505937099],
        [0.0259040371, 0.7827717662, -0.8086757660],
    ]
)
"""Linear RGB to cone response to OKLab (Ottosson 2020)."""
_EYES = (
    np.eye(3),
    np.array([[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]]),
    np.array([[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]]),
)
"""What normal, red-blind and green-blind eyes see of linear RGB (Machado, Oliveira and Fernandes 2009, severity 1)."""
_EYE_WEIGHTS = np.array([1.0, 1.6, 1.6])[:, None]


def palette(classes: Sequence[str], colors: Sequence[Color] | None = None) -> tuple[Color, ...]:
    """One RGB colour for each class: the model's own ``colors`` if it has them, else the default ones.

    Raises :class:`BadArgument` when ``colors`` are fewer than ``classes``.
    """
    if colors is not None:
        if len(colors) < len(classes):
            raise BadArgument(f"{len(classes)} classes but {len(colors)} colours: give one colour for each class, or none at all")
        return tuple(colors[: len(classes)])
    names = [name.strip().lower() for name in classes]
    vivid = iter(default_palette(len(names)))
    return tuple(_SLATE if name in BACKGROUND_NAMES else next(vivid) for name in names)


@cache
def default_palette(count: int) -> tuple[Color, ...]:
    """The first ``count`` default colours; a longer palette begins with the shorter one."""
    if count <= len(_FIRST):
        return _FIRST[:count]
    grid = _grid()
    seen = _as_seen(grid)
    chosen = list(_FIRST)
    distance = np.full(len(grid), np.inf)
    for color in chosen:
        distance = np.minimum(distance, _distance(seen, np.array([color])))
    while len(chosen) < count:
        # rounded, so that the last bits of another processor's arithmetic cannot pick another colour
        farthest = int(np.argmax(distance.round(9)))
        chosen.append((int(grid[farthest, 0]), int(grid[farthest, 1]), int(grid[farthest, 2])))
        distance = np.minimum(distance, _distance(seen, grid[farthest : farthest + 1]))
    return tuple(chosen)


def _grid() -> NDArray[np.int64]:
    """The colours to choose from, (n, 3)."""
    levels = np.array(_LEVELS)
    grid = np.stack(np.meshgrid(levels, levels, levels, indexing="ij"), axis=-1).reshape(-1, 3)
    lab = _as_seen(grid)[0]
    chroma = np.hypot(lab[:, 1], lab[:, 2])
    visible = (lab[:, 0] >= _LIGHTNESS[0]) & (lab[:, 0] <= _LIGHTNESS[1]) & (chroma >= _LEAST_CHROMA)
    chosen: NDArray[np.int64] = grid[visible]
    return chosen


def to_oklab(colors: NDArray[np.int64]) -> NDArray[np.float64]:
    """OKLab lightness (0 to 1), a and b, of colours (n, 3)."""
    lab: NDArray[np.float64] = _as_seen(colors)[0]
    return lab


def from_oklab(lab: NDArray[np.float64]) -> NDArray[np.int64]:
    """The colours (n, 3) nearest to OKLab values; what no screen shows is cut off."""
    linear = ((lab @ np.linalg.inv(_TO_LAB).T) ** 3 @ np.linalg.inv(_TO_LMS).T).clip(0, 1)
    srgb = np.where(linear <= 0.0031308, linear * 12.92, 1.055 * linear ** (1 / 2.4) - 0.055)
    return np.asarray((srgb * 255).round(), np.int64)


def _as_seen(colors: NDArray[np.int64]) -> NDArray[np.float64]:
    """OKLab of colours (n, 3) for each kind of eye: (eye, n, 3)."""
    srgb = colors / 255.0
    linear = np.where(srgb <= 0.04045, srgb / 12.92, ((srgb + 0.055) / 1.055) ** 2.4)
    return np.stack([np.cbrt((linear @ eye.T).clip(0, 1) @ _TO_LMS.T) @ _TO_LAB.T for eye in _EYES])


def _distance(seen: NDArray[np.float64], color: NDArray[np.int64]) -> NDArray[np.float64]:
    """Distance of each colour of ``seen`` (eye, n, 3) from one colour (1, 3), for the eyes that tell them apart worst."""
    distances = np.linalg.norm(seen - _as_seen(color), axis=2) * _EYE_WEIGHTS
    nearest: NDArray[np.float64] = distances.min(axis=0)
    return nearest
