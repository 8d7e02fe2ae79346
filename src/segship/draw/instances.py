"""Instances over a photo, and where two lists of objects differ."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from segship.core.image import ImageArray
from segship.core.predictions import BoolArray, Instances, MaskCrop
from segship.draw.colors import Color
from segship.draw.legend import Entry
from segship.draw.names import box
from segship.draw.objects import Thing, paint_things
from segship.draw.paint import check_classes, check_comparable, differing, paint
from segship.tasks.matching import pairs


@paint.register
def _paint_instances(
    prediction: Instances, image: ImageArray, classes: tuple[str, ...], colors: tuple[Color, ...], *, names: bool = True
) -> tuple[ImageArray, list[Entry]]:
    """Each object in a tint of its class. In the legend, a class's share is that of the pixels under its objects."""
    check_classes(prediction.classes, classes)
    # of truth every score is 1: that is no news
    scored = bool(np.any(prediction.scores != 1))
    crowd = np.zeros(len(prediction), bool) if prediction.crowd is None else prediction.crowd
    things = [
        Thing(mask, int(class_id), float(score) if scored else None, bool(many))
        for mask, class_id, score, many in zip(prediction.masks, prediction.classes, prediction.scores, crowd, strict=True)
    ]
    canvas = Image.fromarray(image)
    paint_things(canvas, things, classes, colors, names=names)
    return np.array(canvas), _entries(prediction, classes, colors)


def _entries(prediction: Instances, classes: tuple[str, ...], colors: tuple[Color, ...]) -> list[Entry]:
    single = np.ones(len(prediction), bool) if prediction.crowd is None else ~prediction.crowd
    masks: dict[int, list[MaskCrop]] = {}
    for class_id, mask in zip(prediction.classes.tolist(), prediction.masks, strict=True):
        masks.setdefault(class_id, []).append(mask)
    shares = {class_id: _share(of_class, prediction.size) for class_id, of_class in masks.items()}
    counts = np.bincount(prediction.classes[single], minlength=len(classes)).tolist()
    order = sorted(shares, key=lambda c: (-shares[c], c))
    return [Entry(c, classes[c], colors[c], shares[c], counts[c]) for c in order]


def _share(masks: list[MaskCrop], size: tuple[int, int]) -> float:
    covered = np.zeros(size, bool)
    for mask in masks:
        _part(covered, mask)[...] |= mask.pixels
    return float(covered.mean())


@differing.register
def _differing_instances(first: Instances, second: Instances) -> NDArray[np.bool_]:
    """Pixels at which the two do not show the same objects.

    The same are objects of one class with a mask IoU above one half, paired one to one. A pixel differs when it lies in one
    mask of such a pair and not in the other, or in an object without partner.
    """
    check_comparable(first, second)
    differs = np.zeros(first.size, bool)
    found = pairs(first, second)
    for i, j, _ in found:
        _mark_pair(differs, first.masks[i], second.masks[j])
    for objects, paired in ((first, {i for i, _, _ in found}), (second, {j for _, j, _ in found})):
        for index in set(range(len(objects))) - paired:
            _part(differs, objects.masks[index])[...] |= objects.masks[index].pixels
    return differs


def _mark_pair(differs: BoolArray, first: MaskCrop, second: MaskCrop) -> None:
    """Mark where one of the two masks is and the other is not."""
    x0, y0 = np.minimum(box(first), box(second))[:2].tolist()
    x1, y1 = np.maximum(box(first), box(second))[2:].tolist()
    either = np.zeros((y1 - y0, x1 - x0), bool)
    for mask in (first, second):
        _part(either, MaskCrop(mask.top - y0, mask.left - x0, mask.pixels))[...] ^= mask.pixels
    differs[y0:y1, x0:x1] |= either


def _part(whole: BoolArray, mask: MaskCrop) -> BoolArray:
    """The part of an image that a crop covers, as a view."""
    x0, y0, x1, y1 = box(mask)
    return whole[y0:y1, x0:x1]
