"""Which files of a folder are images, in an order that is the same on every machine, and how large they are."""

from __future__ import annotations

from pathlib import Path

from PIL import Image, UnidentifiedImageError

from segship.core.errors import BadDataset
from segship.core.image import SUFFIXES
from segship.core.spec import Size

READ_ERRORS = (UnidentifiedImageError, OSError, SyntaxError, ValueError, Image.DecompressionBombError)
"""What Pillow raises for files that are no intact images."""

_EXIF_ORIENTATION = 0x0112
_TURNED = 5
"""Orientations from 5 on lie on their side."""


def images_in(folder: Path) -> list[Path]:
    """Image files directly in ``folder``, by name; hidden files (``._a.jpg``) are none."""
    return sorted(file for file in folder.iterdir() if _is_image(file))


def images_below(folder: Path) -> list[Path]:
    """Image files in ``folder`` and in folders inside it, by path; nothing hidden."""
    return sorted((file for file in folder.rglob("*") if _is_image(file) and not _hidden(file, folder)), key=Path.as_posix)


def image_size(file: Path, *, exif_orientation: bool = False) -> Size:
    """(height, width) from the file's header, without decoding; ``exif_orientation``: after turning as the EXIF tag says.

    Raises :class:`BadDataset` when the file cannot be read.
    """
    try:
        with Image.open(file) as picture:
            w, h = picture.size
            turned = exif_orientation and picture.getexif().get(_EXIF_ORIENTATION, 1) >= _TURNED
    except READ_ERRORS as error:
        raise BadDataset(f"{file} cannot be read as an image: give an intact JPEG or PNG file, or remove it") from error
    return (w, h) if turned else (h, w)


def _is_image(file: Path) -> bool:
    return file.suffix.lower() in SUFFIXES and not file.name.startswith(".") and file.is_file()


def _hidden(file: Path, root: Path) -> bool:
    return any(part.startswith(".") for part in file.relative_to(root).parts)
