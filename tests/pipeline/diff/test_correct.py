"""On a correct engine nothing is found, whatever its family, runtime and precision."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from pipeline.diff.planting import BACKENDS, found_in
from segship.backends import load_backend
from segship.core.graph import Graph
from segship.graph.int8_recipe import Recipe
from segship.pipeline import ModelPredictor
from segship.quantiser import Quantiser


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("family", ["unet", "segformer"])
def test_a_correct_fp32_engine_has_none(
    family: str, backend: str, images: list[Path], tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    model, graph = request.getfixturevalue(family), request.getfixturevalue(f"{family}_graph")
    report = found_in(model, graph, backend, images[0], tmp_path, clean=graph, every_step=True)
    assert report.passed, report.finding
    assert len(report.steps) > 20
    assert max(step.own for step in report.steps) < 1e-5  # FP32 in another order: 1e-6 is found


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("family", ["unet", "segformer"])
def test_a_correct_int8_engine_has_none(
    family: str, backend: str, images: list[Path], tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    model, graph = request.getfixturevalue(family), request.getfixturevalue(f"{family}_graph")
    int8 = Quantiser(model, graph, images, cache=tmp_path).quantised(load_backend(backend).TRAITS)
    report = found_in(model, int8, backend, images[0], tmp_path, clean=graph, every_step=True)
    assert report.passed, report.finding
    assert max(step.own for step in report.steps) > 1e-3  # the walk has seen 8 bits, not their floating-point originals
    assert report.steps[-1].error > 2 * report.steps[0].error  # the noise grows


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("family", ["unet", "segformer"])
def test_a_plan_that_moves_outliers_into_weights_is_no_fault(
    family: str, backend: str, images: list[Path], tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    model, graph = request.getfixturevalue(family), request.getfixturevalue(f"{family}_graph")
    quantiser, traits, recipe = (
        Quantiser(model, graph, images, cache=tmp_path),
        load_backend(backend).TRAITS,
        Recipe("mse", smooth=True),
    )
    plan = msgspec.structs.replace(quantiser.plan(traits), recipe=str(recipe))
    report = found_in(
        model, quantiser.quantised(traits, plan, recipe), backend, images[0], tmp_path, clean=graph, every_step=True
    )
    assert report.passed, report.finding
    assert any("were passed over" in note for note in report.notes)


def test_agreement_of_the_result_is_enough(unet: ModelPredictor, unet_graph: Graph, images: list[Path], tmp_path: Path) -> None:
    report = found_in(unet, unet_graph, "onnxruntime", images[0], tmp_path, clean=unet_graph)
    assert report.passed
    assert not report.steps
    assert report.disagreement == 0
