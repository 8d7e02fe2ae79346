"""Structure, proved against the official implementations: same checkpoint, same image, same stages, same labels.

The cases are those below the directory that the environment variable SEGSHIP_GOLDEN names, else the repository's copy.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import segship
from golden.case import CASES, NAMED, Case, cases
from golden.compare import STAGES, recorded, wrong_input, wrong_labels, wrong_resizes, wrong_stages, wrong_windows

BACKENDS = ("onnxruntime", "openvino")
FOUND = tuple(cases(Path(NAMED or CASES), *STAGES))


def one_of_each(kind: Callable[[Case], object]) -> tuple[Case, ...]:
    """The first case of each kind."""
    return tuple({kind(case): case for case in reversed(FOUND)}.values())[::-1]


EXPORTED = FOUND if NAMED else one_of_each(lambda case: (case.family, case.model.get("test_mode"), case.model.get("bilinear")))
"""Exporting takes long: without a named directory, one case of each kind has its graph run."""

FREE_SIZES = [pytest.param(case, marks=() if NAMED else pytest.mark.slow) for case in one_of_each(lambda case: case.family)]


@dataclass
class Loaded:
    """A case and segship's model of it."""

    case: Case
    model: Any
    folder: Path


@pytest.fixture(scope="module", params=FOUND, ids=lambda case: case.name)
def loaded(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Loaded]:
    """One case at a time, its model loaded once for all its tests."""
    case, folder = request.param, tmp_path_factory.mktemp("golden")
    with segship.load_model(case.write_checkpoint(folder), **case.facts) as model:
        yield Loaded(case, model, folder)


def faults_of(case: Case, model: Any) -> list[str]:
    """Every difference between ``model`` and the official implementation."""
    with recorded(model.model.module, case) as stages:
        prediction = model.predict(case.image)
    return [
        *wrong_input(case, model.prepare(case.image).tensor),
        *wrong_windows(case, model.spec.slide),
        *wrong_stages(case, stages),
        *wrong_resizes(case, stages),
        *wrong_labels(case, prediction.labels),
    ]


def test_there_are_cases() -> None:
    assert FOUND
    assert {case.family for case in cases(CASES, *STAGES)} == set(STAGES)


def test_torch(loaded: Loaded) -> None:
    assert faults_of(loaded.case, loaded.model) == []


@pytest.fixture(scope="module")
def exported(loaded: Loaded) -> Any:
    """The case's graph for images of its own size: exported once for all backends."""
    return segship.export(loaded.model, image_size=loaded.case.labels.shape)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("loaded", EXPORTED, indirect=True, ids=lambda case: case.name)
def test_engine(loaded: Loaded, exported: Any, backend: str) -> None:
    assert engine_faults(loaded, exported, backend) == []


@pytest.mark.parametrize("loaded", FREE_SIZES, indirect=True, ids=lambda case: case.name)
def test_engine_of_free_sizes(loaded: Loaded) -> None:
    graph = segship.export(loaded.model)
    assert [fault for backend in BACKENDS for fault in engine_faults(loaded, graph, backend)] == []


def engine_faults(loaded: Loaded, graph: Any, backend: str) -> list[str]:
    """Every difference between the built engine's labels and the official ones."""
    path = loaded.folder / f"{backend}.engine"
    segship.build(graph, backend, path)
    with segship.load_engine(path) as engine:
        return wrong_labels(loaded.case, engine.predict(loaded.case.image).labels)


def first_case(family: str) -> Case:
    return next(case for case in (*FOUND, *cases(CASES, *STAGES)) if case.family == family)


@pytest.mark.parametrize(
    ("family", "kind", "right", "wrong"),
    [("unet", "BatchNorm2d", 1e-5, 1e-3), ("segformer", "BatchNorm2d", 1e-5, 1e-3), ("segformer", "LayerNorm", 1e-6, 1e-5)],
)
def test_a_wrong_epsilon_is_found(family: str, kind: str, right: float, wrong: float, tmp_path: Path) -> None:
    case = first_case(family)
    with segship.load_model(case.write_checkpoint(tmp_path), **case.facts) as model:
        planted = [part for part in model.model.module.modules() if type(part).__name__ == kind and part.eps == right]
        assert planted
        for part in planted:
            part.eps = wrong
        assert any("logits" in fault for fault in faults_of(case, model))


@pytest.mark.parametrize("family", list(STAGES))
def test_swapped_channels_are_found(family: str, tmp_path: Path) -> None:
    case = first_case(family)
    with segship.load_model(case.write_checkpoint(tmp_path), **case.facts) as model:
        assert wrong_input(case, model.prepare(case.image[:, :, ::-1]).tensor)
        assert wrong_labels(case, model.predict(np.ascontiguousarray(case.image[:, :, ::-1])).labels)


def test_the_copy_is_small() -> None:
    assert sum(file.stat().st_size for file in CASES.rglob("*") if file.is_file()) < 12e6
