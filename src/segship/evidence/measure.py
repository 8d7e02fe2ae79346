"""Wall-clock timing of several candidates, taken in turns: the only clock in the code base that judges speed.

Machines drift; candidates measured one after the other would drift apart. So each round gives every candidate one
turn, in an order that changes from round to round, and ratios are taken between medians of the same rounds.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from datetime import datetime, timezone
from typing import Literal

import msgspec

from segship.core.environment import Environment
from segship.core.progress import Progress, silent
from segship.core.spec import Size
from segship.evidence.records import Timing


class Schedule(msgspec.Struct, frozen=True):
    """How much to measure. ``pause_s`` lets the last candidate's idle threads stop spinning before the next one's turn."""

    rounds: int = 7
    runs_per_turn: int = 3
    warmup_runs: int = 1
    pause_s: float = 0.03
    budget_s: float | None = None
    """Stop after this many seconds, but never before three rounds."""


MIN_ROUNDS = 3


def measure(
    candidates: Mapping[str, Callable[[], object]],
    *,
    scope: Literal["network", "image"],
    input_size: Size,
    batch: int,
    environment: Environment,
    schedule: Schedule,
    progress: Progress = silent,
) -> dict[str, Timing]:
    """Timings of all candidates, by name. Each is a function that does the whole work once and waits for its end."""
    samples: dict[str, list[float]] = {name: [] for name in candidates}
    begin = time.perf_counter()
    for round_index in range(schedule.rounds):
        names = list(candidates)
        for name in names if round_index % 2 == 0 else reversed(names):
            time.sleep(schedule.pause_s)
            samples[name] += _turn(candidates[name], schedule)
        progress(f"measure {scope}", round_index + 1, schedule.rounds)
        spent = time.perf_counter() - begin
        if schedule.budget_s is not None and round_index + 1 >= MIN_ROUNDS and spent > schedule.budget_s:
            break
    created = datetime.now(timezone.utc).isoformat(timespec="seconds")
    return {
        name: Timing(
            candidate=name,
            scope=scope,
            input_size=input_size,
            batch=batch,
            threads=environment.threads,
            samples_ms=tuple(round(value, 4) for value in values),
            beside=tuple(other for other in candidates if other != name),
            environment=environment,
            created=created,
        )
        for name, values in samples.items()
    }


def _turn(run: Callable[[], object], schedule: Schedule) -> list[float]:
    for _ in range(schedule.warmup_runs):
        run()
    samples = []
    for _ in range(schedule.runs_per_turn):
        start = time.perf_counter()
        run()
        samples.append((time.perf_counter() - start) * 1000)
    return samples
