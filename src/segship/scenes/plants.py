"""Trees, bushes and hedges."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from segship.scenes import shapes, walls
from segship.scenes.classes import VEGETATION
from segship.scenes.dice import Dice
from segship.scenes.painter import Tag
from segship.scenes.shapes import Patch

if TYPE_CHECKING:
    from segship.scenes.layout import Item
    from segship.scenes.painter import Painter
    from segship.scenes.shapes import Point
    from segship.scenes.weather import Colour

_LEAVES: tuple[Colour, ...] = ((78, 116, 50), (96, 128, 58), (58, 94, 52), (122, 132, 58), (150, 116, 52), (70, 104, 70))
_BARKS: tuple[Colour, ...] = ((96, 76, 60), (112, 104, 94), (78, 66, 58), (128, 122, 114))
_HEDGE_DEPTH_M = 0.8


def crown_of(item: Item) -> tuple[float, float]:
    """How high the middle of a tree's crown is, and the crown's radius, metres."""
    dice = Dice(item.key)
    radius = dice.between(1.4, 2.9)
    return radius + dice.between(1.8, 3.2), radius


def paint_tree(painter: Painter, item: Item) -> None:
    """A trunk, slightly leaning and forked, and a crown of a few overlapping masses of leaves."""
    middle, radius = crown_of(item)
    dice = Dice(item.key, 1)
    bark = painter.weather.seen(dice.pick(_BARKS), (-0.5, 0.0, -0.6), item.z)
    scale = painter.camera.scale(item.z)
    foot, top = (
        painter.camera.project((item.x, 0.0, item.z)),
        painter.camera.project((item.x + dice.between(-0.4, 0.4), middle, item.z)),
    )
    width = dice.between(0.2, 0.42) * scale
    trunk = [
        (foot[0] - width * 0.6, foot[1]),
        (foot[0] + width * 0.6, foot[1]),
        (top[0] + width * 0.3, top[1]),
        (top[0] - width * 0.3, top[1]),
    ]
    painter.polygon(trunk, bark, Tag(VEGETATION))
    leaf = dice.pick(_LEAVES)
    for _ in range(2 + dice.below(3)):
        centre = (top[0] + dice.between(-0.55, 0.55) * radius * scale, top[1] + dice.between(-0.5, 0.35) * radius * scale)
        _paint_leaves(painter, centre, radius * scale * dice.between(0.65, 0.95), leaf, item)


def _paint_leaves(painter: Painter, centre: Point, radius: float, colour: Colour, item: Item) -> None:
    """One mass of leaves: a ragged disc, brighter towards the sun."""
    rows = shapes.span(centre[1] - radius * 1.25, centre[1] + radius * 1.25, painter.camera.size[0])
    cols = shapes.span(centre[0] - radius * 1.25, centre[0] + radius * 1.25, painter.camera.size[1])
    if rows.start >= rows.stop or cols.start >= cols.stop:
        return
    patch = Patch(rows, cols, np.ones((rows.stop - rows.start, cols.stop - cols.start), np.float32))
    noise = painter.texture(patch, radius * 1.1, (item.key & 127, item.key >> 8 & 127))
    across = (shapes.centres(cols)[None, :] - centre[0]) / radius
    down = (shapes.centres(rows)[:, None] - centre[1]) / radius
    ragged = 1 - np.sqrt(across * across + down * down * 1.15) + 0.42 * noise
    sun = painter.weather.sun
    tone = np.clip(0.86 + (0.22 * sun[0]) * across - 0.26 * down + 0.42 * noise, 0.38, 1.4)
    lit = walls.flat(painter.weather.seen(colour, (0.0, 0.7, -0.5), item.z))
    clear = painter.weather.haze_m / (painter.weather.haze_m + item.z)
    planes = lit * (1 + (tone - 1) * clear)
    painter.blend(Patch(rows, cols, np.clip(ragged * max(radius / 2.2, 1.2) + 0.3, 0, 1)), planes, Tag(VEGETATION))


def paint_bush(painter: Painter, item: Item) -> None:
    """A round bush, or one length of a clipped hedge where the item runs along the street."""
    dice = Dice(item.key)
    leaf = dice.pick(_LEAVES)
    if item.heading == 0:
        scale, radius = painter.camera.scale(item.z), dice.between(0.4, 0.9)
        centre = painter.camera.project((item.x, radius * 0.7, item.z))
        _paint_leaves(painter, centre, radius * scale, leaf, item)
        return
    height, side = dice.between(0.8, 1.5), 1.0 if item.x > 0 else -1.0
    tag, near, far = Tag(VEGETATION), item.z, item.z + 2.45
    outer = item.x + side * _HEDGE_DEPTH_M
    top = ((item.x, height, near), (item.x, height, far), (outer, height, far), (outer, height, near))
    painter.face(top, leaf, (0.0, 1.0, 0.0), tag)
    for wall in (
        walls.front_wall(painter, near, min(item.x, outer), max(item.x, outer), height),
        walls.side_wall(painter, item.x, near, far, height),
    ):
        if wall is not None:
            tone = 0.92 + 0.34 * painter.texture(wall.patch, 12.0, (item.key & 63, 5)) + 0.1 * (wall.up - 1)
            painter.blend(wall.patch, walls.illuminate(painter, wall, walls.flat(leaf) * tone), tag)
