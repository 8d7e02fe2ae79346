"""Pedestrians and cyclists: flat figures that face the camera, drawn in metres around their feet."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from segship.scenes.classes import CYCLIST, PEDESTRIAN
from segship.scenes.dice import Dice
from segship.scenes.shapes import CIRCLE

if TYPE_CHECKING:
    from segship.scenes.layout import Item
    from segship.scenes.painter import Painter, Tag
    from segship.scenes.shapes import Point
    from segship.scenes.weather import Colour

_CLOTHES: tuple[Colour, ...] = (
    (60, 66, 86),
    (38, 40, 46),
    (164, 52, 56),
    (206, 200, 190),
    (92, 118, 86),
    (198, 152, 62),
    (84, 120, 162),
    (120, 96, 80),
    (150, 148, 150),
    (126, 70, 112),
)
_TROUSERS: tuple[Colour, ...] = ((44, 50, 68), (34, 34, 38), (92, 86, 78), (120, 112, 98), (62, 84, 116))
_SKINS: tuple[Colour, ...] = ((226, 184, 156), (196, 146, 112), (142, 98, 72), (98, 68, 52))
_HAIRS: tuple[Colour, ...] = ((52, 40, 34), (30, 28, 28), (136, 104, 66), (150, 146, 142))
_SMALLEST_PERSON_PX = 12.0


@dataclass(frozen=True)
class _Figure:
    """A painter that works in metres right of and above one point of the ground."""

    painter: Painter
    foot: Point
    scale: float
    z: float
    tag: Tag

    def at(self, x: float, y: float) -> Point:
        return self.foot[0] + x * self.scale, self.foot[1] - y * self.scale

    def lit(self, colour: Colour) -> Colour:
        return self.painter.weather.seen(colour, (0.0, 0.3, -0.9), self.z)

    def limb(self, start: Point, end: Point, width: float, colour: Colour) -> None:
        self.painter.stroke(self.at(*start), self.at(*end), width * self.scale, self.lit(colour), self.tag)

    def disc(self, centre: Point, rx: float, ry: float, colour: Colour) -> None:
        self.painter.ellipse(self.at(*centre), rx * self.scale, ry * self.scale, self.lit(colour), self.tag)

    def body(self, corners: tuple[Point, ...], colour: Colour) -> None:
        self.painter.polygon([self.at(*corner) for corner in corners], self.lit(colour), self.tag)


def _figure(painter: Painter, item: Item, class_id: int, size: float) -> _Figure | None:
    scale = painter.camera.scale(item.z)
    if scale * 1.7 < _SMALLEST_PERSON_PX:
        return None
    foot = painter.camera.project((item.x, 0.0, item.z))
    return _Figure(painter, foot, scale * size, item.z, painter.new_thing(class_id))


def paint_pedestrian(painter: Painter, item: Item) -> None:
    """Someone who walks along or across, now and then with a bag."""
    dice = Dice(item.key)
    child = dice.chance(0.12)
    figure = _figure(painter, item, PEDESTRIAN, dice.between(0.62, 0.75) if child else dice.between(0.92, 1.06))
    if figure is None:
        return
    legs, coat = dice.pick(_TROUSERS), dice.pick(_CLOTHES)
    stride = dice.between(0.12, 0.3) if item.heading == 0 else dice.between(0.06, 0.13)
    broad = 0.17 if item.heading == 0 else 0.22
    for side, lift in ((-1, dice.between(0.0, 0.06)), (1, 0.0)):
        knee = (side * stride * 0.6, 0.46)
        figure.limb((side * 0.06, 0.86), knee, 0.15, legs)
        figure.limb(knee, (side * stride, 0.07 + lift), 0.12, legs)
        figure.limb((side * stride - 0.03, 0.05 + lift), (side * stride + 0.05, 0.04 + lift), 0.09, (36, 32, 32))
    hem = dice.pick((0.82, 0.78, 0.6))
    if dice.chance(0.3):
        figure.body(((0.1 * dice.pick((-2, 2)), 1.0), (0.32, 1.0), (0.32, 0.7), (0.12, 0.7)), dice.pick(_CLOTHES))
    figure.body(((-broad, 1.42), (broad, 1.42), (broad * 0.9, hem), (-broad * 0.9, hem)), coat)
    swing = dice.between(-0.15, 0.2)
    dark = (coat[0] * 0.84, coat[1] * 0.84, coat[2] * 0.84)
    figure.limb((-broad, 1.36), (-broad - 0.06 - swing * 0.3, 0.88), 0.1, dark)
    figure.limb((broad, 1.36), (broad + 0.06 + swing * 0.6, 0.88 + abs(swing) * 0.3), 0.1, dark)
    _paint_head(figure, dice, 0.0, 1.6, covered=dice.chance(0.15))


def _paint_head(figure: _Figure, dice: Dice, x: float, y: float, *, covered: bool) -> None:
    skin, hair = dice.pick(_SKINS), dice.pick(_CLOTHES) if covered else dice.pick(_HAIRS)
    figure.limb((x, y - 0.2), (x, y - 0.08), 0.1, skin)
    figure.disc((x, y + 0.02), 0.115, 0.145, hair)
    figure.disc((x + dice.between(-0.02, 0.02), y - 0.02), 0.09, 0.11, skin if dice.chance(0.6) else hair)


def paint_cyclist(painter: Painter, item: Item) -> None:
    """A rider on a bicycle, one object; seen from the side when crossing, else from behind or ahead."""
    dice = Dice(item.key)
    figure = _figure(painter, item, CYCLIST, dice.between(0.95, 1.05))
    if figure is None:
        return
    if item.heading == 0:
        _ride_across(figure, dice, dice.pick((-1.0, 1.0)))
    else:
        _ride_along(figure, dice)


def _ride_along(figure: _Figure, dice: Dice) -> None:
    frame, coat, legs = dice.pick(_CLOTHES), dice.pick(_CLOTHES), dice.pick(_TROUSERS)
    figure.disc((0.0, 0.34), 0.07, 0.34, (30, 30, 32))
    figure.limb((0.0, 0.5), (0.0, 0.92), 0.08, frame)
    figure.limb((-0.32, 1.02), (0.32, 1.02), 0.06, (40, 40, 42))
    for side, foot in ((-1, dice.between(0.2, 0.4)), (1, dice.between(0.15, 0.45))):
        figure.limb((side * 0.09, 0.98), (side * 0.15, 0.62), 0.15, legs)
        figure.limb((side * 0.15, 0.62), (side * 0.12, foot), 0.11, legs)
        figure.limb((side * 0.2, 1.42), (side * 0.27, 1.04), 0.09, coat)
    figure.body(((-0.22, 1.5), (0.22, 1.5), (0.17, 0.92), (-0.17, 0.92)), coat)
    _paint_head(figure, dice, 0.0, 1.68, covered=True)


def _ride_across(figure: _Figure, dice: Dice, way: float) -> None:
    frame, coat, legs = dice.pick(_CLOTHES), dice.pick(_CLOTHES), dice.pick(_TROUSERS)
    wheels = (-0.52 * way, 0.52 * way)
    for x in wheels:
        _paint_wheel(figure, x)
    seat, head, crank = (-0.2 * way, 0.88), (0.38 * way, 0.9), (-0.02 * way, 0.32)
    for start, end in ((seat, crank), (crank, head), (seat, head), ((wheels[0], 0.34), crank), ((wheels[1], 0.34), head)):
        figure.limb(start, end, 0.055, frame)
    pedal = dice.between(-0.14, 0.14)
    for turn in (-1.0, 1.0):
        knee = (0.2 * way, 0.66 + turn * pedal)
        figure.limb((-0.18 * way, 0.96), knee, 0.14, legs)
        figure.limb(knee, (turn * 0.12 * way, 0.3 + turn * pedal), 0.11, legs)
    shoulder = (0.1 * way, 1.4)
    figure.body((shoulder, (shoulder[0] - 0.24 * way, 1.4), (-0.32 * way, 0.9), (-0.08 * way, 0.9)), coat)
    figure.limb(shoulder, (0.4 * way, 1.02), 0.09, coat)
    _paint_head(figure, dice, 0.12 * way, 1.6, covered=True)


def _paint_wheel(figure: _Figure, x: float) -> None:
    """A tyre as ten short strokes, so that the street shows between the spokes."""
    rim = [(x + 0.32 * a, 0.34 + 0.32 * b) for a, b in CIRCLE]
    for start, end in zip(rim, (*rim[1:], rim[0]), strict=True):
        figure.limb(start, end, 0.06, (32, 32, 34))
