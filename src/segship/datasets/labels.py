"""Label files: 8-bit or 16-bit PNGs whose pixel values are ids."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image, UnidentifiedImageError

from segship.core.errors import BadDataset
from segship.core.predictions import LabelArray
from segship.datasets.images import READ_ERRORS, image_size


def read_label(
    file: Path, image: Path, *, n_classes: int | None, ignore: int | None, file_ids: dict[int, int] | None
) -> LabelArray:
    """Ids (height, width) of a label file, uint8 or uint16, after ``file_ids`` (value in the file to id).

    Raises :class:`BadDataset` when the file cannot be read, holds colours, has another size than ``image``, or has ids
    outside 0 ... ``n_classes`` - 1 that are not ``ignore``. Without ``n_classes`` every id passes.
    """
    label = _read_ids(file)
    check_size(file, label.shape, image)
    if file_ids is not None:
        return _mapped(file, label, file_ids)
    if n_classes is not None:
        _check_ids(file, label, {*range(n_classes)} | ({ignore} if ignore is not None else set()), ignore)
    return label


def _read_ids(file: Path) -> LabelArray:
    if not file.is_file():
        raise BadDataset(f"the label {file} is missing: copy it again, or remove its image")
    try:
        with Image.open(file) as picture:
            if picture.mode not in ("L", "P", "1", "I", "I;16", "I;16B"):
                raise BadDataset(
                    f"the label {file} holds {picture.mode} colours, expected an id per pixel (8-bit grey or palette PNG): "
                    "convert the colours to ids"
                )
            pixels = np.asarray(picture)  # of a palette image: the indices
    except READ_ERRORS as error:
        reason = "not an image file" if isinstance(error, UnidentifiedImageError) else str(error)
        raise BadDataset(f"the label {file} cannot be read ({reason}): copy or export it again") from error
    if pixels.dtype in (np.bool_, np.uint8):
        return pixels.astype(np.uint8)
    if pixels.min() < 0 or pixels.max() > 65535:
        raise BadDataset(f"the label {file} has ids from {pixels.min()} to {pixels.max()}, expected 0 to 65535: export it again")
    return pixels.astype(np.uint16)


def check_size(file: Path, size: tuple[int, ...], image: Path) -> None:
    """Raise :class:`BadDataset` unless the label's ``size`` is its image's, as stored or as its EXIF tag turns it."""
    if size not in (image_size(image), image_size(image, exif_orientation=True)):
        h, w = image_size(image)
        raise BadDataset(
            f"the label {file} has {size[0]} x {size[1]} pixels (height x width), its image {image.name} has {h} x {w}: "
            "give labels of the images' own size"
        )


def _check_ids(file: Path, label: LabelArray, known: set[int], ignore: int | None) -> None:
    unknown = sorted({int(value) for value in np.unique(label)} - known)
    if not unknown:
        return
    shown = ", ".join(map(str, unknown[:8])) + (", ..." if len(unknown) > 8 else "")
    classes = sorted(known - {ignore}) if ignore is not None else sorted(known)
    also = "" if ignore is None else f" and {ignore} for pixels to ignore"
    raise BadDataset(
        f"the label {file} has the unknown ids {shown}; expected {classes[0]} to {classes[-1]}{also}: "
        "mend the label, or `names` and `ignore` in classes.json"
    )


def _mapped(file: Path, label: LabelArray, file_ids: dict[int, int]) -> LabelArray:
    unknown = sorted({int(value) for value in np.unique(label)} - set(file_ids))
    if unknown:
        raise BadDataset(
            f"the label {file} has the values {', '.join(map(str, unknown[:8]))}, which its format does not know "
            f"(it has {min(file_ids)} to {max(file_ids)}): copy or export it again"
        )
    table = np.zeros(max(file_ids) + 1, np.uint16)
    table[list(file_ids)] = list(file_ids.values())
    return table[label].astype(np.uint8) if max(file_ids.values()) < 256 else table[label].astype(np.uint16)
