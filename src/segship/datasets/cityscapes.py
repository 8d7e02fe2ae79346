"""Cityscapes: ``leftImg8bit/SPLIT/CITY/NAME_leftImg8bit.png`` and ``gtFine/SPLIT/CITY/NAME_gtFine_label{TrainIds,Ids}.png``.

Ids, names and colours: https://github.com/mcordts/cityscapesScripts, ``cityscapesscripts/helpers/labels.py``. Evaluation
uses 19 classes; every other id is ignored (255). The split ``test`` has no public labels (its gtFine files are dummies).
"""

from __future__ import annotations

from pathlib import Path

from segship.core.errors import BadDataset
from segship.core.spec import Task
from segship.datasets.dataset import Color, Dataset, Sample
from segship.datasets.images import images_below

NAME = "cityscapes"
TASK: Task = "semantic"
IGNORE = 255

_CLASSES: tuple[tuple[int, str, Color], ...] = (  # id in labelIds files, name, colour; the position is the train id
    (7, "road", (128, 64, 128)),
    (8, "sidewalk", (244, 35, 232)),
    (11, "building", (70, 70, 70)),
    (12, "wall", (102, 102, 156)),
    (13, "fence", (190, 153, 153)),
    (17, "pole", (153, 153, 153)),
    (19, "traffic light", (250, 170, 30)),
    (20, "traffic sign", (220, 220, 0)),
    (21, "vegetation", (107, 142, 35)),
    (22, "terrain", (152, 251, 152)),
    (23, "sky", (70, 130, 180)),
    (24, "person", (220, 20, 60)),
    (25, "rider", (255, 0, 0)),
    (26, "car", (0, 0, 142)),
    (27, "truck", (0, 0, 70)),
    (28, "bus", (0, 60, 100)),
    (31, "train", (0, 80, 100)),
    (32, "motorcycle", (0, 0, 230)),
    (33, "bicycle", (119, 11, 32)),
)
CLASSES = tuple(name for _, name, _ in _CLASSES)
COLORS = tuple(color for _, _, color in _CLASSES)

_TRAIN_ID_OF = dict.fromkeys((*range(34), 255), IGNORE) | {entry[0]: index for index, entry in enumerate(_CLASSES)}
"""labelIds to train ids; 255 is how -1 (license plate) reads where a converter drew it."""

_IMAGE_END, _LABEL_ENDS = "_leftImg8bit", ("_gtFine_labelTrainIds.png", "_gtFine_labelIds.png")


def claims(root: Path) -> bool:
    """Whether ``leftImg8bit`` is in the folder, is the folder, or is above it (a split or a city)."""
    return _images_folder(root) is not None


def read(root: Path) -> Dataset:
    """The images of one split (``val`` when there are several) with their fine labels, sorted by path."""
    folder, notes = _split_folder(root)
    files = [file for file in images_below(folder) if file.stem.endswith(_IMAGE_END)]
    if not files:
        raise BadDataset(f"{folder} holds no *{_IMAGE_END}.png: unpack leftImg8bit_trainvaltest.zip there")
    ends = [end for end in _LABEL_ENDS if all(_label_file(file, end).is_file() for file in files)]
    found = [end for end in _LABEL_ENDS if any(_label_file(file, end).is_file() for file in files)]
    if found and not ends:
        missing = next(label for file in files if not (label := _label_file(file, found[0])).is_file())
        raise BadDataset(f"{missing} is missing while other images have labels: unpack gtFine_trainvaltest.zip again")
    return Dataset(
        root=root,
        layout=NAME,
        task="semantic",
        classes=CLASSES,
        colors=COLORS,
        ignore=IGNORE,
        samples=tuple(
            Sample(file.stem.removesuffix(_IMAGE_END), file, _label_file(file, ends[0]) if ends else None) for file in files
        ),
        file_ids=dict(_TRAIN_ID_OF) if ends and ends[0] == _LABEL_ENDS[1] else None,
        notes=notes,
    )


def _images_folder(root: Path) -> Path | None:
    if (root / "leftImg8bit").is_dir():
        return root / "leftImg8bit"
    path = root.resolve()
    return next((place for place in (path, *list(path.parents)[:2]) if place.name == "leftImg8bit"), None)


def _split_folder(root: Path) -> tuple[Path, tuple[str, ...]]:
    """The folder to take images from, and a note when that is a choice."""
    images = _images_folder(root)
    if images is None or images not in (root / "leftImg8bit", root.resolve()):
        return root.resolve(), ()  # the caller named a split or a city
    splits = sorted(entry.name for entry in images.iterdir() if entry.is_dir() and not entry.name.startswith("."))
    if len(splits) < 2:
        return images, ()
    if "val" not in splits:
        raise BadDataset(f"{images} holds the splits {', '.join(splits)} and no val: give one of these folders")
    return images / "val", (f"of the splits {', '.join(splits)}, val was taken",)


def _label_file(image: Path, end: str) -> Path:
    """The label of an image: the same path below ``gtFine`` instead of the last ``leftImg8bit`` folder."""
    parts = list(image.parts)
    parts[len(parts) - 1 - parts[::-1].index("leftImg8bit")] = "gtFine"
    return Path(*parts).with_name(image.stem.removesuffix(_IMAGE_END) + end)
