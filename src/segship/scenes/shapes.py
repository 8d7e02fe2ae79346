"""Anti-aliased shapes: how much of each pixel a polygon, an ellipse or a thick line covers.

Only + - * / and sqrt are used, which IEEE 754 rounds the same way everywhere; no trigonometry, no sums of many terms.
Coordinates are pixels, x to the right and y down; the centre of the first pixel is (0.5, 0.5).
"""

from __future__ import annotations

from math import ceil, floor
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from collections.abc import Sequence

Floats = NDArray[np.floating[Any]]
"""Arrays of float32; the checker cannot tell that Python's numbers do not widen them."""

Point = tuple[float, float]
Size = tuple[int, int]

_GROW_PX = 0.15
"""Shapes reach this much too far, so that neighbours leave no seam of background between them."""

CIRCLE: tuple[Point, ...] = tuple(
    (sign * (1 - t * t) / (1 + t * t), sign * 2 * t / (1 + t * t)) for sign in (1, -1) for t in (-1, -0.5, -0.2, 0.2, 0.5)
)
"""Ten points of the unit circle, in order, by its rational parametrisation."""


class Patch(NamedTuple):
    """A rectangle of the picture and the coverage of its pixels, float32 in 0..1, shape (rows, cols)."""

    rows: slice
    cols: slice
    coverage: Floats


def span(low: float, high: float, limit: int) -> slice:
    """The pixels that the interval [low, high] touches, within 0..limit."""
    return slice(min(max(floor(low) - 1, 0), limit), min(max(ceil(high) + 1, 0), limit))


def centres(part: slice) -> Floats:
    """The coordinates of the pixel centres of one side of a patch, float32."""
    return np.arange(part.start, part.stop, dtype=np.float32) + np.float32(0.5)


def clamp(values: Floats) -> Floats:
    """The array itself, limited to 0..1 in place. Several times faster than np.clip on small patches."""
    np.maximum(values, 0, out=values)
    np.minimum(values, 1, out=values)
    return values


def _patch(distance: Floats, rows: slice, cols: slice) -> Patch:
    distance *= -1
    distance += 0.5 + _GROW_PX
    return Patch(rows, cols, clamp(distance))


def convex(points: Sequence[Point], size: Size) -> Patch | None:
    """The coverage of a convex polygon, in either orientation; None where it misses the picture or is degenerate."""
    if len(points) < 3:
        return None
    rows = span(min(y for _, y in points), max(y for _, y in points), size[0])
    cols = span(min(x for x, _ in points), max(x for x, _ in points), size[1])
    turn = area(points)
    if rows.start >= rows.stop or cols.start >= cols.stop or abs(turn) < 0.05:
        return None
    sign = 1.0 if turn > 0 else -1.0
    corners = np.array(points)
    sides = np.concatenate((corners[1:], corners[:1])) - corners
    length = np.sqrt(sides[:, 0] * sides[:, 0] + sides[:, 1] * sides[:, 1]) + 1e-9
    nx, ny = sides[:, 1] / length * sign, -sides[:, 0] / length * sign
    offset = (nx * corners[:, 0] + ny * corners[:, 1])[:, None]
    across = (nx[:, None] * centres(cols) - offset).astype(np.float32)
    down = (ny[:, None] * centres(rows)).astype(np.float32)
    return _patch(np.maximum.reduce(across[:, None, :] + down[:, :, None], axis=0), rows, cols)


def area(points: Sequence[Point]) -> float:
    """The signed area of a polygon, px²: positive where the corners run clockwise on the screen."""
    pairs = zip(points, (*points[1:], points[0]), strict=True)
    return 0.5 * sum(x0 * y1 - x1 * y0 for (x0, y0), (x1, y1) in pairs)


def ellipse(x: float, y: float, rx: float, ry: float, size: Size) -> Patch | None:
    """The coverage of an upright ellipse, its edge exact to first order; None where it misses the picture."""
    rows, cols = span(y - ry, y + ry, size[0]), span(x - rx, x + rx, size[1])
    if rows.start >= rows.stop or cols.start >= cols.stop or min(rx, ry) < 0.05:
        return None
    across, down = (centres(cols)[None, :] - x) / rx, (centres(rows)[:, None] - y) / ry
    radius = np.sqrt(across * across + down * down)
    return _patch((radius - 1) * min(rx, ry), rows, cols)


def stroke(start: Point, end: Point, width: float, size: Size) -> Patch | None:
    """The coverage of a line of the width given (px) with round ends; a thin one is pale, not ragged."""
    (x0, y0), (x1, y1), half = start, end, max(width / 2, 0.25)
    rows = span(min(y0, y1) - half, max(y0, y1) + half, size[0])
    cols = span(min(x0, x1) - half, max(x0, x1) + half, size[1])
    if rows.start >= rows.stop or cols.start >= cols.stop:
        return None
    dx, dy = x1 - x0, y1 - y0
    across, down = centres(cols)[None, :] - x0, centres(rows)[:, None] - y0
    along = clamp((across * dx + down * dy) / max(dx * dx + dy * dy, 1e-6))
    off_x, off_y = across - along * dx, down - along * dy
    return _patch(np.sqrt(off_x * off_x + off_y * off_y) - half, rows, cols)


def hull(points: Sequence[Point]) -> list[Point]:
    """The convex hull of some points, in order (Andrew's monotone chain)."""
    ordered = sorted(set(points))
    return _chain(ordered)[:-1] + _chain(ordered[::-1])[:-1] if len(ordered) > 2 else ordered


def _chain(ordered: Sequence[Point]) -> list[Point]:
    kept: list[Point] = []
    for x, y in ordered:
        while len(kept) > 1 and _left_turn(kept[-2], kept[-1], (x, y)) <= 0:
            kept.pop()
        kept.append((x, y))
    return kept


def _left_turn(a: Point, b: Point, c: Point) -> float:
    return (b[0] - a[0]) * (c[1] - a[1]) - (b[1] - a[1]) * (c[0] - a[0])
