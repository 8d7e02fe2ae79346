"""How the report writes names and numbers. A number is rounded so that rounding never flatters."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

from segship.core.spec import Task
from segship.evidence.records import Candidate

_BACKENDS = {
    "torch": "PyTorch",
    "pytorch": "PyTorch",
    "onnxruntime": "ONNX Runtime",
    "openvino": "OpenVINO",
    "tensorrt": "TensorRT",
    "aotinductor": "AOTInductor",
    "ascend": "Ascend",
}
_QUANTITIES = {
    "flipped": "% of pixels that flip, ties apart, on the worst image",
    "flipped_with_ties": "% of pixels that flip on the worst image",
    "max_abs_difference": "largest difference of a logit",
    "relative_difference": "largest difference over the logits’ spread",
    "disagreement": "% that disagrees with PyTorch on the worst image",
    "reference_metric": "points of PyTorch",
    "candidate_metric": "points of the engine",
    "drop": "points lost",
    "worst_class_drop": "points lost by the worst class",
    "agreement": "% that agrees with PyTorch",
    "batch_1_against_n": "difference in a batch",
    "batch_order": "difference in another order",
    "repeated_runs": "difference in another run",
    "other_shape": "difference from PyTorch at another shape",
    "shape_there_and_back": "difference after another shape",
}


class TaskWords(NamedTuple):
    """How the report speaks of a task: what agrees, what a tile says of it, what a class has, and its score."""

    agree: str
    tile: str
    unit: str
    score: str
    answers: str


_TASKS: dict[Task, TaskWords] = {
    "semantic": TaskWords("of pixels agree", "of pixels get PyTorch’s class", "pixels", "IoU", "masks"),
    "instance": TaskWords(
        "agreement of objects",
        "agreement with PyTorch’s objects: overlap of those that match, by score",
        "objects",
        "mask AP",
        "objects",
    ),
    "panoptic": TaskWords("of pixels agree", "of pixels get PyTorch’s segment", "segments", "PQ", "segments"),
}
NONE = "–"
"""Written where a value is absent."""
_MINUS = "\u2212"
THIN = "\u202f"
"""Narrow no-break space, between a number and its unit."""


def of_task(task: Task) -> TaskWords:
    """The words of a task."""
    return _TASKS[task]


def backend_name(backend: str) -> str:
    """The name that a backend's makers write."""
    return _BACKENDS.get(backend, backend)


def candidate_name(name: str) -> str:
    """``OpenVINO INT8`` from ``openvino int8``, also before a comma; a candidate with a name of its own keeps it."""
    known, comma, rest = name.partition(",")
    backend, _, precision = known.partition(" ")
    official = _BACKENDS.get(backend.lower())
    return f"{official} {precision_name(precision)}{comma}{rest}" if official and precision.isalnum() else name


def precision_name(precision: str) -> str:
    """``INT8``; ``mixed INT8`` for one with exceptions that a search found."""
    return "mixed INT8" if precision == "mixed" else precision.upper()


def headline_name(candidate: Candidate) -> str:
    """``INT8 on OpenVINO``; a candidate with a name of its own keeps it."""
    if candidate.name == f"{candidate.backend} {candidate.precision}":
        precision = precision_name(candidate.precision)
        return f"{precision[0].upper()}{precision[1:]} on {backend_name(candidate.backend)}"
    return candidate.name


def figure(value: float, digits: int = 3) -> str:
    """A number with at least ``digits`` significant figures, never in exponent form when people would not write it so."""
    if math.isnan(value):
        return "not a number"
    if math.isinf(value):
        return "infinite" if value > 0 else f"{_MINUS}infinite"
    if value and abs(value) < 1e-4:
        return f"{value:.{digits - 1}e}".replace("-", _MINUS)
    decimals = max(0, digits - 1 - math.floor(math.log10(abs(value)))) if value else 0
    text = f"{value:.{decimals}f}"
    return (text.rstrip("0").rstrip(".") if decimals > digits else text).replace("-", _MINUS)


def exact(value: float) -> str:
    """A number that a person set, such as a limit, as they wrote it."""
    return f"{value:g}".replace("-", _MINUS)


def allowance(max_drop: float) -> str:
    """``1 point``, ``0.5 points``."""
    return f"{exact(max_drop)} point{'' if max_drop == 1 else 's'}"


def beside(value: float, bounds: Sequence[float]) -> str:
    """A measured number with three figures, or as many as it takes to see on which side of ``bounds``, or of 100, it lies."""
    if not math.isfinite(value):
        return figure(value)
    others = {bound for bound in (*bounds, 100.0) if bound != value}
    texts = (figure(value, digits) for digits in range(3, 12))
    return next((text for text in texts if float(text.replace(_MINUS, "-")) not in others), repr(value))


def ms(value: float | None) -> str:
    """Milliseconds, three figures, with the unit."""
    return NONE if value is None else f"{figure(value)}{THIN}ms"


def times(factor: float | None) -> str:
    """A speed-up: ``7.9×``."""
    if factor is None:
        return NONE
    return f"{factor:.{0 if factor >= 9.95 else 1 if factor >= 1.95 else 2}f}×"


def points(value: float | None, decimals: int = 2) -> str:
    """Points of a metric."""
    return NONE if value is None else "not a number" if math.isnan(value) else f"{value:.{decimals}f}".replace("-", _MINUS)


def change(value: float | None) -> str:
    """A signed change in points; what rounds to nothing has no sign."""
    if value is None or math.isnan(value):
        return points(value)
    text = f"{value:+.2f}"
    return "0.00" if text in ("+0.00", "-0.00") else text.replace("-", _MINUS)


def percent(value: float | None) -> str:
    """A percentage that says 100 only when it is: 99.3 %, 99.98 %, > 99.9999 %."""
    if value is None or math.isnan(value):
        return points(value)
    for decimals in (1, 2, 3, 4):
        text = f"{value:.{decimals}f}"
        if value >= 100 or float(text) < 100:
            return ("100" if value >= 100 else text) + f"{THIN}%"
    return f">{THIN}99.9999{THIN}%"


def size(count: int | None) -> str:
    """Bytes in decimal units."""
    if count is None:
        return NONE
    for unit, one in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count >= one:
            return f"{figure(count / one)}{THIN}{unit}"
    return f"{count}{THIN}bytes"


def seconds(value: float) -> str:
    """A duration, as people say it."""
    if value < 59.5:
        return f"{figure(value, 2)}{THIN}s"
    minutes, rest = divmod(round(value), 60)
    return f"{minutes}{THIN}min {rest}{THIN}s" if minutes < 60 else f"{minutes // 60}{THIN}h {minutes % 60}{THIN}min"


def day(created: str) -> str:
    """``2026-11-21 08:30 UTC`` from an ISO 8601 time; any other text stays as it is."""
    date, _, clock = created.partition("T")
    return f"{date} {clock[:5]} UTC" if len(date) == 10 and clock else created


def quantity(name: str) -> str:
    """What a measured quantity is, for reading; one that is not known here keeps its name."""
    return _QUANTITIES.get(name, name.replace("_", " "))
