"""Panoptic maps over a photo, and where two of them differ."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from segship.core.image import ImageArray
from segship.core.predictions import MaskCrop, PanopticMap
from segship.draw.colors import Color
from segship.draw.legend import Entry
from segship.draw.objects import Thing, paint_things
from segship.draw.paint import check_classes, check_comparable, contours, differing, paint, pale
from segship.tasks.panoptic_quality import agreeing, places

_STUFF = 0.5
"""How much of the mix is a stuff class's colour: less than in a semantic map, so that the things stand out."""
_VOID = 0.55
"""How bright the photo is where there is no segment."""


@paint.register
def _paint_panoptic(
    prediction: PanopticMap, image: ImageArray, classes: tuple[str, ...], colors: tuple[Color, ...], *, names: bool = True
) -> tuple[ImageArray, list[Entry]]:
    """Stuff in its class's colour, each thing in a tint of its class, the photo dimmed where there is nothing."""
    class_ids = np.array([segment.class_id for segment in prediction.segments], np.int64)
    check_classes(class_ids, classes)
    place = places(prediction)
    canvas = Image.fromarray(_paint_stuff(prediction, image, place, colors))
    paint_things(canvas, _things(prediction, place), classes, colors, names=names)
    pixels = np.bincount(place.reshape(-1), minlength=len(class_ids) + 1)[1:]
    return np.array(canvas), _entries(prediction, pixels, classes, colors)


def _paint_stuff(prediction: PanopticMap, image: ImageArray, place: NDArray[np.int32], colors: tuple[Color, ...]) -> ImageArray:
    """Everything but the things: there the photo stays as it is."""
    stuff = [None if segment.is_thing else colors[segment.class_id] for segment in prediction.segments]
    table = np.array([(0, 0, 0), *(color or (0, 0, 0) for color in stuff)], np.uint8)
    strength = np.array([1 - _VOID, *(_STUFF if color else 0 for color in stuff)], np.float32)
    alpha = Image.fromarray((strength * 255).round().astype(np.uint8).take(place))
    picture = np.array(Image.composite(Image.fromarray(table.take(place, axis=0)), Image.fromarray(image), alpha))
    is_stuff = np.array([False, *(color is not None for color in stuff)])
    lines = contours(place, max(1, round(min(prediction.size) / 640)))
    lines &= is_stuff.take(place)
    picture[lines] = pale(table)[place[lines]]
    return picture


def _things(prediction: PanopticMap, place: NDArray[np.int32]) -> list[Thing]:
    boxes = _boxes(place, len(prediction.segments) + 1)
    things = []
    for number, segment in enumerate(prediction.segments, 1):
        if segment.is_thing:
            top, left, bottom, right = boxes[number].tolist()
            mask = MaskCrop(top, left, place[top:bottom, left:right] == number)
            things.append(Thing(mask, segment.class_id, segment.score, segment.crowd))
    return things


def _boxes(place: NDArray[np.int32], n: int) -> NDArray[np.int64]:
    """Top, left, bottom, right of each segment, (n, 4), from the stretches of each row: one pass, however many there are."""
    starts = np.ones(place.shape, bool)
    starts[:, 1:] = place[:, 1:] != place[:, :-1]
    y, x = np.nonzero(starts)
    end = np.append(np.where(y[1:] == y[:-1], x[1:], place.shape[1]), place.shape[1])
    of = place[y, x]
    boxes = np.tile(np.array([*place.shape, 0, 0], np.int64), (n, 1))
    np.minimum.at(boxes[:, 0], of, y)
    np.minimum.at(boxes[:, 1], of, x)
    np.maximum.at(boxes[:, 2], of, y + 1)
    np.maximum.at(boxes[:, 3], of, end)
    return boxes


def _entries(
    prediction: PanopticMap, pixels: NDArray[np.int64], classes: tuple[str, ...], colors: tuple[Color, ...]
) -> list[Entry]:
    shares: dict[int, float] = {}
    counts: dict[int, int] = {}
    for segment, n in zip(prediction.segments, pixels.tolist(), strict=True):
        shares[segment.class_id] = shares.get(segment.class_id, 0) + n / prediction.ids.size
        if segment.is_thing:
            counts[segment.class_id] = counts.get(segment.class_id, 0) + (not segment.crowd)
    order = sorted(shares, key=lambda c: (-shares[c], c))
    return [Entry(c, classes[c], colors[c], shares[c], counts.get(c)) for c in order]


@differing.register
def _differing_panoptic(first: PanopticMap, second: PanopticMap) -> NDArray[np.bool_]:
    """Pixels whose class differs, or whose objects are not the same: those with more than half of their union in common."""
    check_comparable(first, second)
    return np.logical_not(agreeing(first, second))
