"""Engines that the search has built, and what they lost: kept on disk, so that an interrupted search repeats nothing."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from hashlib import sha256
from pathlib import Path

import msgspec

from segship.backends import load_backend
from segship.core.engine import MANIFEST, Engine, open_engine
from segship.core.errors import BadEngine
from segship.core.files import write_atomically
from segship.core.precision import PrecisionPlan
from segship.core.predictions import Prediction
from segship.core.progress import Progress
from segship.graph.int8_recipe import Recipe
from segship.pipeline import build
from segship.predictor import load_engine
from segship.quantiser import Quantiser
from segship.tasks import task_of


class EngineStore:
    """INT8 engines of one graph on one backend, by plan and recipe, in ``folder``.

    ``references``: PyTorch's predictions of ``probes``, asked for once and only when something must be measured.
    """

    def __init__(
        self,
        folder: Path,
        quantiser: Quantiser,
        backend: str,
        probes: Sequence[Path],
        references: Callable[[], Sequence[Prediction]],
        progress: Progress,
    ) -> None:
        self._folder, self._quantiser, self._backend = folder, quantiser, backend
        self._probes, self._references, self._progress = probes, references, progress
        self.built = 0
        self._losses_file = folder / "losses.json"
        self._losses = _read(self._losses_file)

    def engine(self, plan: PrecisionPlan, recipe: Recipe) -> Engine:
        """The engine of a plan: the one in the folder if it is whole, else a new one."""
        path = self._folder / f"{_key(plan, recipe)}.engine"
        if (path / MANIFEST).is_file():
            try:
                return open_engine(path)
            except BadEngine:  # damaged, or of another version: build it again in its place
                pass
        graph = self._quantiser.quantised(load_backend(self._backend).TRAITS, plan, recipe)
        self.built += 1
        return build(graph, self._backend, path, calibration=self._quantiser.record(recipe))

    def loss(self, plan: PrecisionPlan, recipe: Recipe) -> float:
        """Agreement with PyTorch that the plan's engine loses on the probe images, in points (mean over images)."""
        key = _key(plan, recipe)
        if key not in self._losses:
            self._losses[key] = self._measured(self.engine(plan, recipe))
            write_atomically(self._losses_file, msgspec.json.encode(self._losses))
        return self._losses[key]

    def _measured(self, engine: Engine) -> float:
        with load_engine(engine.path) as predictor:
            agreement = task_of(predictor.spec).agreement
            pairs = zip(self._references(), self._probes, strict=True)
            shares = [agreement(reference, predictor.predict(probe)) for reference, probe in pairs]
        return 100 * (1 - sum(shares) / len(shares))


def _key(plan: PrecisionPlan, recipe: Recipe) -> str:
    """Short hash of what decides the numbers: where layers run in what, not why."""
    places = [(keep.where, keep.precision) for keep in plan.keep]
    return sha256(msgspec.json.encode((plan.default, places, recipe))).hexdigest()[:16]


def _read(file: Path) -> dict[str, float]:
    try:
        return msgspec.json.decode(file.read_bytes(), type=dict[str, float])
    except (OSError, msgspec.DecodeError):
        return {}
