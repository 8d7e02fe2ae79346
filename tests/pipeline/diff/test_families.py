"""The networks of the demo, trained: nothing is found on a correct engine, and a fault in what samples at points is named."""

from __future__ import annotations

from functools import cache
from importlib.resources import files
from pathlib import Path

import onnx_ir as ir
import pytest

from pipeline.diff.planting import BACKENDS, edited, finding, found_in
from segship.backends import load_backend
from segship.core.graph import Graph
from segship.demo import ALL, Model
from segship.pipeline import ModelPredictor, export, load_model
from segship.quantiser import Quantiser
from segship.scenes import write_dataset

SIZE = (96, 128)
KEEP = {
    "scenes-segformer": {"resize": {"type": "keep"}},
    "scenes-maskrcnn": {"resize": {"type": "keep"}},
    "scenes-panopticfcn": {"shortest_side": 96},
}
"""Without the enlargement that these networks were trained with: small is quick."""

_, _, POINTREND, MASKRCNN, _ = ALL


@cache
def network(model: Model) -> tuple[ModelPredictor, Graph]:
    loaded = load_model(Path(str(files("segship") / "assets")) / model.asset, **KEEP.get(model.name, {}))
    return loaded, export(loaded, image_size=SIZE)


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("scenes")
    write_dataset(folder, range(100, 104), SIZE)
    return sorted(folder.glob("*.jpg"))


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("model", ALL[2:], ids=lambda model: model.name)  # tiny ones of the first two are in test_correct.py
def test_a_correct_fp32_engine_has_none(model: Model, backend: str, scenes: list[Path], tmp_path: Path) -> None:
    loaded, graph = network(model)
    report = found_in(loaded, graph, backend, scenes[0], tmp_path, clean=graph, every_step=True)
    assert report.passed, report.finding
    assert len(report.steps) > 15
    assert max(step.own for step in report.steps) < 5e-5  # FP32 in another order: 5e-6 is found, behind long sums


@pytest.mark.slow
@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("model", ALL, ids=lambda model: model.name)
def test_a_correct_int8_engine_has_none(model: Model, backend: str, scenes: list[Path], tmp_path: Path) -> None:
    loaded, graph = network(model)
    int8 = Quantiser(loaded, graph, scenes, cache=tmp_path).quantised(load_backend(backend).TRAITS)
    report = found_in(loaded, int8, backend, scenes[0], tmp_path, clean=graph, every_step=True)
    assert report.passed, report.finding
    assert max(step.own for step in report.steps) > 1e-3  # the walk has seen 8 bits, not their floating-point originals


@pytest.mark.slow
@pytest.mark.parametrize("backend", BACKENDS)
def test_as_many_channels_as_rows_and_columns_are_told_apart(backend: str, tmp_path: Path) -> None:
    """64 channels of 64 x 64: whether an engine holds them channels last cannot be seen by their shape."""
    loaded = network(POINTREND)[0]
    graph = export(loaded, image_size=(256, 256))
    write_dataset(tmp_path / "square", range(100, 104), (256, 256))
    square = sorted((tmp_path / "square").glob("*.jpg"))
    int8 = Quantiser(loaded, graph, square, cache=tmp_path).quantised(load_backend(backend).TRAITS)
    report = found_in(loaded, int8, backend, square[0], tmp_path, clean=graph, every_step=True)
    assert report.passed, report.finding
    assert any(step.shape == (1, 64, 64, 64) for step in report.steps)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(
    ("model", "op", "rule", "path"),
    [
        (MASKRCNN, "RoiAlign", ir.AttrString("coordinate_transformation_mode", "output_half_pixel"), "roi_heads"),
        (POINTREND, "GridSample", ir.AttrInt64("align_corners", 1), "sem_seg_head"),
    ],
    ids=["RoiAlign", "GridSample"],
)
def test_half_pixel_rules_of_what_samples_at_points(
    model: Model, op: str, rule: ir.Attr, path: str, backend: str, scenes: list[Path], tmp_path: Path
) -> None:
    def plant(graph: ir.Graph) -> None:
        for node in graph:
            if node.op_type == op:
                node.attributes[rule.name] = rule

    loaded, graph = network(model)
    result = finding(found_in(loaded, edited(graph, plant), backend, scenes[0], tmp_path, clean=graph, every_step=True))
    assert (result.kind, result.op) == ("half-pixel", op)
    assert result.path.startswith(path)
