"""Data sets on disk: recognised by what is in the folder. A layout is one module here and one entry in :data:`LAYOUTS`."""

from __future__ import annotations

from pathlib import Path

from segship.core.errors import BadDataset
from segship.datasets import cityscapes, pairs, plain
from segship.datasets.dataset import Dataset, Layout, Sample, check_classes

__all__ = ["LAYOUTS", "Dataset", "Layout", "Sample", "check_classes", "open_dataset"]

LAYOUTS: tuple[Layout, ...] = (cityscapes, pairs, plain)
"""Asked in this order; the first that claims a folder reads it."""


def open_dataset(path: Path | str) -> Dataset:
    """The data set in the folder ``path``; its files are listed in a fixed order, none is decoded yet.

    Raises :class:`BadDataset` when the folder is missing, empty, of no known layout, or broken.
    """
    root = Path(path)
    if not root.exists():
        raise BadDataset(f"no folder at {root}: give a folder of images, with or without labels")
    if not root.is_dir():
        raise BadDataset(f"{root} is a file, expected a folder of images: give the folder that it is in")
    for layout in LAYOUTS:
        if layout.claims(root):
            return layout.read(root)
    raise BadDataset(f"{root} holds no image (JPEG, PNG, BMP, TIFF or WebP): give a folder of images, with or without labels")
