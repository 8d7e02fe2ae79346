"""COCO instances: images and one JSON with a polygon or run lengths for each object."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import msgspec

from segship.core.errors import BadDataset
from segship.core.predictions import Instances
from segship.core.spec import Size, Task
from segship.datasets.coco_file import (
    CocoFile,
    Key,
    ObjectRow,
    colors_of,
    left_out,
    read_file,
    sample_names,
    unknown_categories,
)
from segship.datasets.coco_folder import choose, find_files, find_folder
from segship.datasets.dataset import Dataset, Sample
from segship.datasets.labels import check_size
from segship.datasets.objects import box_of, draw, true_objects

NAME = "coco-instances"
TASK: Task = "instance"


def claims(root: Path) -> bool:
    """Whether a JSON with COCO's images, annotations and categories is here, or in ``annotations``."""
    return bool(find_files(root, TASK))


def read(root: Path) -> Dataset:
    """The images of the file that are on disk, in its order. Classes are the categories, by id."""
    path, choice = choose(find_files(root, TASK), TASK)
    file = read_file(path, ObjectRow)
    folder, present = find_folder([each.file_name for each in file.pictures], root, path)
    names = sample_names([each for each in file.pictures if each.file_name in present])
    missing = {each.file_name for each in file.pictures} - present
    if not names:
        raise BadDataset(f"none of the {len(missing)} images of {path} is in {root} (such as {min(missing)}): put them beside it")
    categories = sorted(file.categories, key=lambda each: each.id)
    objects, notes = _by_image(file)
    return Dataset(
        root=root,
        layout=NAME,
        task=TASK,
        classes=tuple(each.name for each in categories),
        colors=colors_of(categories),
        ignore=None,
        samples=tuple(Sample(name, folder / picture.file_name, path) for name, picture in names.items()),
        category_ids=tuple(each.id for each in categories),
        reader=_Objects({name: ((each.height, each.width), objects.get(each.id, ())) for name, each in names.items()}),
        notes=(*choice, *left_out(missing, len(file.pictures), "images are not on disk"), *notes),
    )


@dataclass(frozen=True)
class _Objects:
    """Size and objects of each image, by the sample's name."""

    of: Mapping[str, tuple[Size, tuple[ObjectRow, ...]]]

    def __call__(self, dataset: Dataset, sample: Sample) -> Instances:
        size, rows = self.of[sample.name]
        assert dataset.category_ids is not None
        assert sample.label is not None
        check_size(sample.label, size, sample.image)
        class_of = {category: class_id for class_id, category in enumerate(dataset.category_ids)}
        try:
            masks = [draw(row.segmentation, size) for row in rows]
        except (ValueError, msgspec.DecodeError) as error:
            raise BadDataset(f"{sample.label}: an object of the image {sample.image.name} cannot be used: {error}") from error
        boxes = [_corners(row) if len(row.bbox) == 4 else box_of(mask) for row, mask in zip(rows, masks, strict=True)]
        return true_objects(size, masks, [class_of[row.category_id] for row in rows], [row.iscrowd > 0 for row in rows], boxes)


def _corners(row: ObjectRow) -> tuple[float, float, float, float]:
    x, y, width, height = row.bbox
    return x, y, x + width, y + height


def _by_image(file: CocoFile[ObjectRow]) -> tuple[dict[Key, tuple[ObjectRow, ...]], tuple[str, ...]]:
    """The objects of each image, and notes on those of unknown images or categories: pycocotools leaves them out too."""
    images, categories = {each.id for each in file.pictures}, {each.id for each in file.categories}
    strays = sum(row.image_id not in images for row in file.rows)
    unknown = Counter(row.category_id for row in file.rows if row.category_id not in categories)
    objects: dict[Key, list[ObjectRow]] = {}
    for row in file.rows:
        if row.category_id in categories:
            objects.setdefault(row.image_id, []).append(row)
    notes: list[str] = []
    notes += [f"{strays} objects of images that {file.path.name} does not list were left out"] if strays else []
    notes += unknown_categories(file.path, unknown, "objects")
    return {image: tuple(rows) for image, rows in objects.items()}, tuple(notes)
