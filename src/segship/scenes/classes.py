"""The eleven classes of a synthetic street, their legend colours, and which of them are countable."""

from __future__ import annotations

from typing import Final

SKY: Final = 0
BUILDING: Final = 1
POLE: Final = 2
ROAD: Final = 3
PAVEMENT: Final = 4
VEGETATION: Final = 5
SIGN: Final = 6
FENCE: Final = 7
CAR: Final = 8
PEDESTRIAN: Final = 9
CYCLIST: Final = 10

CLASSES: Final[tuple[str, ...]] = (
    "sky",
    "building",
    "pole",
    "road",
    "pavement",
    "vegetation",
    "sign",
    "fence",
    "car",
    "pedestrian",
    "cyclist",
)
"""Class names; the position is the class id."""

COLORS: Final[tuple[tuple[int, int, int], ...]] = (
    (142, 202, 230),
    (120, 113, 130),
    (222, 184, 135),
    (94, 60, 108),
    (231, 138, 195),
    (79, 148, 75),
    (255, 209, 58),
    (166, 108, 68),
    (38, 96, 214),
    (220, 48, 62),
    (0, 178, 169),
)
"""Legend colours, RGB, by class id."""

THINGS: Final[tuple[int, ...]] = (SIGN, CAR, PEDESTRIAN, CYCLIST)
"""Ids of the classes whose objects are counted; every other class is stuff."""

IGNORE: Final = 255
"""The id that means "no truth here". Scenes label every pixel; the data set format wants the number."""
