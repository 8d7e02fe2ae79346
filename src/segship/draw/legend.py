"""The strip that says which colour is which class. It lies under or beside the picture and hides nothing of it."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from segship.core.image import ImageArray
from segship.draw.colors import Color

_PAPER, _INK, _FAINT = (255, 255, 255), (28, 30, 34), (112, 117, 126)
_LONGEST_NAME = 32
_SMALLEST_FONT, _LARGEST_FONT = 12, 36

Font = ImageFont.FreeTypeFont | ImageFont.ImageFont


class Entry(NamedTuple):
    """One line of a legend: class id and name, its colour, its share of the picture, 0 to 1, and how many objects it has
    (None for what is not counted)."""

    class_id: int
    name: str
    color: Color
    share: float
    objects: int | None = None


class _Line(NamedTuple):
    """An entry in pixels: its texts, and where the second one starts."""

    color: Color
    name: str
    share: str
    name_width: float
    width: float


def add_legend(picture: ImageArray, entries: Sequence[Entry]) -> ImageArray:
    """The picture (h, w, 3) uint8 with a legend strip, in the order of ``entries``; unchanged where there are none.

    The strip lies under the picture when its widest entry fits there, else beside it. The picture stays at the top left,
    pixel for pixel.
    """
    if not entries:
        return picture
    height, width = picture.shape[:2]
    size = min(max(min(height, width) // 36, _SMALLEST_FONT), _LARGEST_FONT)
    font = ImageFont.load_default(size)
    lines = [_line(entry, font, size) for entry in entries]
    column = max(line.width for line in lines) + size
    fits = column + size <= width
    columns = int((width - size) // column) if fits else 1
    rows = -(-len(lines) // columns)
    below = rows * _row(size) + size
    sheet_size = (width, height + below) if fits else (width + int(column + size), max(height, below))
    sheet = Image.new("RGB", sheet_size, _PAPER)
    sheet.paste(Image.fromarray(picture), (0, 0))
    corner = (size, height + size // 2) if fits else (width + size, size // 2)
    _write(ImageDraw.Draw(sheet), lines, corner, columns, (width - size) // columns if fits else 0, font, size)
    return np.asarray(sheet)


def _write(
    sheet: ImageDraw.ImageDraw, lines: list[_Line], corner: tuple[int, int], columns: int, step: int, font: Font, size: int
) -> None:
    """Swatch, name and share of each line, row by row."""
    for index, line in enumerate(lines):
        x = corner[0] + index % columns * step
        y = corner[1] + index // columns * _row(size)
        middle = y + _row(size) / 2
        swatch = (x, middle - size * 0.42, x + size * 0.95, middle + size * 0.42)
        sheet.rounded_rectangle(swatch, radius=size * 0.18, fill=line.color, outline=_FAINT if min(line.color) > 200 else None)
        sheet.text((x + size * 1.45, middle), line.name, _INK, font, anchor="lm")
        sheet.text((x + size * 1.9 + line.name_width, middle), line.share, _FAINT, font, anchor="lm")


def _line(entry: Entry, font: Font, size: int) -> _Line:
    name, share = printable(entry.name) or f"class {entry.class_id}", percent(entry.share)
    if entry.objects is not None:
        name = f"{name} ({entry.objects})"
    name_width = font.getlength(name)
    return _Line(entry.color, name, share, name_width, size * 1.9 + name_width + font.getlength(share))


def _row(size: int) -> int:
    return round(size * 1.6)


def printable(name: str) -> str:
    """What Pillow's built-in font can write of a class name: ASCII, accents dropped, on one line, not too long.

    Empty when nothing is left of it.
    """
    letters = unicodedata.normalize("NFKD", name.replace("ß", "ss")).encode("ascii", "ignore").decode()
    words = " ".join("".join(letter if letter.isprintable() else " " for letter in letters).split())
    return words if len(words) <= _LONGEST_NAME else words[: _LONGEST_NAME - 3].rstrip() + "..."


def percent(share: float) -> str:
    """A share of the picture, 0 to 1, in two or three figures."""
    if share < 0.001:
        return "< 0.1 %"
    return f"{100 * share:.0f} %" if share >= 0.0995 else f"{100 * share:.1f} %"
