"""Examples as small pictures inside the page: photo, PyTorch's overlay, the engine's, and where they differ."""

from __future__ import annotations

import io
from base64 import b64encode
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from segship.core.errors import BadArgument
from segship.core.image import ImageArray
from segship.core.predictions import Prediction
from segship.draw import Color, Entry, differing, mark, paint, palette

_WIDEST = 480
"""Longer side of a picture in the page, pixels: sharp at half that size on a dense screen, about 25 kB."""
_QUALITY = 72
_BOOST = 4.0
"""How much stronger than true a differing pixel is drawn in the small picture, where alone it would be lost."""
_RIM = 0.4
"""Strength of the rim that it gets for the same reason, one small pixel wide."""


@dataclass(frozen=True)
class ExamplePicture:
    """One image of the report, as four pictures of one size, each (h, w, 3) uint8 RGB.

    ``reference`` and ``candidate`` are overlays, ``disagreement`` marks the pixels in which they differ; ``agreement``
    is in percent of pixels; ``legend`` names the classes that occur, with their colours.
    """

    name: str
    photo: ImageArray
    reference: ImageArray
    candidate: ImageArray
    disagreement: ImageArray
    agreement: float
    legend: tuple[tuple[str, Color], ...] = ()

    def __post_init__(self) -> None:
        shapes = {picture.shape for picture in (self.photo, self.reference, self.candidate, self.disagreement)}
        if len(shapes) != 1:
            raise BadArgument(f"the pictures of {self.name!r} differ in size ({sorted(shapes)}): draw them without legend")


def example_picture(
    name: str,
    photo: ImageArray,
    reference: Prediction,
    candidate: Prediction,
    classes: Sequence[str],
    colors: Sequence[Color] | None = None,
) -> ExamplePicture:
    """Draw one example for the report, already small. ``photo`` is (h, w, 3) uint8 RGB, both predictions are of its size."""
    differs = differing(reference, candidate)
    expected, seen = paint(reference, photo, tuple(classes), palette(classes, colors), names=False)
    found, also_seen = paint(candidate, photo, tuple(classes), palette(classes, colors), names=False)
    size = _small_size(photo)
    small = _shrunk(photo, size)
    return ExamplePicture(
        name=name,
        photo=small,
        reference=_shrunk(expected, size),
        candidate=_shrunk(found, size),
        disagreement=mark(small, _visible(differs, size)),
        agreement=100 * float(1 - differs.mean()),
        legend=tuple((entry.name, entry.color) for entry in _either(seen, also_seen)),
    )


def _visible(differs: NDArray[np.bool_], size: tuple[int, int]) -> NDArray[np.float32]:
    """Strength of the mark in the small picture, (h, w) from 0 to 1."""
    share = np.asarray(Image.fromarray(differs.astype(np.float32)).resize(size, Image.Resampling.BOX))
    strong = np.minimum(share * np.float32(_BOOST), np.float32(1))
    rim = Image.fromarray((strong * 255).astype(np.uint8)).filter(ImageFilter.MaxFilter(3))
    visible: NDArray[np.float32] = np.maximum(strong, np.asarray(rim, np.float32) * np.float32(_RIM / 255))
    return visible


def _either(first: list[Entry], second: list[Entry]) -> list[Entry]:
    """The entries of both legends, each class once."""
    return first + [entry for entry in second if entry.class_id not in {known.class_id for known in first}]


def _small_size(photo: ImageArray) -> tuple[int, int]:
    """(width, height) of the small picture; a picture is never made larger."""
    height, width = photo.shape[:2]
    factor = min(1.0, _WIDEST / max(height, width))
    return max(1, round(width * factor)), max(1, round(height * factor))


def _shrunk(picture: ImageArray, size: tuple[int, int]) -> ImageArray:
    return np.asarray(Image.fromarray(picture).resize(size, Image.Resampling.LANCZOS))


class Panel(NamedTuple):
    """One picture on the page."""

    caption: str
    source: str


class Example(NamedTuple):
    """One row of pictures on the page; ``ratio`` is width over height."""

    name: str
    agreement: float
    ratio: float
    panels: tuple[Panel, ...]


def examples(pictures: Sequence[ExamplePicture], engine: str) -> list[Example]:
    """The pictures in the order given, encoded; ``engine`` is the name over the engine's column."""
    return [_example(picture, engine) for picture in pictures]


def legend(pictures: Sequence[ExamplePicture]) -> list[tuple[str, str]]:
    """Name and CSS colour of each class that occurs in any of the pictures."""
    return [(name, css(color)) for name, color in dict(entry for picture in pictures for entry in picture.legend).items()]


def css(color: Color) -> str:
    """``#rrggbb``."""
    return "#{:02x}{:02x}{:02x}".format(*color)


def _example(picture: ExamplePicture, engine: str) -> Example:
    columns = (
        ("photo", picture.photo),
        ("PyTorch", picture.reference),
        (engine, picture.candidate),
        ("where they differ", picture.disagreement),
    )
    height, width = picture.photo.shape[:2]
    panels = tuple(Panel(caption, _data_url(pixels)) for caption, pixels in columns)
    return Example(picture.name, picture.agreement, width / height, panels)


def _data_url(pixels: ImageArray) -> str:
    """The picture inside its own address, as WebP."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).resize(_small_size(pixels), Image.Resampling.LANCZOS).save(buffer, "WEBP", quality=_QUALITY, method=4)
    return f"data:image/webp;base64,{b64encode(buffer.getvalue()).decode()}"
