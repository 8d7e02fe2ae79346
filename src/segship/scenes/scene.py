"""A scene: a picture of a street with its exact truth; and the order in which it is painted."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from segship.scenes import buildings, furniture, ground, lens, people, plants, vehicles
from segship.scenes.camera import throw_camera
from segship.scenes.classes import CLASSES, THINGS
from segship.scenes.dice import Dice
from segship.scenes.layout import Item, throw_plan
from segship.scenes.painter import TILE, Painter, throw_grain
from segship.scenes.weather import throw_weather

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from numpy.typing import NDArray

    from segship.scenes.camera import Point3
    from segship.scenes.layout import House, Kind, Plan

SMALLEST_SIDE = 32
"""Scenes are at least this many pixels high and wide."""

_BRUSHES: dict[Kind, Callable[[Painter, Item], None]] = {
    "car": vehicles.paint_car,
    "pedestrian": people.paint_pedestrian,
    "cyclist": people.paint_cyclist,
    "lamp": furniture.paint_lamp,
    "sign": furniture.paint_sign,
    "signal": furniture.paint_signal,
    "bollard": furniture.paint_bollard,
    "tree": plants.paint_tree,
    "bush": plants.paint_bush,
    "fence": furniture.paint_fence,
}


class Segment(NamedTuple):
    """One segment of the panoptic map: an object, or all of one stuff class."""

    id: int
    class_id: int
    is_thing: bool


@dataclass(frozen=True)
class Scene:
    """A synthetic street with its truth.

    `image` (h, w, 3) uint8 RGB; `semantic` (h, w) uint8 class ids, every pixel labelled; `instances` (h, w) uint16,
    1 to n for the n visible objects of the countable classes, 0 elsewhere; `segments`: first those n objects, then
    one entry for each stuff class in the picture, with ids from n + 1 on.
    """

    image: NDArray[np.uint8]
    semantic: NDArray[np.uint8]
    instances: NDArray[np.uint16]
    segments: tuple[Segment, ...]

    @property
    def panoptic(self) -> NDArray[np.uint16]:
        """The segment id of each pixel, (h, w) uint16; none is 0."""
        stuff = np.zeros(len(CLASSES), np.uint16)
        for segment in self.segments:
            if not segment.is_thing:
                stuff[segment.class_id] = segment.id
        return np.where(self.instances > 0, self.instances, stuff[self.semantic])


def generate(seed: int, size: tuple[int, int] = (256, 256)) -> Scene:
    """Paint the scene of a seed (0 or more) at a size (height, width), pixels. The same seed is the same street."""
    if seed < 0 or min(size) < SMALLEST_SIDE:
        message = f"seed {seed}, size {size}: the seed must be 0 or more and both sides at least {SMALLEST_SIDE} px"
        raise ValueError(message)
    plan = throw_plan(Dice(seed, 0))
    grain = throw_grain(Dice(seed, 3).octets(2, TILE, TILE))
    painter = Painter.blank(throw_camera(Dice(seed, 1), size), throw_weather(Dice(seed, 2)), grain)
    _paint(painter, plan, Dice(seed, 4))
    instances, objects = _visible(painter)
    classes = [int(c) for c in np.unique(painter.semantic) if int(c) not in THINGS]
    stuff = (Segment(len(objects) + n, class_id, is_thing=False) for n, class_id in enumerate(classes, 1))
    return Scene(lens.photograph(painter.planes, Dice(seed, 5)), painter.semantic, instances, (*objects, *stuff))


def _paint(painter: Painter, plan: Plan, dice: Dice) -> None:
    """Far to near: sky, ground with its shadows, what stands behind the pavements, what stands in the street."""
    buildings.paint_sky(painter, dice)
    buildings.paint_skyline(painter, dice)
    ground.paint_ground(painter, plan.street)
    ground.cast_shadows(painter, _solids(plan), _crowns(plan))
    behind = [item for item in plan.items if _is_behind(item, plan)]
    backdrop: list[House | Item] = [*plan.houses, *behind]
    for thing in sorted(backdrop, key=_distance, reverse=True):
        _brush(painter, thing)
    for item in sorted((i for i in plan.items if not _is_behind(i, plan)), key=_distance, reverse=True):
        _brush(painter, item)


def _brush(painter: Painter, thing: House | Item) -> None:
    if isinstance(thing, Item):
        _BRUSHES[thing.kind](painter, thing)
    else:
        buildings.paint_house(painter, thing)


def _is_behind(item: Item, plan: Plan) -> bool:
    return item.x < plan.street.wall[0] + 0.2 or item.x > plan.street.wall[1] - 0.2


def _distance(thing: House | Item) -> float:
    return thing.z if isinstance(thing, Item) else thing.near


def _solids(plan: Plan) -> Iterator[list[Point3]]:
    """The corners of everything whose shadow is about that of its convex hull."""
    for h in plan.houses:
        yield [(x, y, z) for x in (h.x, h.x + h.side * h.depth) for y in (0.0, h.height) for z in (h.near, h.far)]
    widths = {"pedestrian": (0.2, 1.7), "cyclist": (0.25, 1.6), "lamp": (0.09, 6.0), "sign": (0.06, 2.8), "tree": (0.18, 3.0)}
    for item in plan.items:
        if item.kind == "car":
            yield vehicles.car_corners(item)
        elif item.kind in widths and item.z < 60:
            half, top = widths[item.kind]
            yield [(item.x + dx, y, item.z) for dx in (-half, half) for y in (0.0, top)]
        elif item.kind in ("fence", "bush") and item.heading:
            yield [(item.x, y, item.z + dz) for y in (0.0, 1.1) for dz in (0.0, 2.45)]


def _crowns(plan: Plan) -> Iterator[tuple[Point3, float]]:
    for item in plan.items:
        if item.kind == "tree":
            height, radius = plants.crown_of(item)
            yield (item.x, height, item.z), radius * 1.1


def _visible(painter: Painter) -> tuple[NDArray[np.uint16], list[Segment]]:
    """Number the objects that can be seen from 1, without gaps, in the order in which they were painted."""
    pixels = np.bincount(painter.instances.ravel(), minlength=len(painter.classes))
    pixels[0] = 0
    seen = [int(n) for n in np.flatnonzero(pixels)]
    rename = np.zeros(len(painter.classes), np.uint16)
    rename[seen] = np.arange(1, len(seen) + 1)
    return rename[painter.instances], [Segment(n, painter.classes[old], is_thing=True) for n, old in enumerate(seen, 1)]
