"""Panoptic FCN, proved against the official implementation: same checkpoint, same image, same decisions, same map.

The cases are those below the directory that the environment variable SEGSHIP_GOLDEN names, else the repository's copy.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir
import pytest
import torch

import segship
from golden.case import CASES, NAMED, Case, of_engines
from golden.panopticfcn import cases, differing, facts, recorded, wrong_maps
from golden.panopticfcn_decisions import undecided, wrong_instance_ids, wrong_panoptic, wrong_parts, wrong_stuff, wrong_things
from golden.weights import state_dict
from segship.core.graph import Graph

BACKENDS = ("onnxruntime", "openvino")
FOUND = cases(Path(NAMED or CASES))
ONE_OF_EACH = list({case.model["position_head"]["deform"]: case for case in reversed(FOUND)}.values())[::-1]
EXPORTED = FOUND if NAMED else ONE_OF_EACH
"""Exporting takes long: without a named directory, one case with and one without deformable convolutions is exported."""

FREE_SIZES = [pytest.param(case, marks=() if NAMED else pytest.mark.slow) for case in ONE_OF_EACH]

BIASES = ("position_head.out_inst.bias", "position_head.out_sem.bias")

SAME_PIXELS = 0.999
"""What the manifests ask for: a batch sums in another order, and random weights decide by hairs."""


@dataclass
class Loaded:
    """A case and segship's model of it."""

    case: Case
    model: Any
    folder: Path


def load(case: Case, folder: Path) -> Any:
    """The case's model, from a checkpoint as detectron2 saves it."""
    state = {key: torch.from_numpy(value) for key, value in state_dict(case.manifest).items()}
    path = folder / f"{case.folder.name}.pth"
    torch.save({"model": state, "iteration": 269999}, path)
    return segship.load_model(path, **facts(case))


@pytest.fixture(scope="module", params=FOUND, ids=lambda case: case.name)
def loaded(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Loaded]:
    """One case at a time, its model loaded once for all its tests."""
    folder = tmp_path_factory.mktemp("golden")
    with load(request.param, folder) as model:
        yield Loaded(request.param, model, folder)


@pytest.fixture(scope="module")
def exported(loaded: Loaded) -> Graph:
    """The case's graph for images of its own size: exported once for all tests."""
    size = loaded.case.image.shape
    return segship.export(loaded.model, image_size=(size[0], size[1]))


def faults_of(case: Case, model: Any) -> list[str]:
    """Every difference between ``model`` and the official implementation, in network order."""
    prepared = model.prepare(case.image)
    with recorded(model.model.module) as stages:
        outputs = model.session.run(model.feeds(prepared.tensor, prepared.frame))
    (prediction,) = model.decode(outputs, prepared.frame)
    return [
        *differing(case, "input", prepared.tensor, 1e-4),  # float32 beside float64 subtraction of means up to 124
        *wrong_maps(case, stages),
        *wrong_things(case, stages),
        *wrong_stuff(case, stages),
        *wrong_parts(case, outputs, model.spec, prepared.frame),
        *wrong_panoptic(case, prediction, model.spec.decode.n_things),
        *wrong_instance_ids(case, outputs, prediction),
    ]


def test_there_are_cases() -> None:
    assert {case.model["position_head"]["deform"] for case in cases(CASES)} == {True, False}
    assert FOUND


def test_torch(loaded: Loaded) -> None:
    assert faults_of(loaded.case, loaded.model) == []


def test_a_score_may_move_by_undecided_pixels_alone() -> None:
    mask = np.full((1, 5, 6), 0.5, np.float32)
    assert undecided(mask, np.array([0.3]), 0.4, atol=2e-3) == 0
    mask[0, 0, 0] = 0.4 + 1e-6
    with_it, without_it = mask.mean(), mask.ravel()[1:].mean()
    moved = 0.3 * abs(without_it / with_it - 1)
    assert undecided(mask, np.array([0.3]), 0.4, atol=2e-3) == pytest.approx(moved, rel=0.1)  # of the mean before or after


def images_like(image: np.ndarray) -> list[np.ndarray]:
    """Four different images of one size."""
    noise = np.random.default_rng(0).integers(0, 256, image.shape, np.uint8)
    return [image, np.ascontiguousarray(image[:, ::-1]), noise, np.zeros_like(image)]


def same_maps(first: list[Any], second: list[Any]) -> bool:
    """Whether the panoptic maps of two lists agree."""
    return all(float(np.mean(a.ids == b.ids)) >= SAME_PIXELS for a, b in zip(first, second, strict=True))


def batch_faults(predictor: Any, image: np.ndarray) -> list[str]:
    """A batch must give what its images give one by one, in any order."""
    images = images_like(image)
    singles = [predictor.predict(each) for each in images]
    assert len({len(each.segments) for each in singles}) > 1  # else the images would not be different enough
    faults = [] if same_maps(singles, predictor.predict_batch(images)) else ["a batch of 4 differs from its images"]
    for size in (2, 3):
        if not same_maps(singles[::-1][:size], predictor.predict_batch(images[::-1][:size])):
            faults.append(f"a batch of {size} differs from its images")
    return faults


def test_torch_batches(loaded: Loaded) -> None:
    assert batch_faults(loaded.model, loaded.case.image) == []


def test_torch_finds_nothing(loaded: Loaded) -> None:
    module = loaded.model.model.module
    biases = [module.get_parameter(name) for name in BIASES]
    before = [bias.clone() for bias in biases]
    for bias in biases:
        bias.fill_(-60.0)
    try:
        assert_nothing(loaded.model, loaded.case.image)
    finally:
        for bias, value in zip(biases, before, strict=True):
            bias.copy_(value)


def assert_nothing(predictor: Any, image: np.ndarray) -> None:
    """No segment, no pixel, and for a batch, too."""
    for found in (predictor.predict(image), *predictor.predict_batch([image, np.zeros_like(image)])):
        assert found.segments == ()
        assert found.ids.shape == image.shape[:2]
        assert not found.ids.any()


@of_engines
@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("loaded", EXPORTED, indirect=True, ids=lambda case: case.name)
def test_engine(loaded: Loaded, exported: Graph, backend: str) -> None:
    with built(exported, backend, loaded.folder / backend) as engine:
        assert wrong_panoptic(loaded.case, engine.predict(loaded.case.image), loaded.model.spec.decode.n_things) == []
        assert batch_faults(engine, loaded.case.image) == []


@of_engines
@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("loaded", EXPORTED[:1], indirect=True, ids=lambda case: case.name)
def test_engine_finds_nothing(loaded: Loaded, exported: Graph, backend: str) -> None:
    biases = [exported.ir.graph.initializers[name] for name in BIASES]
    before = [bias.const_value for bias in biases]
    for bias in biases:
        bias.const_value = onnx_ir.tensor(np.full_like(bias.const_value.numpy(), -60.0), name=bias.name)
    try:
        with built(exported, backend, loaded.folder / f"{backend}-nothing") as engine:
            assert_nothing(engine, loaded.case.image)
    finally:
        for bias, value in zip(biases, before, strict=True):
            bias.const_value = value


@pytest.mark.parametrize("loaded", FREE_SIZES, indirect=True, ids=lambda case: case.name)
def test_engine_of_free_sizes(loaded: Loaded) -> None:
    graph = segship.export(loaded.model)
    for backend in BACKENDS:
        with built(graph, backend, loaded.folder / f"{backend}-free") as engine:
            assert wrong_panoptic(loaded.case, engine.predict(loaded.case.image), loaded.model.spec.decode.n_things) == []


def built(graph: Graph, backend: str, path: Path) -> Any:
    """An engine, open."""
    segship.build(graph, backend, path)
    return segship.load_engine(path)


def swap_coordinates(module: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The column before the row."""
    weight = module.kernel_head.kernel_head.kernel_head_head_1.coordinates.weight
    monkeypatch.setattr(weight, "data", weight.data.flip(1))


def pool_alike(module: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """3 x 3 on every level."""
    monkeypatch.setattr(module.candidates, "pools", (3, 3, 3, 3, 3))


def fuse_across_classes(module: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Kernels of different classes count as alike."""
    monkeypatch.setattr(module.thing_generator, "class_specific", False)


def score_by_all(module: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The mean probability of the whole map."""
    monkeypatch.setattr(module.masks, "inside", 0.0)


PLANTS = [swap_coordinates, pool_alike, fuse_across_classes, score_by_all]


@pytest.mark.parametrize("loaded", FOUND[:1], indirect=True, ids=lambda case: case.name)
def test_planted_errors_are_found(loaded: Loaded) -> None:
    for plant in PLANTS:
        with pytest.MonkeyPatch.context() as monkeypatch:
            plant(loaded.model.model.module, monkeypatch)
            assert faults_of(loaded.case, loaded.model), plant.__doc__


def test_the_copy_is_small() -> None:
    assert sum(file.stat().st_size for case in cases(CASES) for file in case.folder.iterdir()) < 2e6
