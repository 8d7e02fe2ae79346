"""What a search has measured is kept, and asked for again only where it would be another."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest

from segship.core.precision import PrecisionPlan
from segship.core.profile import Kernel, Profile
from segship.graph.int8_recipe import Recipe
from segship.search.store import EngineStore

PLANS = (PrecisionPlan("fp32"), PrecisionPlan("int8"), PrecisionPlan("int8", rest="fp16"))


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Threads of every engine that was opened; engines are no engines."""
    found: list[int] = []

    class Engine(SimpleNamespace):
        def __enter__(self) -> Engine:
            return self

        def __exit__(self, *_: object) -> None: ...

        def profile(self, _probe: Path) -> Profile:
            return Profile((Kernel("a/Conv", "Conv", "float", float(found[-1])),))

    def open_engine(store: EngineStore, *_: object) -> Engine:
        found.append(store._threads)
        return Engine()

    monkeypatch.setattr(EngineStore, "_open", open_engine)
    monkeypatch.setattr(EngineStore, "_side_by_side", lambda _store, engines: [float(found[-1])] * len(engines))
    return found


def store(folder: Path, threads: int) -> EngineStore:
    def unasked() -> list[object]:
        raise AssertionError("nothing is judged here")

    return EngineStore(folder, None, "none", [Path("a.jpg")], unasked, lambda *_: None, threads=threads)  # type: ignore[arg-type]


def test_times_and_profiles_are_of_as_many_threads_as_asked_and_measured_once(tmp_path: Path, opened: list[int]) -> None:
    for threads in (1, 2, 1, 2):
        each = store(tmp_path, threads)
        assert each.times(PLANS, Recipe()) == [threads] * len(PLANS)
        assert each.profile(PLANS[0], Recipe()).total_ms == threads
    assert opened == [1] * 4 + [2] * 4  # three plans timed side by side and one profiled, once for each number of threads
