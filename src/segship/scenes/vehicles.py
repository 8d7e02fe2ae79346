"""Cars and vans: a lower body and a cabin, each a tapered box, with glass, wheels, lights and plates."""

from __future__ import annotations

from dataclasses import dataclass
from math import sqrt
from typing import TYPE_CHECKING

from segship.scenes import shapes
from segship.scenes.camera import NEAR_M
from segship.scenes.classes import CAR
from segship.scenes.dice import Dice

if TYPE_CHECKING:
    from segship.scenes.camera import Point3
    from segship.scenes.layout import Item
    from segship.scenes.painter import Painter, Tag
    from segship.scenes.weather import Colour

Quad = tuple["Point3", "Point3", "Point3", "Point3"]

_PAINTS: tuple[Colour, ...] = (
    (226, 226, 224),
    (176, 180, 184),
    (58, 60, 66),
    (112, 116, 122),
    (168, 38, 42),
    (40, 74, 132),
    (52, 88, 72),
    (206, 160, 52),
    (104, 148, 176),
    (146, 128, 104),
)
_GLASS: Colour = (52, 62, 74)
_SMALLEST_CAR_PX = 6.0
_DETAILED_CAR_PX = 11.0


@dataclass(frozen=True)
class _Body:
    """Metres: length and half width; sill, waist and roof heights; the cabin's ends at the waist and at the roof."""

    length: float
    half: float
    waist: float
    roof: float
    cabin: tuple[float, float]
    top: tuple[float, float]
    taper: float


_BODIES = (
    _Body(4.1, 0.87, 0.88, 1.46, (-2.0, 1.0), (-1.65, 0.35), 0.17),
    _Body(4.6, 0.90, 0.90, 1.42, (-1.7, 0.95), (-1.05, 0.35), 0.18),
    _Body(4.5, 0.92, 1.00, 1.72, (-2.2, 1.1), (-2.0, 0.55), 0.14),
    _Body(5.2, 0.98, 1.10, 2.20, (-2.6, 1.75), (-2.55, 1.2), 0.08),
)
_SILL_M = 0.28


@dataclass(frozen=True)
class _Frame:
    """Where the car stands and heads: (length, width, height) in the car to metres in the street."""

    x: float
    z: float
    ahead: tuple[float, float]

    def place(self, along: float, across: float, y: float) -> Point3:
        hx, hz = self.ahead
        return self.x + along * hx + across * hz, y, self.z + along * hz - across * hx


def throw_car(item: Item) -> tuple[_Body, _Frame]:
    """The size and the pose of a car; the same each time for the same item."""
    dice = Dice(item.key)
    t = dice.between(-0.05, 0.05)
    straight, turned = (1 - t * t) / (1 + t * t), 2 * t / (1 + t * t)
    ahead = (turned, straight * item.heading) if item.heading else (dice.pick((-1.0, 1.0)) * straight, turned)
    return dice.pick((*_BODIES, *_BODIES[:3])), _Frame(item.x, item.z, ahead)


def car_corners(item: Item) -> list[Point3]:
    """Corners whose shadow is the car's shadow."""
    body, frame = throw_car(item)
    half = body.length / 2
    low = [frame.place(a, w, y) for a in (-half, half) for w in (-body.half, body.half) for y in (0.0, body.waist)]
    return low + [frame.place(a, w, body.roof) for a in body.top for w in (-body.half + body.taper, body.half - body.taper)]


def paint_car(painter: Painter, item: Item) -> None:
    """From the road up: the dark below, wheels, body, cabin, glass, lights."""
    body, frame = throw_car(item)
    half = body.length / 2
    if painter.camera.scale(item.z) * body.roof < _SMALLEST_CAR_PX or item.z < NEAR_M + half + 0.4:
        return
    dice, tag = Dice(item.key, 1), painter.new_thing(CAR)
    paint = dice.pick(_PAINTS)
    under = [
        frame.place(a * 0.97, w, 0.02)
        for a, w in ((-half, -body.half), (half, -body.half), (half, body.half), (-half, body.half))
    ]
    painter.polygon(painter.camera.polygon(under), painter.weather.seen((22, 22, 25), (0.0, 1.0, 0.0), item.z))
    detailed = painter.camera.scale(item.z) * body.roof > _DETAILED_CAR_PX
    if detailed:
        _paint_wheels(painter, body, frame, tag)
    lower = _prism(frame, (-half, half), (-half + 0.06, half - 0.14), body.half, body.half - 0.03, _SILL_M, body.waist)
    _paint_prism(painter, lower, paint, tag)
    cabin = _prism(frame, body.cabin, body.top, body.half - 0.03, body.half - body.taper, body.waist - 0.02, body.roof)
    _paint_prism(painter, cabin, paint, tag)
    _paint_glass(painter, cabin, tag, detailed=detailed)
    if detailed:
        _paint_ends(painter, body, frame, dice)


def _prism(
    frame: _Frame, foot: tuple[float, float], top: tuple[float, float], half: float, half_top: float, low: float, high: float
) -> tuple[Quad, ...]:
    """The faces of a box that narrows upwards: top, back, front, left, right; corners start at the lower left."""
    a, b, c, d = (frame.place(x, w, low) for x, w in ((foot[0], -half), (foot[0], half), (foot[1], half), (foot[1], -half)))
    e, f, g, h = (
        frame.place(x, w, high) for x, w in ((top[0], -half_top), (top[0], half_top), (top[1], half_top), (top[1], -half_top))
    )
    return (e, f, g, h), (a, b, f, e), (c, d, h, g), (d, a, e, h), (b, c, g, f)


def _normal(face: Quad) -> Point3:
    """The outward unit normal of a face whose corners run anticlockwise seen from outside."""
    (ax, ay, az), (bx, by, bz), _, (dx, dy, dz) = face
    ux, uy, uz, vx, vy, vz = bx - ax, by - ay, bz - az, dx - ax, dy - ay, dz - az
    nx, ny, nz = vy * uz - vz * uy, vz * ux - vx * uz, vx * uy - vy * ux
    length = sqrt(nx * nx + ny * ny + nz * nz)
    return nx / length, ny / length, nz / length


def _seen(painter: Painter, face: Quad) -> bool:
    (x, y, z), (nx, ny, nz) = face[0], _normal(face)
    return nx * x + ny * (y - painter.camera.eye_m) + nz * z < 0


def _paint_prism(painter: Painter, faces: tuple[Quad, ...], paint: Colour, tag: Tag) -> None:
    for face in faces:
        if _seen(painter, face):
            painter.face(face, paint, _normal(face), tag)


def _paint_glass(painter: Painter, cabin: tuple[Quad, ...], tag: Tag, *, detailed: bool) -> None:
    _, back, front, left, right = cabin
    for pane, halves in ((back, 1), (front, 1), (left, 2), (right, 2)):
        if not _seen(painter, pane):
            continue
        normal = _normal(pane)
        for n in range(halves):
            low, high = (n + 0.08) / halves, (n + 0.93) / halves
            painter.face(_inset(pane, low, high, 0.1, 0.86), _GLASS, normal, tag)
        if detailed:
            painter.face(
                _inset(pane, 0.1 if halves == 1 else 0.56, 0.5 if halves == 1 else 0.8, 0.55, 0.84), (104, 122, 138), normal
            )


def _inset(face: Quad, left: float, right: float, low: float, high: float) -> Quad:
    """The part of a face between two shares of its width and two of its height."""
    a, b, c, d = face

    def at(s: float, t: float) -> Point3:
        x, y, z = ((pa + (pb - pa) * s) * (1 - t) + (pd + (pc - pd) * s) * t for pa, pb, pc, pd in zip(a, b, c, d, strict=True))
        return x, y, z

    return at(left, low), at(right, low), at(right, high), at(left, high)


def _paint_wheels(painter: Painter, body: _Body, frame: _Frame, tag: Tag) -> None:
    """Wheels from the side that is seen, and treads from the end that is seen."""
    reach = body.length / 2 - 0.78
    end = -1.0 if frame.ahead[1] * frame.z + frame.ahead[0] * frame.x > 0 else 1.0
    for across in (-body.half + 0.24, body.half - 0.02):
        corners = [frame.place(end * (reach + 0.3), across - w, y) for w, y in ((0.0, 0.0), (0.22, 0.0), (0.22, 0.5), (0.0, 0.5))]
        painter.face(corners, (34, 34, 36), (0.0, 0.0, -1.0), tag)
    side = 1.0 if frame.ahead[1] * frame.x - frame.ahead[0] * frame.z < 0 else -1.0
    for along in (-reach, reach):
        for radius, colour in ((0.34, (34, 34, 36)), (0.2, (150, 152, 154))):
            rim = [frame.place(along + radius * a, side * (body.half + 0.01), 0.34 + radius * b) for a, b in shapes.CIRCLE]
            painter.face(rim, colour, (0.0, 0.0, -1.0), tag)


def _paint_ends(painter: Painter, body: _Body, frame: _Frame, dice: Dice) -> None:
    """Lamps, a plate and a bumper on the end that is seen."""
    away = frame.ahead[1] * frame.z + frame.ahead[0] * frame.x > 0
    end = (-1.0 if away else 1.0) * (body.length / 2 + 0.01)
    facing = (frame.ahead[0] * (-1 if away else 1), 0.0, frame.ahead[1] * (-1 if away else 1))
    lamp = ((206.0, 34.0, 36.0) if dice.chance(0.7) else (255.0, 70.0, 52.0)) if away else (246.0, 240.0, 214.0)
    level = body.waist - 0.2
    parts = (
        (-body.half + 0.06, -body.half + 0.36, level - 0.1, level + 0.1, lamp),
        (body.half - 0.36, body.half - 0.06, level - 0.1, level + 0.1, lamp),
        (-0.28, 0.28, 0.5, 0.62, (222.0, 216.0, 188.0)),
        (-body.half, body.half, _SILL_M, _SILL_M + 0.14, (52.0, 52.0, 56.0)),
    )
    for left, right, low, high, colour in parts:
        corners = [frame.place(end, w, y) for w, y in ((left, low), (right, low), (right, high), (left, high))]
        painter.face(corners, colour, facing)
