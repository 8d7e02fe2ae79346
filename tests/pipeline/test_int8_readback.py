"""INT8 must really run: what the runtimes say of their own kernels, for our form and for the one that looks right and is not."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from segship.backends import load_backend
from segship.core.graph import Graph
from segship.pipeline import ModelPredictor, build
from segship.quantiser import Quantiser


@pytest.fixture(scope="module")
def quantiser(
    scene_model: ModelPredictor, scene_graph: Graph, scenes: Path, tmp_path_factory: pytest.TempPathFactory
) -> Quantiser:
    return Quantiser(scene_model, scene_graph, sorted(scenes.glob("*.jpg")), cache=tmp_path_factory.mktemp("cache"))


@pytest.mark.parametrize("backend", ["onnxruntime", "openvino"])
def test_convolutions_run_in_int8(backend: str, quantiser: Quantiser, tmp_path: Path) -> None:
    report = build(quantiser.quantised(load_backend(backend).TRAITS), backend, tmp_path / "tiny.engine").manifest.built.precision
    expected = {"int8": 22, "fp32": 1}  # 18 convolutions and 4 transposed ones; that of the logits stays float
    assert report.asked == expected
    assert report.found == expected
    assert not report.disagreements


def test_read_back_catches_symmetric_qdq_on_onnxruntime(quantiser: Quantiser, tmp_path: Path) -> None:
    """The TensorRT placement: ONNX Runtime runs every convolution with its ReLU in float, and warns nobody."""
    symmetric = msgspec.structs.replace(load_backend("onnxruntime").TRAITS, activations="symmetric", quantised_conv_output=False)
    report = build(quantiser.quantised(symmetric), "onnxruntime", tmp_path / "trap.engine").manifest.built.precision
    assert report.asked["int8"] == 22
    assert report.found is not None
    assert report.found["fp32"] >= 18  # every convolution that a ReLU follows
    assert len(report.disagreements) >= 18
    assert {(each.asked, each.found) for each in report.disagreements} == {("int8", "fp32")}


def test_weights_are_stored_in_int8(quantiser: Quantiser, tmp_path: Path) -> None:
    traits = load_backend("openvino").TRAITS
    fp32 = build(quantiser.plain(traits), "openvino", tmp_path / "fp32.engine")
    int8 = build(quantiser.quantised(traits), "openvino", tmp_path / "int8.engine")
    weights = {engine.path: (engine.network / "model.bin").stat().st_size for engine in (fp32, int8)}
    assert weights[int8.path] < 0.4 * weights[fp32.path]  # a quarter, plus scales and the float layers
