"""PointRend, proved against detectron2: same checkpoint, same image, same stages, same points, same labels.

The cases are those below the directory that the environment variable SEGSHIP_GOLDEN names, else the repository's copy.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
import torch
from torch.nn import functional

import segship
from golden.case import CASES, NAMED, Case, cases, of_engines
from segship.core.spec import SemanticDecode
from segship.graph.labels import label_map
from segship.graph.recipe import optimise
from segship.models.parts.layers import Upsample2
from segship.models.pointrend import network
from segship.tasks.semantic import in_frame

BACKENDS = ("onnxruntime", "openvino")
FOUND = tuple(cases(Path(NAMED or CASES), "pointrend"))
PADDED = next(case for case in cases(CASES, "pointrend") if case.model["sizes"]["resized_hw"] != case.model["sizes"]["padded_hw"])
EXPORTED = FOUND if NAMED else (PADDED,)
"""Exporting takes long: without a named directory, one case has its graph run."""

INPUT_LIMIT = 2e-5
"""Pixel minus mean, up to 152, in float32 here and there: one unit in the last place is 1.5e-5."""

GRID_CENTRES = network.grid_centres
"""The right one, for tests that put a wrong one in its place."""

UNLESS_STATED = [2e-4, 1e-4, 2, 0.1, 1e-3, 99.9, 99.9]
"""The numbers of the notes, in their order, for manifests whose notes do not say."""

STAGES = {
    **{f"res{stage}_s": ("backbone.bottom_up", stage - 2) for stage in (2, 3, 4, 5)},
    **{f"p{level}_s": ("backbone", level - 2) for level in (2, 3, 4, 5)},
    **{f"scale_p{level}_s": (f"sem_seg_head.coarse_sem_seg_head.p{level}", None) for level in (2, 3, 4, 5)},
    "coarse_logits": ("sem_seg_head.coarse_sem_seg_head", None),
}
"""Array name to module path and which of its outputs it is, in network order."""

DOUBLED = ("scale_p3_s", "scale_p4_s", "scale_p5_s")
"""Official stages behind a last doubling that segship does once, for their sum."""


@dataclass(frozen=True)
class Limits:
    """What a case's notes allow: coarse logits and inner stages absolutely and relatively, points that differ in each step,
    logits after the steps, and the share of logits and of labels, in percent, that must be right."""

    atol: float
    rtol: float
    points: int
    logits: float
    logits_percent: float
    labels_percent: float

    @classmethod
    def of(cls, case: Case) -> Limits:
        number, notes = r"([\d.]+(?:e-?\d+)?)", case.manifest["notes"]
        pattern = (
            rf"coarse_logits atol {number} \+ rtol {number}; chosen points equal up to (\d+) points \({number} % of N.*?"
            rf"logits after the steps atol {number} at >= {number} %.*?label_map equal at >= {number} %"
        )
        match = re.search(pattern, notes)
        stated = [float(group) for group in match.groups()] if match else UNLESS_STATED
        atol, rtol, points, percent, *rest = stated
        return cls(atol, rtol, max(int(points), int(percent * case.model["subdivision_num_points"] / 100)), *rest)


@dataclass
class Run:
    """One image through the module: stages by array name, then of each step the points and the logits after it."""

    stages: dict[str, np.ndarray] = field(default_factory=dict)
    points: list[np.ndarray] = field(default_factory=list)
    logits: list[np.ndarray] = field(default_factory=list)
    labels: np.ndarray | None = None


def run(model: Any, image: np.ndarray) -> Run:
    """The public ``predict`` with everything on its way recorded."""
    result, module, right = Run(), model.model.module, network.grid_centres

    def recording(points: torch.Tensor, h: int, w: int) -> torch.Tensor:
        result.points.append(points[0].numpy())
        return right(points, h, w)

    def keep_logits(_module: Any, _inputs: Any, output: torch.Tensor) -> None:
        result.logits.append(output[0].numpy().copy())

    handles = [module.sem_seg_head.subdivision.register_forward_hook(keep_logits)]
    for name, (path, index) in STAGES.items():
        handles.append(module.get_submodule(path).register_forward_hook(_keep(result.stages, name, index)))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(network, "grid_centres", recording)
        result.labels = model.predict(image).labels
    for handle in handles:
        handle.remove()
    return result


def _keep(stages: dict[str, np.ndarray], name: str, index: int | None) -> Callable[..., None]:
    def hook(_module: Any, _inputs: Any, output: Any) -> None:
        kept = output if index is None else output[index]
        stages[name] = (Upsample2()(kept) if name in DOUBLED else kept)[0].numpy().copy()

    return hook


def faults_of(case: Case, model: Any) -> list[str]:
    """Every difference between ``model`` and the official implementation, in network order."""
    limits, found = Limits.of(case), run(model, case.image)
    prepared = model.prepare(case.image)
    faults = apart(case, "input", prepared.tensor, INPUT_LIMIT, 0.0, 100)
    for name in STAGES:
        faults += apart(case, name, found.stages[name], limits.atol, limits.rtol, 100)
    if len(found.points) != case.model["subdivision_steps"]:
        return [*faults, f"{case.name}: {len(found.points)} subdivision steps, the official {case.model['subdivision_steps']}"]
    for step, (points, logits) in enumerate(zip(found.points, found.logits, strict=True), 1):
        faults += wrong_points(case, step, points, logits, limits)
        faults += apart(case, f"step{step}_logits_s", logits, limits.logits, 0.0, limits.logits_percent)
    final = in_frame(found.logits[-1], model.spec.decode, prepared.frame)
    return [*faults, *wrong_logits(case, final, limits), *wrong_labels(case, found.labels, limits)]


def apart(case: Case, name: str, found: np.ndarray, atol: float, rtol: float, percent: float) -> list[str]:
    """A sentence unless ``percent`` of the recorded values are right. ``rtol`` is of the stage's largest value."""
    if name not in case.arrays:
        return []
    expected, part = case.arrays[name], case.part(name, found)
    if part.shape != expected.shape:
        return [f"{case.name}: {name} has the shape {part.shape}, the official one {expected.shape}"]
    limit = atol + rtol * float(np.abs(expected).max())
    right = 100 * float((np.abs(part - expected) <= limit).mean())  # a NaN is not
    return [] if right >= percent else [f"{case.name}: {right:.3f} % of {name} are right to {limit:.1e}, expected {percent} %"]


def wrong_points(case: Case, step: int, points: np.ndarray, logits: np.ndarray, limits: Limits) -> list[str]:
    """The chosen points as a set; and the point head's logits at those that both chose."""
    official = case.arrays[f"step{step}_points"]
    if len(points) != len(official):
        return [f"{case.name}: step {step} chose {len(points)} points, the official one {len(official)}"]
    missed = np.setdiff1d(official, points)
    if len(missed) > limits.points:
        return [f"{case.name}: step {step} missed {len(missed)} of {len(official)} points, allowed are {limits.points}"]
    name = f"step{step}_point_logits"
    at_points = logits.reshape(len(logits), -1)[:, official]
    return apart(case, name, at_points, limits.logits, 0.0, 100 - 100 * limits.points / len(official))


def wrong_logits(case: Case, final: np.ndarray, limits: Limits) -> list[str]:
    """The logits in the image's own frame."""
    return apart(case, "sem_seg_s", final, limits.logits, 0.0, limits.logits_percent)


def wrong_labels(case: Case, labels: np.ndarray, limits: Limits) -> list[str]:
    """The label map."""
    if labels.shape != case.labels.shape:
        return [f"{case.name}: the label map has {labels.shape} pixels, the official one {case.labels.shape}"]
    right = 100 * float((labels == case.labels).mean())
    return [] if right >= limits.labels_percent else [f"{case.name}: {right:.3f} % of the labels are the official ones"]


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


def test_there_are_cases() -> None:
    assert FOUND
    assert Limits.of(PADDED) == Limits(2e-4, 1e-4, 2, 1e-3, 99.9, 99.9)  # the notes are understood


def test_torch(loaded: Loaded) -> None:
    assert faults_of(loaded.case, loaded.model) == []


def three_images(case: Case) -> list[np.ndarray]:
    """Different images of one size."""
    return [case.image, np.ascontiguousarray(case.image[:, ::-1]), np.roll(case.image, 40, axis=1)]


def batch_faults(case: Case, predictor: Any) -> list[str]:
    """Whether three images at once have the logits that each has alone."""
    limits, prepared = Limits.of(case), [predictor.prepare(image) for image in three_images(case)]

    def logits(tensors: list[np.ndarray]) -> np.ndarray:
        return predictor.session.run(predictor.feeds(np.concatenate(tensors), prepared[0].frame))["logits"]

    together = logits([item.tensor for item in prepared])
    alone = np.concatenate([logits([item.tensor]) for item in prepared])
    right = [100 * float((np.abs(a - b) <= limits.logits).mean()) for a, b in zip(together, alone, strict=True)]
    return [f"image {index}: {share:.3f} % are alike" for index, share in enumerate(right) if share < limits.logits_percent]


def test_torch_batch(loaded: Loaded) -> None:
    assert batch_faults(loaded.case, loaded.model) == []


@pytest.fixture(scope="module")
def exported(loaded: Loaded) -> Any:
    """The case's graph for images of its own size: exported once for all backends."""
    return segship.export(loaded.model, image_size=loaded.case.labels.shape, output="logits")


@of_engines
@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("loaded", EXPORTED, indirect=True, ids=lambda case: case.name)
def test_engine(loaded: Loaded, exported: Any, backend: str) -> None:
    assert engine_faults(loaded, exported, backend) == []


@of_engines
@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("loaded", EXPORTED, indirect=True, ids=lambda case: case.name)
def test_engine_with_labels(loaded: Loaded, exported: Any, backend: str) -> None:
    graph = optimise(label_map(exported, loaded.case.labels.shape))
    assert label_faults(loaded, graph, backend) == []


@pytest.mark.slow
@pytest.mark.parametrize("loaded", EXPORTED, indirect=True, ids=lambda case: case.name)
def test_engine_of_free_sizes(loaded: Loaded) -> None:
    graph = segship.export(loaded.model, output="logits")
    with_labels = optimise(label_map(graph, None))
    assert [fault for backend in BACKENDS for fault in engine_faults(loaded, graph, backend)] == []
    assert [fault for backend in BACKENDS for fault in label_faults(loaded, with_labels, backend)] == []


def engine_faults(loaded: Loaded, graph: Any, backend: str) -> list[str]:
    """Every difference between the built engine's logits and the official ones, and between batch sizes."""
    case, limits, path = loaded.case, Limits.of(loaded.case), loaded.folder / f"{backend}.engine"
    segship.build(graph, backend, path)
    with segship.load_engine(path) as engine:
        prepared = engine.prepare(case.image)
        (logits,) = engine.session.run(engine.feeds(prepared.tensor, prepared.frame))["logits"]
        final = in_frame(logits, engine.spec.decode, prepared.frame)
        labels = engine.predict(case.image).labels
        return [*wrong_logits(case, final, limits), *wrong_labels(case, labels, limits), *batch_faults(case, engine)]


def label_faults(loaded: Loaded, graph: Any, backend: str) -> list[str]:
    """Every difference between the labels of an engine that decides by itself and the official ones."""
    path = loaded.folder / f"{backend}-labels.engine"
    segship.build(graph, backend, path)
    with segship.load_engine(path) as engine:
        return wrong_labels(loaded.case, engine.predict(loaded.case.image).labels, Limits.of(loaded.case))


def other_corners(features: torch.Tensor, where: torch.Tensor) -> torch.Tensor:
    return functional.grid_sample(features, where, align_corners=True).squeeze(3)


def other_uncertainty(logits: torch.Tensor) -> torch.Tensor:
    return -logits.amax(1, keepdim=True)


def transposed(points: torch.Tensor, h: int, w: int) -> torch.Tensor:
    return GRID_CENTRES(points, h, w).flip(3)


@pytest.fixture(scope="module")
def padded_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The checkpoint of the case whose image is resized and padded."""
    return PADDED.write_checkpoint(tmp_path_factory.mktemp("padded"))


@pytest.mark.parametrize(
    ("name", "wrong"), [("point_sample", other_corners), ("uncertainty", other_uncertainty), ("grid_centres", transposed)]
)
def test_a_wrong_step_is_found(name: str, wrong: Any, padded_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(network, name, wrong)
    with segship.load_model(padded_file, **PADDED.facts) as model:
        faults = faults_of(PADDED, model)
    assert faults
    assert "step1" in faults[0] or "step 1" in faults[0]


@pytest.mark.parametrize(("kind", "first"), [("BatchNorm2d", "res2"), ("GroupNorm", "scale_p")])
def test_a_wrong_epsilon_is_found(kind: str, first: str, padded_file: Path) -> None:
    with segship.load_model(padded_file, **PADDED.facts) as model:
        planted = [part for part in model.model.module.modules() if type(part).__name__ == kind]
        assert planted
        for part in planted:
            part.eps = 1e-3
        assert f" {first}" in faults_of(PADDED, model)[0]


def test_refined_logits_instead_of_the_coarse_ones_are_found(padded_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    right = network.Subdivision.forward
    monkeypatch.setattr(network.Subdivision, "forward", lambda self, x, coarse, *more: right(self, x, x, *more))
    with segship.load_model(padded_file, **PADDED.facts) as model:
        faults = faults_of(PADDED, model)
    assert "step2" in faults[0]


@pytest.mark.parametrize(
    ("fact", "wrong", "first"),
    [
        ("stride_in_1x1", False, " res3"),
        ("subdivision_points", 150, "step 1 chose 150"),
        ("subdivision_steps", 1, "1 subdivision steps"),
        ("mean", (123.675, 116.28, 103.53), " input"),
        ("channels", "rgb", " input"),
    ],
)
def test_a_wrong_fact_is_found(fact: str, wrong: Any, first: str, padded_file: Path) -> None:
    with segship.load_model(padded_file, **{**PADDED.facts, fact: wrong}) as model:
        assert first in faults_of(PADDED, model)[0]


def test_padding_left_in_is_found(padded_file: Path) -> None:
    with segship.load_model(padded_file, **PADDED.facts) as model:
        spec = msgspec.structs.replace(model.spec, decode=SemanticDecode(resize_to=("image",)))
        faults = faults_of(PADDED, model.with_spec(spec))
    assert "sem_seg_s" in faults[0]
