"""What a network's outputs mean: decoding, agreement and the metric, one module for each task.

Serving path: imports neither torch nor onnx.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol, cast

from segship.core.backend import Array
from segship.core.predictions import Prediction
from segship.core.spec import Frame, ModelSpec, Task
from segship.tasks import instance, panoptic, semantic
from segship.tasks.scoring import Scorer, Scores

__all__ = ["TASKS", "Scorer", "Scores", "TaskModule", "task_of"]


class TaskModule(Protocol):
    """The names that a task module has."""

    METRIC: str
    """Short name of the metric, in points from 0 to 100: ``mIoU``, ``mask AP``, ``PQ``."""

    def decode(self, outputs: Mapping[str, Array], spec: ModelSpec, frame: Frame) -> list[Any]:
        """Predictions of a batch from the raw network outputs (batch first); all images have the sizes of ``frame``."""
        ...

    def agreement(self, first: Any, second: Any) -> float:
        """How far two predictions of one image are the same, 0 to 1. Symmetric; needs no truth."""
        ...

    def overlaps(self, first: Any, second: Any) -> list[tuple[int, int]]:
        """Of each object that two predictions of one image both hold, the pixels of both and of either; empty without objects."""
        ...

    def scorer(self, n_classes: int, ignore: int | None) -> Scorer[Any]:
        """A fresh sum for the metric."""
        ...


TASKS = cast(dict[Task, TaskModule], {"semantic": semantic, "instance": instance, "panoptic": panoptic})


def task_of(spec: ModelSpec) -> TaskModule:
    """The task of a model."""
    return TASKS[spec.task]


def decode(outputs: Mapping[str, Array], spec: ModelSpec, frame: Frame) -> list[Prediction]:
    """Predictions of a batch from the raw network outputs, by the model's own task."""
    return task_of(spec).decode(outputs, spec, frame)
