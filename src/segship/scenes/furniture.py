"""Street furniture: lamps, traffic signs and signals, bollards and fences. Thin things, most of them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from segship.scenes import walls
from segship.scenes.classes import FENCE, POLE, SIGN
from segship.scenes.dice import Dice
from segship.scenes.painter import Tag
from segship.scenes.shapes import Patch

if TYPE_CHECKING:
    from segship.scenes.layout import Item
    from segship.scenes.painter import Painter
    from segship.scenes.shapes import Floats, Point
    from segship.scenes.walls import Wall
    from segship.scenes.weather import Colour

_METALS: tuple[Colour, ...] = ((112, 114, 116), (78, 82, 84), (140, 142, 142), (58, 66, 62), (118, 106, 92))
_BOARDS: tuple[Colour, ...] = ((148, 112, 80), (120, 92, 72), (166, 142, 112), (190, 186, 178), (98, 104, 96))
_TO_CAMERA = (0.0, 0.0, -1.0)
_THINNEST_POST_PX = 0.8
_SMALLEST_SIGN_PX = 5.0


def paint_lamp(painter: Painter, item: Item) -> None:
    """A lamp post whose arm reaches over the road."""
    dice = Dice(item.key)
    top, reach, width = dice.between(5.5, 8.0), dice.between(0.8, 1.8), dice.between(0.13, 0.2)
    if width * painter.camera.scale(item.z) < _THINNEST_POST_PX:
        return
    metal, tag = _metal(painter, dice, item.z), Tag(POLE)
    foot, head = (painter.camera.project((item.x, y, item.z)) for y in (0.0, top))
    lamp = painter.camera.project((item.x - item.heading * reach, top + 0.3, item.z))
    scale = painter.camera.scale(item.z)
    painter.stroke(foot, head, width * scale, metal, tag)
    painter.stroke(head, lamp, 0.7 * width * scale, metal, tag)
    painter.stroke(foot, (foot[0], foot[1] - 0.9 * scale), 1.5 * width * scale, metal, tag)
    painter.ellipse(lamp, 0.36 * scale, 0.13 * scale, metal, tag)


def paint_bollard(painter: Painter, item: Item) -> None:
    """A short post at the kerb."""
    dice = Dice(item.key >> 8)
    scale = painter.camera.scale(item.z)
    if 0.16 * scale < _THINNEST_POST_PX:
        return
    foot, head = (painter.camera.project((item.x, y, item.z)) for y in (0.05, 0.95))
    painter.stroke(foot, head, 0.16 * scale, _metal(painter, dice, item.z), Tag(POLE))
    painter.stroke(
        head, (head[0], head[1] + 0.15 * scale), 0.18 * scale, painter.weather.seen((206, 200, 190), _TO_CAMERA, item.z)
    )


def paint_sign(painter: Painter, item: Item) -> None:
    """A post that carries one or two traffic signs."""
    dice = Dice(item.key)
    scale, top, radius = painter.camera.scale(item.z), dice.between(2.3, 3.3), dice.between(0.32, 0.46)
    if 2 * radius * scale < _SMALLEST_SIGN_PX:
        return
    foot, head = (painter.camera.project((item.x, y, item.z)) for y in (0.0, top))
    painter.stroke(foot, head, 0.11 * scale, _metal(painter, dice, item.z), Tag(POLE))
    tag = painter.new_thing(SIGN)
    plates = [dice.pick((_round, _round, _triangle, _board, _octagon))] + ([_board] if dice.chance(0.25) else [])
    for number, plate in enumerate(plates):
        plate(painter, dice, (head[0], head[1] + (0.2 + 2.05 * number) * radius * scale), radius * scale, item.z, tag)


def _round(painter: Painter, dice: Dice, centre: Point, radius: float, z: float, tag: Tag) -> None:
    rim, field = dice.pick((((192, 38, 44), (236, 234, 228)), ((38, 84, 168), (44, 96, 184)), ((192, 38, 44), (44, 84, 160))))
    painter.ellipse(centre, radius, radius, painter.weather.seen(rim, _TO_CAMERA, z), tag)
    painter.ellipse(centre, radius * 0.72, radius * 0.72, painter.weather.seen(field, _TO_CAMERA, z), tag)
    mark = painter.weather.seen((40, 40, 44) if field[0] > 200 else (232, 232, 232), _TO_CAMERA, z)
    if dice.chance(0.7):
        slant = dice.between(-0.4, 0.4) * radius
        painter.stroke(
            (centre[0] - slant, centre[1] - radius * 0.35), (centre[0] + slant, centre[1] + radius * 0.35), radius * 0.22, mark
        )


def _triangle(painter: Painter, dice: Dice, centre: Point, radius: float, z: float, tag: Tag) -> None:
    flip = -1.0 if dice.chance(0.3) else 1.0
    for size, colour in ((1.15, (196, 40, 44)), (0.68, (238, 236, 226))):
        r = size * radius
        corners = [
            (centre[0], centre[1] - flip * r),
            (centre[0] - r, centre[1] + flip * 0.72 * r),
            (centre[0] + r, centre[1] + flip * 0.72 * r),
        ]
        painter.polygon(corners, painter.weather.seen(colour, _TO_CAMERA, z), tag)


def _board(painter: Painter, dice: Dice, centre: Point, radius: float, z: float, tag: Tag) -> None:
    colour = dice.pick(((34, 88, 164), (38, 112, 72), (236, 232, 220), (232, 190, 60)))
    (x, y), half = centre, radius * dice.between(0.8, 1.2)
    corners = [
        (x - half, y - radius * 0.8),
        (x + half, y - radius * 0.8),
        (x + half, y + radius * 0.8),
        (x - half, y + radius * 0.8),
    ]
    painter.polygon(corners, painter.weather.seen(colour, _TO_CAMERA, z), tag)
    ink = (60, 60, 64) if colour[0] > 200 else (236, 236, 236)
    for row in (-0.35, 0.25):
        ends = (x - half * 0.6, y + row * radius), (x + half * dice.between(0.1, 0.6), y + row * radius)
        painter.stroke(*ends, radius * 0.2, painter.weather.seen(ink, _TO_CAMERA, z))


def _octagon(painter: Painter, dice: Dice, centre: Point, radius: float, z: float, tag: Tag) -> None:
    eighth = ((1, 0.414), (0.414, 1), (-0.414, 1), (-1, 0.414), (-1, -0.414), (-0.414, -1), (0.414, -1), (1, -0.414))
    for size, colour in ((1.0, (236, 232, 226)), (0.88, (190, 34, 40))):
        corners = [(centre[0] + a * radius * size, centre[1] + b * radius * size) for a, b in eighth]
        painter.polygon(corners, painter.weather.seen(colour, _TO_CAMERA, z), tag)
    bar = (centre[0] - radius * 0.5, centre[1]), (centre[0] + radius * dice.between(0.4, 0.55), centre[1])
    painter.stroke(*bar, radius * 0.3, painter.weather.seen((236, 232, 226), _TO_CAMERA, z))


def paint_signal(painter: Painter, item: Item) -> None:
    """Traffic lights on a post: the box counts as a sign."""
    dice = Dice(item.key)
    scale = painter.camera.scale(item.z)
    if 0.4 * scale < _SMALLEST_SIGN_PX / 2:
        return
    foot, head = (painter.camera.project((item.x, y, item.z)) for y in (0.0, 3.0))
    painter.stroke(foot, head, 0.15 * scale, _metal(painter, dice, item.z), Tag(POLE))
    tag = painter.new_thing(SIGN)
    x, y = head
    box = [(x - 0.2 * scale, y - 0.95 * scale), (x + 0.2 * scale, y - 0.95 * scale), (x + 0.2 * scale, y), (x - 0.2 * scale, y)]
    painter.polygon(box, painter.weather.seen((44, 46, 48), _TO_CAMERA, item.z), tag)
    lit = dice.below(3)
    for lamp, bright in enumerate(((255.0, 62.0, 48.0), (255.0, 190.0, 60.0), (80.0, 240.0, 150.0))):
        colour = bright if lamp == lit else (72.0, 70.0, 68.0)
        painter.ellipse((x, y - (0.79 - 0.31 * lamp) * scale), 0.12 * scale, 0.12 * scale, colour)


def paint_fence(painter: Painter, item: Item) -> None:
    """One panel of a fence along the street. As in street data sets, what shows through a railing is fence too."""
    dice = Dice(item.key)
    wall = walls.side_wall(painter, item.x, item.z, item.z + 2.45, dice.between(0.95, 1.7))
    if wall is None:
        return
    build = dice.pick((_railing, _boards, _boards, _mesh))
    colour, pattern = build(painter, dice, wall, item)
    painter.blend(Patch(wall.patch.rows, wall.patch.cols, wall.patch.coverage * pattern), walls.illuminate(painter, wall, colour))
    painter.mark(wall.patch, Tag(FENCE))


def _railing(painter: Painter, dice: Dice, wall: Wall, item: Item) -> tuple[Floats, Floats]:
    top = float(wall.up.max())
    bars = np.maximum(wall.stripes(dice.between(0.14, 0.26), 0.06), 0.12)
    rails = np.maximum(wall.band(top - 0.16, top), wall.band(0.12, 0.24))
    posts = np.clip((0.08 - np.abs(wall.along - item.z - 0.08)) * wall.scale_along + 0.5, 0, 1)
    return walls.flat(dice.pick(_METALS)), np.maximum(np.maximum(bars, rails), posts)


def _boards(painter: Painter, dice: Dice, wall: Wall, item: Item) -> tuple[Floats, Floats]:
    width = dice.between(0.14, 0.22)
    gaps = wall.stripes(width, 0.035)
    grain = 1 + 0.12 * painter.texture(wall.patch, 16.0, (item.key & 63, item.key & 31))
    return walls.flat(dice.pick(_BOARDS)) * (grain - 0.45 * gaps), np.ones_like(wall.up)


def _mesh(painter: Painter, dice: Dice, wall: Wall, item: Item) -> tuple[Floats, Floats]:
    wires = np.maximum(wall.stripes(0.2, 0.03), wall.courses(0.2, 0.03)) * 0.8
    posts = np.clip((0.07 - np.abs(wall.along - item.z - 0.07)) * wall.scale_along + 0.5, 0, 1)
    return walls.flat(dice.pick(((64.0, 96.0, 74.0), (96.0, 100.0, 102.0)))), np.maximum(wires + 0.3, posts)


def _metal(painter: Painter, dice: Dice, z: float) -> Colour:
    return painter.weather.seen(dice.pick(_METALS), (-0.5, 0.0, -0.6), z)
