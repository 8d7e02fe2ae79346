"""Data sets on disk: recognised by what is in the folder. A layout is one module here and one entry in :data:`LAYOUTS`."""

from __future__ import annotations

from pathlib import Path

from segship.core.errors import BadDataset
from segship.core.spec import Task
from segship.datasets import cityscapes, coco_instances, coco_panoptic, pairs, plain
from segship.datasets.dataset import Dataset, Layout, Sample
from segship.datasets.fit import check_classes, for_model, in_model_classes

__all__ = ["LAYOUTS", "Dataset", "Layout", "Sample", "check_classes", "for_model", "in_model_classes", "open_dataset"]

LAYOUTS: tuple[Layout, ...] = (cityscapes, coco_panoptic, coco_instances, pairs, plain)
"""Asked in this order; the first that claims a folder reads it. ``plain`` claims any, so it is the last."""


def open_dataset(path: Path | str, task: Task | None = None) -> Dataset:
    """The data set in the folder ``path``, or of the COCO annotations file ``path``; no image or label is decoded yet.

    ``task``: whose truth to take where the folder has several (COCO's ``annotations`` has instances and panoptic).
    Raises :class:`BadDataset` when the folder is missing, empty, of no known layout, or broken.
    """
    root = Path(path)
    if not root.exists():
        raise BadDataset(f"no folder at {root}: give a folder of images, with or without labels")
    layouts = sorted(LAYOUTS, key=lambda layout: task != layout.TASK) if task else LAYOUTS
    if not root.is_dir():
        layouts = [layout for layout in layouts if layout in (coco_panoptic, coco_instances) and root.suffix == ".json"]
    for layout in layouts:
        if layout.claims(root):
            return layout.read(root)
    if not root.is_dir():
        raise BadDataset(f"{root} is a file, expected a folder of images: give the folder that it is in")
    raise BadDataset(f"{root} holds no image (JPEG, PNG, BMP, TIFF or WebP): give a folder of images, with or without labels")


def _asked(root: Path, task: Task | None) -> tuple[Layout, ...]:
    """Layouts in the order to ask them: those that can have the task's truth before those that cannot."""
    if not root.is_dir():
        return (coco_panoptic, coco_instances) if root.suffix == ".json" else ()
    if task is None:
        return LAYOUTS
    return (*sorted(LAYOUTS[:-1], key=lambda layout: layout.TASK not in (task, None)), LAYOUTS[-1])
