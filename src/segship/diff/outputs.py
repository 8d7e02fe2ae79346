"""Whether two predictors agree on an image within what a precision allows: the cheap test before any tensor is looked at."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from segship.core.backend import Array
from segship.core.precision import Precision
from segship.core.spec import Frame, ModelSpec, Task
from segship.diff.measure import relative_error
from segship.predictor import Predictor, Prepared
from segship.tasks import decode, task_of

DENSE: dict[Precision, float] = {"fp32": 1e-3, "fp16": 2e-2, "bf16": 1e-1, "int8": 1e-1}
"""Relative error of logits: rounding of FP32 in another order reaches 1e-5, the mildest structural error seen 4e-3 (an epsilon
of 1e-5 for 1e-6); the others as much as their rounding adds up to in networks of a hundred layers."""

_DECIDED: dict[Precision, float] = {"fp32": 5e-4, "fp16": 5e-3, "bf16": 1.5e-2, "int8": 1.5e-2}
_OBJECTS: dict[Precision, float] = {"fp32": 1e-2, "fp16": 2e-2, "bf16": 5e-2, "int8": 5e-2}


def disagreement_limit(task: Task, precision: Precision) -> float:
    """1 minus the agreement of the predictions: shares of pixels that ties explain; an object falls as a whole."""
    return (_DECIDED if task == "semantic" else _OBJECTS)[precision]


def disagreement(reference: Predictor, candidate: Predictor, batch: Sequence[Prepared]) -> float:
    """1 minus the agreement on the worst image; the reference sees the images one by one, the candidate in one run."""
    found = candidate.predict_prepared(batch)
    expected = [reference.predict_prepared([item])[0] for item in batch]
    agreement = task_of(reference.spec).agreement
    return 1 - min(agreement(first, second) for first, second in zip(expected, found, strict=True))


def output_error(spec: ModelSpec, expected: Mapping[str, Array], found: Mapping[str, Array], frame: Frame) -> float:
    """How far raw network outputs are apart: relative error of logits, 1 minus the agreement of objects."""
    if spec.task == "semantic":
        return max(relative_error(found[name], array) for name, array in expected.items())
    pairs = zip(decode(expected, spec, frame), decode(found, spec, frame), strict=True)
    return 1 - min(task_of(spec).agreement(first, second) for first, second in pairs)
