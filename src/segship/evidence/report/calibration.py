"""Whether the calibration images were good enough, as rows with every number already written out."""

from __future__ import annotations

from typing import NamedTuple

from segship.evidence.calibration import Check, Diagnosis
from segship.evidence.report import words


class ClippedRow(NamedTuple):
    """A tensor whose range cuts values off; ``bar`` is percent of the table's largest share."""

    path: str
    tensor: str
    span: str
    clipped: str
    harm: str
    bar: float


class CalibrationTable(NamedTuple):
    """The checks in order, and the tensors that are clipped most."""

    images: int
    recipe: str
    failed: int
    checks: tuple[Check, ...]
    rows: list[ClippedRow]


def calibration_table(diagnosis: Diagnosis) -> CalibrationTable:
    """What was found about the calibration, for reading."""
    largest = max([each.clipped for each in diagnosis.saturated], default=0.0) or 1.0
    rows = [
        ClippedRow(
            path=each.path,
            tensor=each.tensor,
            span=f"{words.figure(each.low)} to {words.figure(each.high)}",
            clipped=f"{words.figure(each.clipped, 2)}{words.THIN}%",
            harm=f"{words.points(each.error_db, 0)}{words.THIN}dB",
            bar=100 * each.clipped / largest,
        )
        for each in diagnosis.saturated
    ]
    failed = sum(not check.passed for check in diagnosis.checks)
    return CalibrationTable(diagnosis.images, diagnosis.recipe, failed, diagnosis.checks, rows)
