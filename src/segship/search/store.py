"""Engines of a search and what was measured on them: kept on disk, so that an interrupted search repeats nothing."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from hashlib import sha256
from pathlib import Path

import msgspec

from segship.backends import load_backend
from segship.core.engine import MANIFEST, Engine, open_engine
from segship.core.errors import BadEngine
from segship.core.files import write_atomically
from segship.core.precision import PrecisionPlan
from segship.core.predictions import Prediction
from segship.core.profile import Profile
from segship.core.progress import Progress
from segship.evidence.measure import Schedule, measure
from segship.graph.int8_recipe import Recipe
from segship.judging import machine, timed_run
from segship.pipeline import build
from segship.predictor import EnginePredictor, load_engine
from segship.quantiser import Quantiser
from segship.tasks import task_of

_SCHEDULE = Schedule(rounds=7, runs_per_turn=2, budget_s=20)
"""Short turns, many of them: what differs between two plans is little, and machines drift."""


class _Measured(msgspec.Struct):
    """Points lost by key of plan and recipe, profiles by that and the threads, milliseconds by all that was timed in turns."""

    losses: dict[str, float] = {}
    profiles: dict[str, Profile] = {}
    times: dict[str, list[float]] = {}


class EngineStore:
    """Engines of one graph on one backend, by plan and recipe, in ``folder``.

    ``references``: PyTorch's predictions of ``probes``, asked for once and only when something must be measured. ``threads`` is
    what engines run on: times of another number are measured again, engines and losses are not.
    """

    def __init__(
        self,
        folder: Path,
        quantiser: Quantiser,
        backend: str,
        probes: Sequence[Path],
        references: Callable[[], Sequence[Prediction]],
        progress: Progress,
        *,
        threads: int,
    ) -> None:
        self._folder, self._quantiser, self._backend = folder, quantiser, backend
        self._probes, self._references, self._progress, self._threads = probes, references, progress, threads
        self.built = 0
        self._file = folder / "measured.json"
        self._measured = _read(self._file)

    def engine(self, plan: PrecisionPlan, recipe: Recipe) -> Engine:
        """The engine of a plan: the one in the folder if it is whole, else a new one."""
        path = self._folder / f"{_key(plan, recipe)}.engine"
        if (path / MANIFEST).is_file():
            try:
                return open_engine(path)
            except BadEngine:  # damaged, or of another version: build it again in its place
                pass
        self.built += 1
        traits = load_backend(self._backend).TRAITS
        if "int8" not in plan.precisions:
            return build(self._quantiser.plain(traits), self._backend, path)
        graph = self._quantiser.quantised(traits, plan, recipe)
        return build(graph, self._backend, path, calibration=self._quantiser.record(recipe))

    def loss(self, plan: PrecisionPlan, recipe: Recipe) -> float:
        """Agreement with PyTorch that the plan's engine loses on the probe images, in points (mean over images)."""
        key = _key(plan, recipe)
        if key not in self._measured.losses:
            with self._open(plan, recipe) as predictor:
                agreement, pairs = task_of(predictor.spec).agreement, zip(self._references(), self._probes, strict=True)
                shares = [agreement(reference, predictor.predict(probe)) for reference, probe in pairs]
            self._measured.losses[key] = 100 * (1 - sum(shares) / len(shares))
            self._save()
        return self._measured.losses[key]

    def profile(self, plan: PrecisionPlan, recipe: Recipe) -> Profile:
        """Where the time of the plan's engine goes on the first probe."""
        key = self._on_threads(_key(plan, recipe))
        if key not in self._measured.profiles:
            with self._open(plan, recipe) as predictor:
                self._measured.profiles[key] = predictor.profile(self._probes[0])
            self._save()
        return self._measured.profiles[key]

    def times(self, plans: Sequence[PrecisionPlan], recipe: Recipe) -> list[float]:
        """Milliseconds of each plan's network on the first probe, in turns, as little disturbed as can be."""
        keys = [_key(plan, recipe) for plan in plans]
        together = self._on_threads(*keys)
        if together not in self._measured.times:
            with ExitStack() as opened:
                predictors = [opened.enter_context(self._open(plan, recipe)) for plan in plans]
                self._measured.times[together] = self._side_by_side(dict(zip(keys, predictors, strict=True)))
            self._save()
        return self._measured.times[together]

    def _on_threads(self, *keys: str) -> str:
        """Key of what the number of threads changes, too."""
        return " ".join((*keys, f"on {self._threads}"))

    def _side_by_side(self, predictors: dict[str, EnginePredictor]) -> list[float]:
        probe = self._probes[0]
        size = next(iter(predictors.values())).prepare(probe).frame.input
        timings = measure(
            {(name, "network"): timed_run(each, probe, "network") for name, each in predictors.items()},
            input_size=size,
            batch=1,
            environment=machine(self._threads),
            schedule=_SCHEDULE,
        )
        return [timing.quiet_ms for timing in timings.values()]

    def _open(self, plan: PrecisionPlan, recipe: Recipe) -> EnginePredictor:
        return load_engine(self.engine(plan, recipe).path, threads=self._threads)

    def _save(self) -> None:
        write_atomically(self._file, msgspec.json.encode(self._measured))


def _key(plan: PrecisionPlan, recipe: Recipe) -> str:
    """Short hash of what decides the numbers: where layers run in what, not why."""
    places = [(keep.where, keep.precision) for keep in plan.keep]
    return sha256(msgspec.json.encode((plan.default, plan.rest, places, recipe))).hexdigest()[:16]


def _read(file: Path) -> _Measured:
    try:
        return msgspec.json.decode(file.read_bytes(), type=_Measured)
    except (OSError, msgspec.DecodeError):
        return _Measured()
