"""Whether a data set's truth is for a model, and its truth in the model's class ids."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from segship.core.errors import BadDataset
from segship.core.spec import ModelSpec, Task
from segship.datasets.dataset import Dataset

_TRUTH: dict[Task, str] = {
    "semantic": "semantic labels, one class id per pixel",
    "instance": "COCO instances, or pairs with object ids",
    "panoptic": "COCO panoptic annotations",
}


def for_model(dataset: Dataset, spec: ModelSpec) -> Dataset:
    """The data set with its truth in the model's class ids; raises as :func:`check_classes` does."""
    check_classes(dataset, len(spec.classes), spec.task, spec.category_ids)
    return in_model_classes(dataset, spec.classes, spec.category_ids)


def check_classes(dataset: Dataset, n_classes: int, task: Task = "semantic", category_ids: Sequence[int] | None = None) -> None:
    """Raise :class:`BadDataset` unless the truth is of the model's task, and its classes are the model's.

    Where both have ``category_ids``, the model must know every category of the data set; otherwise the number of classes
    must be the same. Unnamed classes pass.
    """
    if dataset.labelled and dataset.task not in (None, task):
        raise BadDataset(
            f"the labels of {dataset.root} are for the task {dataset.task}, the model's is {task}: give {_TRUTH[task]}"
        )
    if dataset.classes is None:
        return
    if dataset.category_ids is not None and category_ids is not None:
        _check_categories(dataset, dataset.category_ids, category_ids)
    elif len(dataset.classes) != n_classes:
        first, last = dataset.classes[0], dataset.classes[-1]
        raise BadDataset(
            f"{dataset.root} has {len(dataset.classes)} classes ({first} ... {last}), the model has {n_classes}: "
            "give the data set that the model was trained for, or mend its classes.json"
        )


def _check_categories(dataset: Dataset, own: Sequence[int], known: Sequence[int]) -> None:
    unknown = [f"{each} ({name})" for each, name in zip(own, dataset.classes or (), strict=True) if each not in known]
    if unknown:
        raise BadDataset(
            f"{dataset.root} has {len(unknown)} categories that the model does not know, {', '.join(unknown[:4])}; "
            f"it knows {len(known)} from {min(known)} to {max(known)}: give the data set that the model was trained for"
        )


def in_model_classes(dataset: Dataset, classes: Sequence[str], category_ids: Sequence[int] | None) -> Dataset:
    """The data set with truth in the model's class ids, which has ``category_ids`` and names of its own for them.

    A model may have classes that the data set lacks (torchvision's Mask R-CNN: 90 for COCO's 80); they stay without truth.
    Call :func:`check_classes` before. Without category ids on both sides the ids are the same: nothing changes.
    """
    if dataset.category_ids is None or category_ids is None or dataset.category_ids == tuple(category_ids):
        return dataset
    place = {category: class_id for class_id, category in enumerate(dataset.category_ids)}
    known = [place.get(category) for category in category_ids]
    colors, things = dataset.colors, dataset.things
    return replace(
        dataset,
        classes=tuple(classes),
        category_ids=tuple(category_ids),
        colors=None if colors is None or None in known else tuple(colors[each] for each in known if each is not None),
        things=None if things is None else tuple(each is not None and things[each] for each in known),
    )
