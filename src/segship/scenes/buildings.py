"""Houses with windows, shops and roofs; the skyline; and the sky above them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from segship.scenes import shapes, walls
from segship.scenes.classes import BUILDING, SKY, VEGETATION
from segship.scenes.dice import Dice
from segship.scenes.painter import Tag
from segship.scenes.shapes import Patch

if TYPE_CHECKING:
    from segship.scenes.layout import House
    from segship.scenes.painter import Painter
    from segship.scenes.shapes import Floats
    from segship.scenes.walls import Wall
    from segship.scenes.weather import Colour

_WALLS: tuple[Colour, ...] = (
    (206, 186, 154),
    (222, 208, 184),
    (184, 118, 92),
    (150, 92, 76),
    (196, 160, 118),
    (168, 164, 158),
    (134, 136, 140),
    (214, 178, 170),
    (178, 190, 186),
    (232, 226, 214),
    (110, 104, 100),
)
_ROOFS: tuple[Colour, ...] = ((142, 76, 58), (96, 84, 82), (74, 78, 88), (120, 92, 74))
_SHOPS: tuple[Colour, ...] = ((40, 84, 122), (158, 50, 46), (46, 96, 72), (212, 172, 74), (60, 56, 62), (228, 224, 214))
_PLAIN_BELOW = 2.2
"""Pixels per metre below which a wall is painted in the mean colour of its wall and windows."""


@dataclass(frozen=True)
class _Facade:
    wall: Colour
    trim: Colour
    glass: Colour
    sign: Colour
    storey: float
    bay: float
    window: tuple[float, float]
    shop: bool
    brick: bool
    salt: int


def paint_sky(painter: Painter, dice: Dice) -> None:
    """A gradient from zenith to haze, and clouds that flatten towards the horizon."""
    camera, weather = painter.camera, painter.weather
    height, width = camera.size
    whole = Patch(slice(0, height), slice(0, width), np.ones((height, width), np.float32))
    climb = shapes.clamp(1 - shapes.centres(whole.rows) / max(camera.horizon_px, 1.0))[:, None]
    sky = walls.flat(weather.haze) + (walls.flat(weather.zenith) - walls.flat(weather.haze)) * (climb * (1.6 - 0.6 * climb))
    rows = ((1 - climb[:, 0]) * 150 / (0.35 + climb[:, 0])).astype(np.int64) + dice.below(256)
    cols = (np.arange(width) * (180.0 / width)).astype(np.int64) + dice.below(256)
    puffs = painter.grain[(rows & 255)[:, None], (cols & 255)[None, :]]
    cover = np.clip((puffs + weather.cloudiness - 0.75) * 2.2, 0, 0.92) * shapes.clamp(climb * 4)
    painter.blend(whole, np.broadcast_to(sky, (3, height, width)), Tag(SKY))
    painter.blend(Patch(whole.rows, whole.cols, cover), weather.cloud)


def paint_skyline(painter: Painter, dice: Dice) -> None:
    """Far blocks and tree tops that close the view at the end of the street."""
    camera = painter.camera
    x = dice.between(-150.0, -130.0)
    while x < 140:
        width = dice.between(5, 16)
        if dice.chance(0.5):
            colour, tag = dice.pick(_WALLS), Tag(BUILDING)
        else:
            colour, tag = (78.0, 98.0, 62.0), Tag(VEGETATION)
        z = dice.between(170, 240)
        lit = painter.weather.seen(colour, (0.0, 0.0, -1.0), z)
        (left, top), (right, base) = camera.project((x, dice.between(4, 17), z)), camera.project((x + width, -0.5, z))
        if tag.class_id == BUILDING:
            painter.polygon(((left, top), (right, top), (right, base), (left, base)), lit, tag)
        else:
            painter.ellipse(((left + right) / 2, base), (right - left) * 0.7, base - top, lit, tag)
        x += width * dice.between(0.5, 1.3)


def paint_house(painter: Painter, house: House) -> None:
    """The wall that faces the camera, the wall along the street, then the roof."""
    dice = Dice(house.key)
    facade = _throw_facade(dice, evening=painter.weather.name == "evening")
    inner, outer = house.x, house.x + house.side * house.depth
    front = None if house.joined else walls.front_wall(painter, house.near, min(inner, outer), max(inner, outer), house.height)
    for wall in (front, walls.side_wall(painter, house.x, house.near, house.far, house.height)):
        if wall is not None:
            painter.blend(wall.patch, walls.illuminate(painter, wall, _clad(painter, wall, facade, house)), Tag(BUILDING))
    if house.roof:
        _paint_roof(painter, house, dice.pick(_ROOFS), facade.wall)


def _throw_facade(dice: Dice, *, evening: bool) -> _Facade:
    wall = dice.pick(_WALLS)
    tone = dice.between(0.82, 1.08)
    storey, bay = dice.between(2.8, 3.5), dice.between(1.7, 3.4)
    return _Facade(
        wall=(wall[0] * tone, wall[1] * tone, wall[2] * tone),
        trim=dice.pick(((236.0, 230.0, 218.0), (94.0, 84.0, 78.0), wall)),
        glass=(238.0, 196.0, 116.0) if evening and dice.chance(0.4) else (58.0, 74.0, 90.0),
        sign=dice.pick(_SHOPS),
        storey=storey,
        bay=bay,
        window=(bay * dice.between(0.35, 0.66), storey * dice.between(0.42, 0.62)),
        shop=dice.chance(0.4),
        brick=dice.chance(0.4),
        salt=dice.below(1 << 20),
    )


def _clad(painter: Painter, wall: Wall, facade: _Facade, house: House) -> Floats:
    """The wall's own colours, (3, rows, cols): plaster or brick, windows, cornices and a shop."""
    tone = 1 + 0.07 * painter.texture(wall.patch, 40.0, (house.key & 63, house.key & 127))
    if facade.brick:
        tone -= 0.13 * wall.courses(0.3, 0.07) * shapes.clamp(wall.scale_up / 12 - 0.5)
    tone *= np.clip(0.78 + wall.up * 0.11, 0.72, 1)
    planes = walls.flat(facade.wall) * tone
    if wall.scale_up.max() < _PLAIN_BELOW:
        return planes * (1 - 0.3 * facade.window[0] * facade.window[1] / (facade.bay * facade.storey))
    planes = _glaze(wall, facade, planes)
    planes = _over(planes, facade.trim, np.maximum(wall.band(house.height - 0.35, house.height), wall.band(3.3, 3.45)))
    return _shop(wall, facade, planes) if facade.shop else planes


def _glaze(wall: Wall, facade: _Facade, planes: Floats) -> Floats:
    """Windows with frames, each with its own brightness."""
    width, height = facade.window
    frames = wall.stripes(facade.bay, width + 0.24) * wall.courses(facade.storey, height + 0.24)
    panes = wall.stripes(facade.bay, width) * wall.courses(facade.storey, height)
    bars = wall.stripes(facade.bay, 0.09) * shapes.clamp(wall.scale_up / 14 - 0.4)
    glow = _lottery(wall, facade)
    planes = _over(planes, facade.trim, frames)
    return planes + (walls.flat(facade.glass) * glow - planes) * (panes * (1 - bars))


def _lottery(wall: Wall, facade: _Facade) -> Floats:
    """A brightness for each window, 0.6 to 1.4, by a hash of its column and its storey."""
    column = np.floor(wall.along / facade.bay).astype(np.int64)
    storey = np.floor(wall.up / facade.storey).astype(np.int64)
    mixed = (column * 73856093) ^ (storey * 19349663) ^ facade.salt
    glow: Floats = 0.6 + ((mixed >> 3) & 63).astype(np.float32) / 79
    return glow


def _shop(wall: Wall, facade: _Facade, planes: Floats) -> Floats:
    """Large panes at street level under a coloured fascia."""
    planes = _over(planes, facade.sign, wall.band(0.0, 3.3))
    panes = wall.band(0.5, 2.5) * wall.stripes(facade.bay * 1.5, facade.bay * 1.25)
    planes = planes + (walls.flat((66, 74, 80)) * _lottery(wall, facade) - planes) * panes
    letters = wall.band(2.78, 3.08) * wall.stripes(0.5, 0.3) * wall.stripes(facade.bay * 3, facade.bay * 1.6)
    return _over(planes, (240, 234, 214), letters * 0.8)


def _over(planes: Floats, colour: Colour, coverage: Floats) -> Floats:
    return planes + (walls.flat(colour) - planes) * coverage


def _paint_roof(painter: Painter, house: House, roof: Colour, wall: Colour) -> None:
    inner, outer = house.x - house.side * 0.35, house.x + house.side * house.depth
    ridge, low, high = (inner + outer) / 2, house.height, house.height + house.roof
    gable = ((inner, low, house.near), (ridge, high, house.near), (outer, low, house.near))
    painter.face(gable, wall, (0.0, 0.0, -1.0), Tag(BUILDING))
    slope = ((inner, low, house.near), (ridge, high, house.near), (ridge, high, house.far), (inner, low, house.far))
    if (high - low) * abs(inner) > (low - painter.camera.eye_m) * abs(ridge - inner):
        painter.face(slope, roof, (-0.6 * house.side, 0.8, 0.0), Tag(BUILDING))
    eaves = ((house.x, low, house.near), (inner, low, house.near), (inner, low, house.far), (house.x, low, house.far))
    painter.face(eaves, roof, (0.0, -1.0, 0.0), Tag(BUILDING))
