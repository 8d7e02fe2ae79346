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

Scope = Literal["network", "image"]
Key = tuple[str, Scope]
"""A candidate's name, and whether the network alone or image file to mask is timed."""


def measure(
    runs: Mapping[Key, Callable[[], object]],
    *,
    input_size: Size,
    batch: int,
    environment: Environment,
    schedule: Schedule,
    progress: Progress = silent,
) -> dict[Key, Timing]:
    """Timings of all runs. Each is a function that does the whole work once and waits for its end.

    Both scopes of a candidate belong into one call: only what was taken in turns can be subtracted or divided.
    """
    samples: dict[Key, list[float]] = {key: [] for key in runs}
    begin = time.perf_counter()
    for round_index in range(schedule.rounds):
        keys = list(runs)
        for key in keys if round_index % 2 == 0 else reversed(keys):
            time.sleep(schedule.pause_s)
            samples[key] += _turn(runs[key], schedule)
        progress("measure", round_index + 1, schedule.rounds)
        spent = time.perf_counter() - begin
        if schedule.budget_s is not None and round_index + 1 >= MIN_ROUNDS and spent > schedule.budget_s:
            break
    created = datetime.now(timezone.utc).isoformat(timespec="seconds")
    names = list(dict.fromkeys(name for name, _ in runs))
    return {
        (name, scope): Timing(
            candidate=name,
            scope=scope,
            input_size=input_size,
            batch=batch,
            threads=environment.threads,
            samples_ms=tuple(round(value, 4) for value in values),
            beside=tuple(other for other in names if other != name),
            environment=environment,
            created=created,
        )
        for (name, scope), values in samples.items()
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
