"""Class colours over a photo, and where two predictions differ.

Images are (height, width, 3) uint8 RGB. A new kind of prediction registers itself with :func:`paint` and :func:`differing`.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import singledispatch
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from segship.core.errors import BadArgument
from segship.core.image import ImageArray
from segship.core.predictions import Prediction, SemanticMap
from segship.draw.colors import Color, palette
from segship.draw.legend import Entry, add_legend

_STRENGTH = 0.58
"""How much of the mix is class colour; the rest is photo."""
_PALE = 0.5
"""How much white the contours' colours hold. A contour keeps its own class's hue: a pole is often nothing but contour."""
_DIM, _LIFT = 0.45, 26
"""Contrast that is left of a dimmed photo, and its black: a night scene must not vanish."""
_MARK = (255, 0, 110)
"""A pink that neither photos nor dimmed photos hold, far from grey for every kind of eye."""


def overlay(
    image: ImageArray,
    prediction: Prediction,
    classes: Sequence[str],
    colors: Sequence[Color] | None = None,
    *,
    legend: bool = True,
) -> ImageArray:
    """The photo with class colours, thin contours between classes, and a legend strip under or beside it.

    ``image`` (h, w, 3) uint8 RGB; ``colors`` None takes the default palette. The result is (h, w, 3) uint8 RGB, larger
    by the legend's strip when ``legend``: names, colours and shares of the classes that occur, largest share first. Without
    it the picture holds no word, as is best for small ones: objects bear no names either.
    Raises :class:`BadArgument` when sizes differ, or a class id has no name.
    """
    _check(image, prediction.size)
    picture, entries = paint(prediction, image, tuple(classes), palette(classes, colors), names=legend)
    return add_legend(picture, entries) if legend else picture


def disagreement(image: ImageArray, first: Prediction, second: Prediction) -> ImageArray:
    """The dimmed grey photo, (h, w, 3) uint8 RGB, with every pixel in which two predictions differ in a strong pink."""
    _check(image, first.size)
    _check(image, second.size)
    return mark(image, differing(first, second).astype(np.float32))


def mark(image: ImageArray, strength: NDArray[np.float32]) -> ImageArray:
    """The dimmed grey photo with the marking colour laid over it, ``strength`` (h, w) from 0 to 1."""
    grey = np.asarray(Image.fromarray(image).convert("L"), np.float32) * _DIM + _LIFT
    alpha = strength[:, :, None]
    marked: ImageArray = (grey[:, :, None] * (1 - alpha) + np.array(_MARK, np.float32) * alpha + 0.5).astype(np.uint8)
    return marked


@singledispatch
def paint(
    prediction: Prediction, image: ImageArray, classes: tuple[str, ...], colors: tuple[Color, ...], *, names: bool = True
) -> tuple[ImageArray, list[Entry]]:
    """The painted photo and its legend, largest share first; one implementation for each type of prediction.

    ``names``: write names and scores beside objects.
    """
    raise BadArgument(f"{type(prediction).__name__} cannot be drawn: give a SemanticMap, Instances or a PanopticMap")


@paint.register
def _paint_semantic(
    prediction: SemanticMap, image: ImageArray, classes: tuple[str, ...], colors: tuple[Color, ...], *, names: bool = True
) -> tuple[ImageArray, list[Entry]]:
    counts = np.bincount(prediction.labels.reshape(-1), minlength=len(classes))
    check_classes(np.flatnonzero(counts), classes)
    table = np.array(colors, np.uint8)
    painted = Image.fromarray(table[prediction.labels])
    picture = np.array(Image.blend(Image.fromarray(image), painted, _STRENGTH))
    lines = contours(prediction.labels, thickness=max(1, round(min(prediction.size) / 640)))
    picture[lines] = pale(table)[prediction.labels[lines]]
    order = sorted(np.flatnonzero(counts).tolist(), key=lambda c: (-counts[c], c))
    return picture, [Entry(c, classes[c], colors[c], counts[c] / prediction.labels.size) for c in order]


def pale(table: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The contours' colours for class colours (n, 3)."""
    return (table * (1 - _PALE) + 255 * _PALE).astype(np.uint8)


def contours(labels: NDArray[np.integer[Any]], thickness: int) -> NDArray[np.bool_]:
    """Pixels (h, w) whose right or lower neighbour, up to ``thickness`` pixels away, is of another class."""
    lines = np.zeros(labels.shape, bool)
    for step in range(1, thickness + 1):
        lines[:, :-step] |= labels[:, :-step] != labels[:, step:]
        lines[:-step] |= labels[:-step] != labels[step:]
    return lines


@singledispatch
def differing(first: Prediction, second: Prediction) -> NDArray[np.bool_]:
    """Where two predictions of one image differ, (h, w) bool; one implementation for each type of prediction."""
    raise BadArgument(f"{type(first).__name__} cannot be compared: give two predictions of one task")


@differing.register
def _differing_semantic(first: SemanticMap, second: SemanticMap) -> NDArray[np.bool_]:
    check_comparable(first, second)
    return np.not_equal(first.labels, second.labels)


def check_classes(class_ids: NDArray[np.integer[Any]], classes: Sequence[str]) -> None:
    """Raise :class:`BadArgument` for a class id without a name."""
    largest = int(class_ids.max(initial=-1))
    if largest >= len(classes):
        raise BadArgument(f"the prediction holds class id {largest}, there are {len(classes)} class names: give all names")


def check_comparable(first: Prediction, second: Prediction) -> None:
    """Raise :class:`BadArgument` unless two predictions are of one type and one size."""
    if type(first) is not type(second):
        raise BadArgument(f"{type(first).__name__} and {type(second).__name__}: compare two predictions of one task")
    if first.size != second.size:
        raise BadArgument(f"predictions of {first.size} and {second.size} pixels (height, width): compare those of one image")


def _check(image: ImageArray, size: tuple[int, int]) -> None:
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8 or image.size == 0:
        raise BadArgument(f"an image must be (height, width, 3) uint8 RGB and not empty, got {image.shape} {image.dtype}")
    if image.shape[:2] != size:
        raise BadArgument(f"the image is {image.shape[:2]} and the prediction {size} (height, width): draw it on its own image")
