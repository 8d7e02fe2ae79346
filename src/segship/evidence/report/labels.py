"""Where to write the names of points so that no two texts, and no text and point, lie on each other."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal, NamedTuple

Anchor = Literal["start", "middle", "end"]

_LETTER = 0.62
"""Mean width of a bold letter, in font sizes: there is nothing to measure text with."""
_POINT = 9.0
"""Half the side of the square that a point keeps free."""


class Box(NamedTuple):
    """A rectangle in pixels."""

    left: float
    top: float
    right: float
    bottom: float

    def overlap(self, other: Box) -> float:
        """Area shared with another rectangle."""
        wide = min(self.right, other.right) - max(self.left, other.left)
        high = min(self.bottom, other.bottom) - max(self.top, other.top)
        return max(0.0, wide) * max(0.0, high)

    @property
    def area(self) -> float:
        """Area in square pixels."""
        return (self.right - self.left) * (self.bottom - self.top)


class Label(NamedTuple):
    """Where the first line's baseline is, how it is anchored, and where a line from the point must lead, if it must."""

    x: float
    y: float
    anchor: Anchor
    leader: tuple[float, float] | None = None


def place(
    points: Sequence[tuple[float, float]], texts: Sequence[Sequence[str]], frame: Box, font: float, lines: Sequence[Box] = ()
) -> list[Label]:
    """A label position for each point: the first of a list of places near it that is free, else the least crowded one.

    ``frame`` is where labels may lie, ``lines`` what they should not cross.
    """
    taken = list(lines) + [Box(x - _POINT, y - _POINT, x + _POINT, y + _POINT) for x, y in points]
    labels = []
    for (x, y), text in zip(points, texts, strict=True):
        choices = _choices(x, y, text, font)
        costs = [_cost(box, taken, frame) + 0.01 * rank for rank, (_, box) in enumerate(choices)]
        label, box = choices[costs.index(min(costs))]
        taken.append(box)
        labels.append(label)
    return labels


def _cost(box: Box, taken: Sequence[Box], frame: Box) -> float:
    outside = box.area - box.overlap(frame)
    return sum(box.overlap(other) for other in taken) + 3 * outside


def _choices(x: float, y: float, lines: Sequence[str], font: float) -> list[tuple[Label, Box]]:
    """Right, left, above, below; then farther and farther away, from where a leader is drawn."""
    width, height = max(map(len, lines)) * font * _LETTER, len(lines) * font * 1.2
    corners = []
    for far in (0.0, 16.0, 32.0, 48.0, 64.0):
        side, gap = _POINT + 3, _POINT + 2 + far
        for shift in (-far, far) if far else (0.0,):
            for away in (side, side + far):
                corners += [(x + away, y + shift - height / 2), (x - away - width, y + shift - height / 2)]
        corners += [(x - width / 2, y - gap - height), (x - width / 2, y + gap)]
    boxes = [Box(left, top, left + width, top + height) for left, top in corners]
    return [(_label(x, y, box, font), box) for box in boxes]


def _label(x: float, y: float, box: Box, font: float) -> Label:
    """The text that fills ``box``; the leader ends at the box's point nearest to (x, y), and is left out where short."""
    anchor: Anchor = "start" if box.left > x else "end" if box.right < x else "middle"
    at = {"start": box.left, "end": box.right, "middle": (box.left + box.right) / 2}[anchor]
    near = min(max(x, box.left), box.right), min(max(y, box.top), box.bottom)
    far_off = math.dist(near, (x, y)) > _POINT + 4
    return Label(at, box.top + font * 0.9, anchor, near if far_off else None)
