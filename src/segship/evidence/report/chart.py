"""The plot of speed against accuracy: every engine a dot, the reference's score the line to hold, the allowed drop a band."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

from segship.evidence.report import words
from segship.evidence.report.labels import Box, Label, place
from segship.evidence.report.scales import Scale, decimals

Kind = Literal["reference", "chosen", "other"]

_SPARE = 1.3
"""Room left and right of the outermost points, as a factor of time."""
_ROOMY = 500
"""Width from which on a point's label also holds its numbers."""
_FONT = 13
"""Size of the points' names, as the style sheet has it."""
_DEPTH = 5
"""How many allowed drops below the reference the plot reaches; what lies deeper is drawn on its lower edge."""


class Tick(NamedTuple):
    """A position on an axis and what is written there."""

    at: float
    text: str


class Mark(NamedTuple):
    """One engine, labelled with ``lines``. ``beyond``: it drops more than allowed. ``deep``: so much more that it is an
    arrow on the lower edge."""

    x: float
    y: float
    kind: Kind
    beyond: bool
    deep: bool
    lines: tuple[str, ...]
    label: Label


@dataclass(frozen=True)
class Chart:
    """All positions of the plot, in pixels of a ``width`` x ``height`` picture."""

    width: int
    height: int
    frame: Box
    x_title: str
    y_title: str
    speed_title: str
    band_text: str
    x_ticks: tuple[Tick, ...]
    y_ticks: tuple[Tick, ...]
    speed_ticks: tuple[Tick, ...]
    reference_y: float | None
    limit_y: float | None
    marks: tuple[Mark, ...]


class Dot(NamedTuple):
    """One engine: its name, its time, its score, and how the score is written."""

    name: str
    ms: float
    score: float
    score_text: str
    chosen: bool = False


@dataclass(frozen=True)
class Plot:
    """What is to be drawn. ``held``: the dot whose score is to be held; ``max_drop`` below it is allowed."""

    dots: tuple[Dot, ...]
    held: Dot | None
    max_drop: float
    x_title: str
    y_title: str
    speed_title: str


class _Axes(NamedTuple):
    """The two scales, the rectangle they span, and the heights of the reference's and the limit's line."""

    x: Scale
    y: Scale
    frame: Box
    reference_y: float | None
    limit_y: float | None


def chart(plot: Plot, width: int, height: int) -> Chart | None:
    """All positions of a plot; None when it has fewer than two dots."""
    if len(plot.dots) < 2:
        return None
    axes = _axes(plot.dots, plot.held, plot.max_drop, Box(52, 50, width - 12, height - 46))
    return Chart(
        width=width,
        height=height,
        frame=axes.frame,
        x_title=plot.x_title,
        y_title=plot.y_title,
        speed_title=plot.speed_title,
        band_text=f"allowed: {words.allowance(plot.max_drop)} below PyTorch",
        x_ticks=tuple(Tick(axes.x(value), words.exact(value)) for value in axes.x.ticks(most=width // 75)),
        y_ticks=_y_ticks(axes.y, height),
        speed_ticks=_speed_ticks(axes.x, plot.held),
        reference_y=axes.reference_y,
        limit_y=axes.limit_y,
        marks=_marks(plot.dots, plot.held, plot.max_drop, axes),
    )


def _axes(points: Sequence[Dot], held: Dot | None, max_drop: float, frame: Box) -> _Axes:
    times = [point.ms for point in points]
    x = Scale(min(times) / _SPARE, max(times) * _SPARE, frame.left, frame.right, log=True)
    y = _y_scale(points, held, max_drop, frame)
    return _Axes(x, y, frame, y(held.score) if held else None, y(held.score - max_drop) if held else None)


def _y_scale(points: Sequence[Dot], held: Dot | None, max_drop: float, frame: Box) -> Scale:
    top = max(point.score for point in points)
    floor = held.score - max(_DEPTH * max_drop, 0.5) if held else min(point.score for point in points)
    bottom = min([point.score for point in points if point.score >= floor] + ([held.score - max_drop] if held else []))
    spare = 0.16 * max(top - bottom, 0.1)
    return Scale(bottom - spare, top + 2 * spare, frame.bottom, frame.top)


def _y_ticks(y: Scale, height: int) -> tuple[Tick, ...]:
    ticks = y.ticks(most=height // 55)
    return tuple(Tick(y(value), words.points(value, decimals(ticks))) for value in ticks if value <= 100)


def _speed_ticks(x: Scale, held: Dot | None) -> tuple[Tick, ...]:
    """Speed-ups over the reference along the upper edge: powers of two, because the axis is logarithmic."""
    if held is None:
        return ()
    factors = [2.0**power for power in range(-6, 11)]
    shown = [(factor, held.ms / factor) for factor in factors if x.low < held.ms / factor < x.high]
    return tuple(Tick(x(ms), f"{words.exact(factor)}×") for factor, ms in shown)


def _marks(points: Sequence[Dot], held: Dot | None, max_drop: float, axes: _Axes) -> tuple[Mark, ...]:
    spots = [(axes.x(point.ms), min(axes.y(point.score), axes.frame.bottom - 9)) for point in points]
    texts = [_text(point, roomy=axes.frame.right > _ROOMY) for point in points]
    labels = _labels(points, spots, texts, axes)
    return tuple(
        Mark(
            *spots[i],
            kind="chosen" if point.chosen else "reference" if point is held else "other",
            beyond=held is not None and point.score < held.score - max_drop,
            deep=point.score < axes.y.low,
            lines=texts[i],
            label=labels[i],
        )
        for i, point in enumerate(points)
    )


def _text(point: Dot, *, roomy: bool) -> tuple[str, ...]:
    """The engine's name and, where there is room, its numbers."""
    return (point.name, f"{words.ms(point.ms)} · {point.score_text}") if roomy else (point.name,)


def _labels(
    points: Sequence[Dot], spots: list[tuple[float, float]], texts: list[tuple[str, ...]], axes: _Axes
) -> dict[int, Label]:
    """Label of each point; the chosen one picks its place first."""
    order = sorted(range(len(points)), key=lambda index: not points[index].chosen)
    heights = [height for height in (axes.reference_y, axes.limit_y) if height is not None]
    lines = [Box(axes.frame.left, height - 1, axes.frame.right, height + 1) for height in heights]
    if axes.limit_y is not None:  # where the limit's own name is written
        lines.append(Box(axes.frame.right - 200, axes.limit_y - 18, axes.frame.right, axes.limit_y))
    return dict(zip(order, place([spots[i] for i in order], [texts[i] for i in order], axes.frame, _FONT, lines), strict=True))
