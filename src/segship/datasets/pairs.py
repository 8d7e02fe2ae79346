"""Images beside their labels, with a ``classes.json`` here or one level up.

Which file is what:

* the label of ``NAME.jpg`` (or any suffix but ``.png``) is ``NAME.png``;
* the label of an image ``NAME.png`` is ``NAME_label.png``.

A folder labels all of its images or none. Where ``classes.json`` says ``"task": "instance"``, the values are object ids
(0: none) and all objects are of its one class; ``ignore`` is then the id of a region of many objects (a crowd).
"""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

from segship.core.errors import BadDataset
from segship.core.predictions import Instances
from segship.datasets.classes_file import EXAMPLE, ClassesFile, find_classes_file, read_classes_file
from segship.datasets.dataset import Dataset, Sample
from segship.datasets.images import images_below, images_in
from segship.datasets.objects import box_of, crops_by_id, true_objects

NAME = "pairs"
TASK = None


def claims(root: Path) -> bool:
    """Whether a ``classes.json`` is here or one level up, or images lie beside PNGs of the same name."""
    return find_classes_file(root) is not None or bool(_samples(images_in(root))[0])


def read(root: Path) -> Dataset:
    """The pairs in ``root`` (not below it), sorted by name."""
    classes_file = find_classes_file(root)
    if classes_file is None:
        raise BadDataset(f"{root} holds images beside labels but no classes.json here or one level up: write one like {EXAMPLE}")
    classes = read_classes_file(classes_file)
    labelled, unlabelled = _samples(images_in(root))
    if labelled and unlabelled:
        raise BadDataset(_half_labelled(unlabelled, n_labelled=len(labelled)))
    if not labelled and not unlabelled:
        raise BadDataset(_no_image(root))
    if labelled and classes.task != "semantic":
        _check_task(classes_file, classes)
    for first, second in pairwise(labelled or unlabelled):
        if first.name == second.name:
            raise BadDataset(f"{first.image} and {second.image.name} share one name: rename or remove one of them")
    return Dataset(
        root=root,
        layout=NAME,
        task=classes.task,
        classes=classes.names,
        colors=classes.colors,
        ignore=classes.ignore,
        samples=tuple(labelled or unlabelled),
        reader=_read_objects if classes.task == "instance" else None,
        notes=() if labelled else ("classes.json names classes, but no image has a label",),
    )


def _read_objects(dataset: Dataset, sample: Sample) -> Instances:
    """Each id of the label as one object."""
    label = dataset.load_label(sample)
    crops = crops_by_id(label)
    masks = list(crops.values())
    crowd = [each == dataset.ignore for each in crops]
    return true_objects((label.shape[0], label.shape[1]), masks, [0] * len(masks), crowd, [box_of(mask) for mask in masks])


def _check_task(file: Path, content: ClassesFile) -> None:
    """Object ids say no class, and panoptic ids need a list of what they mean."""
    if content.task == "panoptic":
        raise BadDataset(f"{file} says that the labels are panoptic, which only COCO's panoptic JSON can describe: write that")
    if len(content.names) > 1:
        raise BadDataset(
            f"{file} names {len(content.names)} classes, but object ids do not say which is whose: "
            "name one class, or write COCO instances"
        )


def _samples(files: list[Path]) -> tuple[list[Sample], list[Sample]]:
    """Images with a label, and images without."""
    label_of = {file: _label_name(file) for file in files}
    names = {file.name for file in files}
    labels = {label for label in label_of.values() if label in names}
    labelled, unlabelled = [], []
    for image, label in label_of.items():
        if image.name in labels:
            continue
        if label in names:
            labelled.append(Sample(image.stem, image, image.with_name(label)))
        else:
            unlabelled.append(Sample(image.stem, image))
    return labelled, unlabelled


def _label_name(image: Path) -> str:
    return f"{image.stem}_label.png" if image.suffix.lower() == ".png" else f"{image.stem}.png"


def _half_labelled(unlabelled: list[Sample], *, n_labelled: int) -> str:
    first = unlabelled[0].image
    expected = _label_name(first)
    role = f"an image without its label {expected}"
    if first.suffix.lower() == ".png":
        role = f"neither the label of a {first.stem}.jpg nor an image with its label {expected}"
    found = f"{first} is {role}, while {n_labelled} images here have labels"
    return f"{found}: add what is missing, or move {len(unlabelled)} such files away"


def _no_image(root: Path) -> str:
    below = sorted({file.relative_to(root).parts[0] for file in images_below(root)})
    if below:
        return f"{root} has a classes.json and images only in its folders {', '.join(below[:4])}: give one of these folders"
    return f"{root} has a classes.json but no image: put NAME.jpg and NAME.png pairs into it"
