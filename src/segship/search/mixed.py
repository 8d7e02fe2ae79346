"""The search joined to building and judging: from a trial to the fastest right plan of a backend, and its engine."""

from __future__ import annotations

from collections.abc import Sequence
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
from segship.judging import Tried
from segship.quantiser import Quantiser
from segship.search.search import Judgement, PlanSearch
from segship.search.store import EngineStore
from segship.trial import Trial

AT_MOST_PROBES = 16
"""Calibration images that groups are measured on: enough to tell a bad group from a good one, few enough to ask often."""


def mixed_candidate(
    backend: str, trial: Trial, folder: Path, progress: Progress, *, max_drop: float, every_group: bool, deadline: float | None
) -> tuple[Tried, Found]:
    """Search the fastest plan for ``backend`` that loses at most ``max_drop`` points by the trial's judge.

    ``every_group``: measure what groups lose also where another recipe alone makes plain INT8 right.
    Groups are measured on calibration images. Engines and measurements are kept below ``folder``, so that a second call with
    the same graph and images goes on where an interrupted one stopped. The candidate carries the verdicts on the plan found,
    or says why there is none.
    """
    probes = trial.quantiser.images[:AT_MOST_PROBES]

    @cache
    def references() -> Sequence[Prediction]:
        return [trial.model.predict(probe) for probe in probes]

    place = folder / f"{backend}-{_key(trial.quantiser, backend, probes)}"
    store = EngineStore(place, trial.quantiser, backend, probes, references, progress, threads=trial.threads)
    record = Candidate(name=f"{backend} mixed", backend=backend, precision="mixed")
    proved: dict[PrecisionPlan, Tried] = {}

    def judge(plan: PrecisionPlan, recipe: Recipe) -> Judgement:
        proved[plan] = trial.judge.prove(Tried(record, store.engine(plan, recipe)))
        return Judgement(proved[plan].right, proved[plan].record.drop)

    found = PlanSearch(
        trial.quantiser, backend, store, judge, progress, allowed=max_drop, every_group=every_group, deadline=deadline
    ).run(len(probes))
    if found.plan is None:
        tried = len(found.judged)
        reason = f"{tried} plan{'s' if tried != 1 else ''} with groups of layers in float were judged, and none was right"
        return Tried(msgspec.structs.replace(record, skipped=reason), None), found
    return proved[found.plan].with_(plan=found.plan), found


def _key(quantiser: Quantiser, backend: str, probes: Sequence[Path]) -> str:
    """Short hash of all that decides what an engine of a plan is, and what it loses."""
    parts = [quantiser.calibrate().sha256, load_backend(backend).version(), *(probe.name for probe in probes)]
    return sha256("\0".join(parts).encode()).hexdigest()[:12]
