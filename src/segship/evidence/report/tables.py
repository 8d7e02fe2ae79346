"""The rows of the report's tables, with every number already written out."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Literal, NamedTuple

from segship.core.precision import PrecisionReport
from segship.evidence.records import Candidate, ClassScore, Deployment, Verdict
from segship.evidence.report import words
from segship.evidence.report.outcome import broken_limits, find_reference, limit_text, measured_text, speed


class CandidateRow(NamedTuple):
    """One candidate. ``state`` is its look; ``bar`` its time in percent of the slowest one's."""

    name: str
    state: Literal["chosen", "reference", "rejected", "untried", "other"]
    cells: tuple[tuple[str, str], ...]
    bar: float
    why: str | None


def candidate_rows(deployment: Deployment) -> list[CandidateRow]:
    """All candidates, in the order in which they were tried."""
    reference = find_reference(deployment)
    slowest = max((c.image_ms or c.network_ms or 0.0 for c in deployment.candidates), default=0.0) or 1.0
    return _without_empty_columns([_candidate_row(deployment, reference, c, slowest) for c in deployment.candidates])


def _without_empty_columns(rows: list[CandidateRow]) -> list[CandidateRow]:
    """Without labels there is no metric, for instance: a column of dashes tells nothing."""
    columns = zip(*(row.cells for row in rows), strict=True)
    kept = [any(value not in (words.NONE, "1×") for _, value in column) for column in columns]
    return [row._replace(cells=tuple(cell for cell, keep in zip(row.cells, kept, strict=True) if keep)) for row in rows]


def _candidate_row(deployment: Deployment, reference: Candidate | None, candidate: Candidate, slowest: float) -> CandidateRow:
    pair = speed(reference, candidate)
    p95 = next((timing.p95_ms for timing in candidate.timings if timing.scope == "network" and timing.samples_ms), None)
    cells = (
        ("image to mask", words.ms(candidate.image_ms)),
        ("network", words.ms(candidate.network_ms)),
        ("network p95", words.ms(p95)),
        ("speed-up", words.times(pair.factor) if pair else "1×" if candidate is reference else words.NONE),
        (deployment.metric_name, words.points(candidate.metric)),
        ("drop", words.NONE if candidate is reference else words.points(candidate.drop)),
        ("agreement", words.NONE if candidate is reference else words.percent(candidate.agreement)),
        ("on disk", words.size(candidate.size_bytes)),
    )
    bar = 100 * (candidate.image_ms or candidate.network_ms or 0.0) / slowest
    why = candidate.skipped or "; ".join(broken_limits(candidate)) or None
    return CandidateRow(words.candidate_name(candidate.name), _state(candidate, reference), cells, bar, why)


def _state(candidate: Candidate, reference: Candidate | None) -> Literal["chosen", "reference", "rejected", "untried", "other"]:
    if candidate.chosen:
        return "chosen"
    if candidate is reference:
        return "reference"
    if candidate.skipped is None and all(candidate.verdicts):
        return "other"
    return "rejected" if candidate.network_ms or candidate.image_ms or candidate.verdicts else "untried"


class ClassRow(NamedTuple):
    """One class. ``bar`` runs from -100 (the largest loss of the table) to 100; ``color`` is CSS."""

    name: str
    color: str | None
    share: str
    reference: str
    candidate: str
    change: str
    bar: float
    worst: bool


def class_rows(scores: Sequence[ClassScore], colors: dict[str, str], max_drop: float) -> list[ClassRow]:
    """Classes by change, the largest loss first and those that never occur last; bars are never drawn larger than life.

    A change as large as the allowed drop fills at most half a bar, so that noise does not look like damage.
    """
    ordered = sorted(scores, key=lambda score: (_change(score) is None, _change(score) or 0.0))
    changes = [c for c in map(_change, ordered) if c is not None]
    full = max([abs(change) for change in changes] + [2 * max_drop, 0.1])
    total = sum(score.support for score in scores) or 1
    worst = ordered[0] if changes and changes[0] < 0 else None
    return [_class_row(score, colors.get(score.name), full, total, worst=score is worst) for score in ordered]


def _change(score: ClassScore) -> float | None:
    return None if score.reference is None or score.candidate is None else score.candidate - score.reference


def _class_row(score: ClassScore, color: str | None, full: float, total: int, *, worst: bool) -> ClassRow:
    change = _change(score)
    return ClassRow(
        name=score.name,
        color=color,
        share=words.percent(100 * score.support / total) if score.support else words.NONE,
        reference=words.points(score.reference, 1),
        candidate=words.points(score.candidate, 1),
        change=words.change(change),
        bar=100 * (change or 0.0) / full,
        worst=worst,
    )


State = Literal["pass", "fail", "info"]


class GuardRow(NamedTuple):
    """One measured quantity; ``state`` is ``"info"`` where it has no limit, or where it was left out."""

    quantity: str
    measured: str
    limit: str
    reason: str
    state: State


def guard_rows(verdict: Verdict) -> Iterator[GuardRow]:
    """Each limit with what was measured; then what was measured without a limit."""
    for limit in verdict.limits:
        value = verdict.measured.get(limit.quantity)
        state: State = "fail" if verdict.is_broken(limit) else "info" if value is None else "pass"
        measured = "not measured" if value is None else measured_text(value, limit)
        yield GuardRow(words.quantity(limit.quantity), measured, limit_text(limit), limit.reason, state)
    bound = {limit.quantity for limit in verdict.limits}
    for name, value in verdict.measured.items():
        if name not in bound:
            yield GuardRow(words.quantity(name), words.beside(value, ()), "", "", "info")


class PrecisionRow(NamedTuple):
    """How many layers were asked for one precision and how many run in it; None where it could not be found out."""

    precision: str
    asked: int
    found: int | None


def precision_rows(report: PrecisionReport) -> list[PrecisionRow]:
    """One row for each precision that was asked for or found."""
    found = report.found
    names = [*report.asked, *(name for name in found or {} if name not in report.asked)]
    return [PrecisionRow(name, report.asked.get(name, 0), None if found is None else found.get(name, 0)) for name in names]
