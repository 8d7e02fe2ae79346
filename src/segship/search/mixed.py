"""From an INT8 engine that is wrong to a mixed one that is right: the search, joined to building and judging."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from hashlib import sha256
from pathlib import Path

import msgspec

from segship.backends import load_backend
from segship.core.precision import PrecisionPlan
from segship.core.predictions import Prediction
from segship.core.progress import Progress
from segship.evidence.records import Candidate
from segship.evidence.searches import Found
from segship.graph.int8_recipe import Recipe
from segship.judging import Judge, Tried
from segship.predictor import Predictor
from segship.quantiser import Quantiser
from segship.search.search import PlanSearch
from segship.search.store import EngineStore

AT_MOST_PROBES = 16
"""Calibration images that groups are measured on: enough to tell a bad group from a good one, few enough to ask often."""


def mixed_candidate(
    plain: Tried,
    quantiser: Quantiser,
    judge: Judge,
    model: Predictor,
    probes: Sequence[Path],
    folder: Path,
    progress: Progress,
    *,
    deadline: float | None,
) -> tuple[Tried, Found]:
    """Search a mixed plan for the backend of ``plain``, an INT8 candidate that is not right.

    ``probes``: image files to measure groups on. Engines are kept below ``folder``, so that a second call with the same
    graph and images goes on where an interrupted one stopped. The candidate carries the verdicts on the plan found, or says
    why there is none.
    """
    backend, chosen = plain.record.backend, list(probes[:AT_MOST_PROBES])

    @cache
    def references() -> Sequence[Prediction]:
        return [model.predict(probe) for probe in chosen]

    place = folder / f"{backend}-{_key(quantiser, backend, chosen)}"
    store = EngineStore(place, quantiser, backend, chosen, references, progress)
    record = Candidate(name=f"{backend} mixed", backend=backend, precision="mixed")
    proved: dict[PrecisionPlan, Tried] = {}

    def is_right(plan: PrecisionPlan, recipe: Recipe) -> bool:
        proved[plan] = judge.prove(Tried(record, store.engine(plan, recipe)))
        return proved[plan].right

    found = PlanSearch(quantiser, backend, store, progress, deadline=deadline).run(is_right, len(chosen))
    if found.plan is None:
        reason = f"{len(found.sensitivities)} groups of layers were tried in float, and the engine was not right with any choice"
        return Tried(msgspec.structs.replace(record, skipped=reason), None), found
    best = proved[found.plan]
    return replace(best, record=msgspec.structs.replace(best.record, plan=found.plan)), found


def _key(quantiser: Quantiser, backend: str, probes: Sequence[Path]) -> str:
    """Short hash of all that decides what an engine of a plan is, and what it loses."""
    parts = [quantiser.calibrate().sha256, load_backend(backend).version(), *(probe.name for probe in probes)]
    return sha256("\0".join(parts).encode()).hexdigest()[:12]
