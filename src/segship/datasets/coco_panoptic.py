"""COCO panoptic: images, one JSON, and a folder of PNGs whose colours are segment ids.

Format: https://cocodataset.org/#format-data, and ``rgb2id`` of https://github.com/cocodataset/panopticapi.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from segship.core.errors import BadDataset
from segship.core.predictions import PanopticMap, Segment
from segship.core.spec import Task
from segship.datasets.coco_file import (
    Category,
    CocoFile,
    Key,
    PanopticRow,
    SegmentRow,
    colors_of,
    left_out,
    read_file,
    sample_names,
    unknown_categories,
)
from segship.datasets.coco_folder import choose, find_files, find_folder
from segship.datasets.dataset import Dataset, Sample
from segship.datasets.images import READ_ERRORS
from segship.datasets.labels import check_size

NAME = "coco-panoptic"
TASK: Task = "panoptic"


def claims(root: Path) -> bool:
    """Whether a JSON with COCO's images, annotations with ``segments_info`` and categories is here, or in ``annotations``."""
    return bool(find_files(root, TASK))


def read(root: Path) -> Dataset:
    """The images that are on disk with their PNG, in the file's order.

    Classes are the categories, things before stuff and each by id, as detectron2 numbers them.
    """
    path, choice = choose(find_files(root, TASK), TASK)
    file = read_file(path, PanopticRow)
    maps, images, notes = _places(file, root)
    categories = sorted(file.categories, key=lambda each: (not _is_thing(path, each), each.id))
    names = sample_names([each for each in file.pictures if each.id in maps and each.file_name in images])
    label_of = {name: maps[each.id] for name, each in names.items()}
    row_of = {row.image_id: row for row in file.rows}
    known = {each.id for each in file.categories}
    unknown = Counter(each.category_id for row in file.rows for each in row.segments_info if each.category_id not in known)
    return Dataset(
        root=root,
        layout=NAME,
        task=TASK,
        classes=tuple(each.name for each in categories),
        colors=colors_of(categories),
        ignore=None,
        samples=tuple(Sample(name, images[each.file_name], label_of[name]) for name, each in names.items()),
        category_ids=tuple(each.id for each in categories),
        things=tuple(_is_thing(path, each) for each in categories),
        reader=_Segments({name: row_of[each.id].segments_info for name, each in names.items()}),
        notes=(*choice, *notes, *unknown_categories(path, unknown, "segments")),
    )


@dataclass(frozen=True)
class _Segments:
    """What the ids of each PNG mean, by the sample's name."""

    of: Mapping[str, tuple[SegmentRow, ...]]

    def __call__(self, dataset: Dataset, sample: Sample) -> PanopticMap:
        """Segments are numbered from 1 in the file's order; those of unknown categories become void."""
        assert sample.label is not None
        assert dataset.category_ids is not None
        assert dataset.things is not None
        ids = _read_ids(sample.label)
        check_size(sample.label, ids.shape, sample.image)
        present, place = np.unique(ids, return_inverse=True)
        listed = self.of[sample.name]
        _check_listed(sample.label, set(present.tolist()) - {0}, [each.id for each in listed])
        class_of = {category: class_id for class_id, category in enumerate(dataset.category_ids)}
        rows = [row for row in listed if row.category_id in class_of]
        number = {row.id: n for n, row in enumerate(rows, 1)}
        table = np.array([number.get(each, 0) for each in present.tolist()], np.int32)
        segments = (
            Segment(n, class_of[row.category_id], dataset.things[class_of[row.category_id]], crowd=row.iscrowd > 0)
            for n, row in enumerate(rows, 1)
        )
        return PanopticMap(table[place].reshape(ids.shape), tuple(segments))


def _is_thing(path: Path, category: Category) -> bool:
    if category.isthing is None:
        raise BadDataset(f"{path}: the category {category.name} has no isthing (0 or 1): export it again")
    return category.isthing > 0


def _places(file: CocoFile[PanopticRow], root: Path) -> tuple[dict[Key, Path], dict[str, Path], tuple[str, ...]]:
    """The PNG of each image id, the path of each image name, and notes on what is not on disk."""
    path, base = file.path, root if root.is_dir() else root.parent
    # the PNGs lie in a folder of the JSON's name (panopticapi); without, two folders of equal names could be mixed up
    own = [place for place in (path.with_suffix(""), base / path.stem) if place.is_dir()]
    png_folder, pngs = find_folder([row.file_name for row in file.rows], root, path, first=own)
    image_folder, images = find_folder([each.file_name for each in file.pictures], root, path, without=png_folder)
    maps = {row.image_id: png_folder / row.file_name for row in file.rows if row.file_name in pngs}
    complete = {each.file_name for each in file.pictures if each.file_name in images and each.id in maps}
    missing = {each.file_name for each in file.pictures} - complete
    if not complete:
        raise BadDataset(
            f"of the {len(missing)} images of {path} none is in {base} with its panoptic PNG ({len(images)} images, {len(pngs)} "
            f"PNGs found): put the images beside the JSON, and the PNGs into {path.with_suffix('')}"
        )
    notes = left_out(missing, len(file.pictures), "images are not on disk with their panoptic PNG")
    return maps, {name: image_folder / name for name in images}, notes


def _read_ids(file: Path) -> NDArray[np.int32]:
    try:
        with Image.open(file) as picture:
            if picture.mode != "RGB":
                raise BadDataset(f"the panoptic PNG {file} is of the mode {picture.mode}, expected RGB: export it again")
            colors = np.asarray(picture).astype(np.int32)
    except READ_ERRORS as error:
        raise BadDataset(f"the panoptic PNG {file} cannot be read ({error}): copy or export it again") from error
    return colors[..., 0] + 256 * colors[..., 1] + 65536 * colors[..., 2]


def _check_listed(file: Path, present: set[int], listed: list[int]) -> None:
    for found, expected, where in ((present, set(listed), "is not in the JSON"), (set(listed), present, "has no pixel")):
        wrong = sorted(found - expected)
        if wrong:
            raise BadDataset(f"the panoptic PNG {file}: its segment {wrong[0]} {where}: PNG and JSON must be of one export")
    if len(set(listed)) < len(listed):
        raise BadDataset(f"the panoptic PNG {file}: the JSON lists a segment twice: export it again")
