"""What a data set is: images, labels if there are any, and what the label numbers mean. No image is held in memory."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from segship.core.errors import BadArgument, BadDataset
from segship.core.predictions import LabelArray, Prediction, SemanticMap
from segship.core.spec import Task
from segship.datasets.labels import read_label

Color = tuple[int, int, int]


@dataclass(frozen=True)
class Sample:
    """One image and its label file. ``name`` is unique within the data set and serves as a file name stem (``a/b`` is a path)."""

    name: str
    image: Path
    label: Path | None = None


@dataclass(frozen=True)
class Dataset:
    """Samples in a fixed order, and the meaning of their labels.

    ``classes``: class names by class id, or None when nothing in the folder names them; ``colors``: RGB by class id.
    ``ignore``: the id of pixels that are not judged. ``file_ids``: class id of each value in a label file, where the
    two differ. ``category_ids``: the id that annotations have for each class, where they have ids of their own (COCO);
    ``things``: which classes are things, for panoptic truth. ``reader`` reads the truth of a task that is not semantic.
    ``notes``: facts a reader of results must know, such as which of several splits was taken.
    """

    root: Path
    layout: str
    task: Task | None
    classes: tuple[str, ...] | None
    colors: tuple[Color, ...] | None
    ignore: int | None
    samples: tuple[Sample, ...]
    file_ids: dict[int, int] | None = None
    category_ids: tuple[int, ...] | None = None
    things: tuple[bool, ...] | None = None
    reader: Callable[[Dataset, Sample], Prediction] | None = None
    notes: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.samples)

    @property
    def labelled(self) -> bool:
        """Whether there are labels: all samples have one, or none has."""
        return bool(self.samples) and self.samples[0].label is not None

    def load_truth(self, sample: Sample) -> Prediction:
        """What a perfect prediction would be: of the data set's task, in the image's frame, in the data set's class ids.

        Raises :class:`BadDataset` for truth that is missing, unreadable, of another size than its image, or contradicts itself.
        """
        if sample.label is None or self.reader is None:
            return SemanticMap(self.load_label(sample))
        return self.reader(self, sample)

    def load_label(self, sample: Sample) -> LabelArray:
        """Class ids (height, width), uint8 or uint16, in the image's frame; instance ids when the task is ``instance``.

        Raises :class:`BadDataset` for an unreadable label, one of another size than its image, and unknown ids.
        """
        if sample.label is None:
            raise BadDataset(f"{sample.image} has no label: give a folder with labels to measure accuracy")
        names = self.classes if self.task == "semantic" else None
        return read_label(
            sample.label, sample.image, n_classes=len(names) if names else None, ignore=self.ignore, file_ids=self.file_ids
        )

    def split(self, n_calibration: int, n_evaluation: int | None = None) -> tuple[tuple[Sample, ...], tuple[Sample, ...]]:
        """Disjoint calibration and evaluation samples, each evenly strided over the folder's order.

        At most half of the samples (rounded down) become calibration samples, so a small folder yields fewer than
        ``n_calibration``; ``n_evaluation`` None means all the others. Same folder, same numbers: same split.
        """
        if n_calibration < 0 or (n_evaluation is not None and n_evaluation < 1):
            raise BadArgument(
                f"cannot split into {n_calibration} calibration and {n_evaluation} evaluation images: give positive numbers"
            )
        if n_calibration and len(self) < 2:
            raise BadDataset(
                f"{self.root} holds one image, calibration and evaluation need one each: give a folder with more images"
            )
        chosen = set(strided(range(len(self)), min(n_calibration, len(self) // 2)))
        rest = [index for index in range(len(self)) if index not in chosen]
        if n_evaluation is not None:
            rest = strided(rest, min(n_evaluation, len(rest)))
        return tuple(self.samples[index] for index in sorted(chosen)), tuple(self.samples[index] for index in rest)


class Layout(Protocol):
    """The names that a layout module has."""

    NAME: str

    @property
    def TASK(self) -> Task | None:  # noqa: N802 (a module's constant)
        """The only task that it has truth for, or None when its files say the task."""
        ...

    def claims(self, root: Path) -> bool:
        """Whether the folder has this layout: judged without opening an image or label."""
        ...

    def read(self, root: Path) -> Dataset:
        """The data set in the folder; raises :class:`BadDataset` when it is broken. No label is opened yet."""
        ...


def strided(indices: Sequence[int], n: int) -> list[int]:
    """``n`` of ``indices``, evenly spread: the middle of each of ``n`` equal stretches.

    >>> strided(range(10), 3)
    [1, 5, 8]
    """
    return [indices[(2 * step + 1) * len(indices) // (2 * n)] for step in range(n)]
