"""A planted fault of each kind is named with its module path; a correct engine has none."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import onnx_ir as ir
import pytest
import torch

from contract.checkpoints import write
from golden.weights import tensor
from segship.backends import load_backend
from segship.cli import main
from segship.core.errors import BadArgument
from segship.core.graph import Graph
from segship.core.spec import ImageInput, Normalise
from segship.diff import Finding, Report, diff, diff_engine, model_feeds
from segship.diff.exported import diverging_graph
from segship.graph.export import export as export_module
from segship.graph.passes.edit import constant, new_node
from segship.models import build_module
from segship.pipeline import ModelPredictor, build, export, load_model
from segship.predictor import load_engine
from segship.quantiser import Quantiser
from segship.scenes import write_dataset

SIZE = (32, 32)  # square, so that swapped sides change no shape
BACKENDS = ("onnxruntime", "openvino")
Edit = Callable[[ir.Graph], None]

UNET = {"n_channels": 3, "n_classes": 3, "widths": [4, 6, 8, 10, 12], "bilinear": False}
SEGFORMER = {
    "n_classes": 5,
    "dims": [8, 16, 20, 24],
    "depths": [1, 1, 1, 1],
    "heads": [1, 2, 4, 4],
    "hidden": [16, 32, 40, 48],
    "sr_ratios": [8, 4, 2, 1],
    "head_width": 16,
    "layer_norm_eps": 1e-6,
}
SEGFORMER_FACTS = {"resize": {"type": "keep"}, "test_mode": "whole"}


def state_of(family: str, hyperparameters: dict[str, Any]) -> dict[str, torch.Tensor]:
    state = build_module(family, hyperparameters).state_dict()
    return {key: torch.from_numpy(tensor(key, list(value.shape), 0)) for key, value in state.items()}


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("data") / "scenes"
    write_dataset(folder, range(100, 104), SIZE)
    return sorted(folder.glob("*.jpg"))


@pytest.fixture(scope="module")
def unet_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(state_of("unet", UNET), tmp_path_factory.mktemp("checkpoint") / "unet.pth")


@pytest.fixture(scope="module")
def unet(unet_file: Path) -> ModelPredictor:
    return load_model(unet_file, scale=1.0)


@pytest.fixture(scope="module")
def unet_graph(unet: ModelPredictor) -> Graph:
    return export(unet, image_size=SIZE, output="logits")


@pytest.fixture(scope="module")
def segformer(tmp_path_factory: pytest.TempPathFactory) -> ModelPredictor:
    file = write(state_of("segformer", SEGFORMER), tmp_path_factory.mktemp("checkpoint") / "segformer.pth")
    return load_model(file, **SEGFORMER_FACTS)


@pytest.fixture(scope="module")
def segformer_graph(segformer: ModelPredictor) -> Graph:
    return export(segformer, image_size=SIZE, output="logits")


def edited(graph: Graph, edit: Edit) -> Graph:
    model = graph.ir.clone()
    edit(model.graph)
    return replace(graph, ir=model)


def named(graph: ir.Graph, name: str) -> ir.Node:
    return next(node for node in graph if node.name == name)


def insert_behind(graph: ir.Graph, value: ir.Value, kinds: list[tuple[str, list[ir.Value], dict[str, Any]]]) -> None:
    """Put one node for each of ``kinds`` (type, further inputs, attributes) between ``value`` and its readers."""
    uses, current = value.uses(), value
    nodes = []
    for index, (kind, inputs, attributes) in enumerate(kinds):
        dtype = ir.DataType(attributes["to"]) if kind == "Cast" else current.dtype
        nodes.append(new_node(kind, [current, *inputs], f"planted/{value.name}/{index}", dtype=dtype, attributes=attributes))
        current = nodes[-1].outputs[0]
    graph.insert_after(value.producer(), nodes)
    for node, index in uses:
        node.replace_input_with(index, current)


def found_in(
    model: ModelPredictor, planted: Graph, backend: str, image: Path, tmp_path: Path, *, clean: Graph, every_step: bool = False
) -> Report:
    engine = build(planted, backend, tmp_path / "planted.engine")
    with load_engine(engine.path) as candidate:
        return diff_engine(model, candidate, image, graph=clean, every_step=every_step)


def finding(report: Report) -> Finding:
    assert report.finding is not None
    assert not report.passed
    assert report.finding.advice
    return report.finding


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


def test_agreement_of_the_result_is_enough(unet: ModelPredictor, unet_graph: Graph, images: list[Path], tmp_path: Path) -> None:
    report = found_in(unet, unet_graph, "onnxruntime", images[0], tmp_path, clean=unet_graph)
    assert report.passed
    assert not report.steps
    assert report.disagreement == 0


@pytest.mark.parametrize("backend", BACKENDS)
def test_epsilon(backend: str, segformer: ModelPredictor, segformer_graph: Graph, images: list[Path], tmp_path: Path) -> None:
    def plant(graph: ir.Graph) -> None:
        node = named(graph, "backbone.block2.0.norm1/LayerNormalization")
        node.attributes["epsilon"] = ir.AttrFloat32("epsilon", 0.1)

    planted = edited(segformer_graph, plant)
    result = finding(found_in(segformer, planted, backend, images[0], tmp_path, clean=segformer_graph))
    assert (result.kind, result.path, result.op) == ("epsilon", "backbone.block2.0.norm1", "LayerNormalization")
    assert "epsilon of 0.1" in result.evidence
    assert "1e-06" in result.evidence


@pytest.mark.parametrize("backend", BACKENDS)
def test_half_pixel(backend: str, segformer: ModelPredictor, segformer_graph: Graph, images: list[Path], tmp_path: Path) -> None:
    def plant(graph: ir.Graph) -> None:
        for node in graph:
            if node.op_type == "Resize":
                rule = "coordinate_transformation_mode"
                node.attributes[rule] = ir.AttrString(rule, "align_corners")

    planted = edited(segformer_graph, plant)
    result = finding(found_in(segformer, planted, backend, images[0], tmp_path, clean=segformer_graph))
    assert (result.kind, result.path, result.op) == ("half-pixel", "decode_head", "Resize")
    assert "align_corners" in result.evidence


@pytest.mark.parametrize("backend", BACKENDS)
def test_layout(backend: str, unet: ModelPredictor, unet_graph: Graph, images: list[Path], tmp_path: Path) -> None:
    def plant(graph: ir.Graph) -> None:
        insert_behind(graph, named(graph, "up2/Concat").outputs[0], [("Transpose", [], {"perm": [0, 1, 3, 2]})])

    result = finding(found_in(unet, edited(unet_graph, plant), backend, images[0], tmp_path, clean=unet_graph))
    assert result.kind == "layout"
    assert result.path.startswith("up2")
    assert "(0, 1, 3, 2)" in result.evidence


def test_overflow(images: list[Path], tmp_path: Path) -> None:
    state = state_of("unet", UNET)
    for key, factor in (("1.weight", 1e6), ("1.bias", 1e6), ("3.weight", 1e-6)):  # large between two layers, the same result
        state[f"down1.maxpool_conv.1.double_conv.{key}"] *= factor
    model = load_model(write(state, tmp_path / "large.pth"), scale=1.0)
    graph = export(model, image_size=SIZE, output="logits")

    def plant(inner: ir.Graph) -> None:
        value = named(inner, "down1.maxpool_conv.1.double_conv.2/Relu").outputs[0]
        insert_behind(
            inner, value, [("Cast", [], {"to": ir.DataType.FLOAT16.value}), ("Cast", [], {"to": ir.DataType.FLOAT.value})]
        )

    result = finding(found_in(model, edited(graph, plant), "onnxruntime", images[0], tmp_path, clean=graph))
    assert result.kind == "overflow"
    assert result.path == "down1.maxpool_conv.1.double_conv.3"  # the first that reads infinity
    assert "65504" in result.evidence


@pytest.mark.parametrize("backend", BACKENDS)
def test_inside_an_engine_that_gives_labels(backend: str, unet: ModelPredictor, images: list[Path], tmp_path: Path) -> None:
    def plant(graph: ir.Graph) -> None:
        insert_behind(graph, named(graph, "up4/Concat").outputs[0], [("Transpose", [], {"perm": [0, 1, 3, 2]})])

    labels = export(unet, image_size=SIZE)
    assert labels.signature.output == "labels"
    report = found_in(unet, edited(labels, plant), backend, images[0], tmp_path, clean=labels)
    assert report.disagreement is not None
    assert report.disagreement > 0.01  # the labels were compared first: one in a hundred pixels is no tie
    result = finding(report)
    assert result.kind == "layout"
    assert result.path.startswith("up4")


@pytest.mark.parametrize("backend", BACKENDS)
def test_nan(backend: str, unet: ModelPredictor, unet_graph: Graph, images: list[Path], tmp_path: Path) -> None:
    def plant(graph: ir.Graph) -> None:
        insert_behind(graph, named(graph, "up3.up/ConvTranspose").outputs[0], [("Sqrt", [], {})])

    result = finding(found_in(unet, edited(unet_graph, plant), backend, images[0], tmp_path, clean=unet_graph))
    assert result.kind == "nan"
    assert result.path.startswith("up3")


@pytest.mark.parametrize("backend", BACKENDS)
def test_saturation(backend: str, unet: ModelPredictor, unet_graph: Graph, images: list[Path], tmp_path: Path) -> None:
    int8 = Quantiser(unet, unet_graph, images, cache=tmp_path).quantised(load_backend(backend).TRAITS)
    relu = named(unet_graph.ir.graph, "up4.conv.double_conv.2/Relu").outputs[0].name

    def plant(graph: ir.Graph) -> None:
        scale = graph.initializers[f"{relu}/scale"]
        scale.const_value = ir.tensor(scale.const_value.numpy() / np.float32(8), name=scale.name)

    result = finding(found_in(unet, edited(int8, plant), backend, images[0], tmp_path, clean=unet_graph))
    assert (result.kind, result.path) == ("saturation", "up4.conv.double_conv.0")
    assert "beyond" in result.evidence


@pytest.mark.parametrize("backend", BACKENDS)
def test_batch_that_repeats_its_first_item(
    backend: str, unet: ModelPredictor, unet_graph: Graph, images: list[Path], tmp_path: Path
) -> None:
    def plant(graph: ir.Graph) -> None:
        value = named(graph, "down2.maxpool_conv.0/MaxPool").outputs[0]
        uses = value.uses()
        shape = new_node("Shape", [value], "planted/shape", dtype=ir.DataType.INT64)
        begin, end, axis = (constant(graph, f"planted/{number}", np.array([number], np.int64)) for number in (0, 1, 0))
        first = new_node("Slice", [value, begin, end, axis], "planted/first", dtype=value.dtype)
        again = new_node("Expand", [first.outputs[0], shape.outputs[0]], "planted/again", dtype=value.dtype)
        graph.insert_after(value.producer(), [shape, first, again])
        for node, index in uses:
            node.replace_input_with(index, again.outputs[0])

    result = finding(found_in(unet, edited(unet_graph, plant), backend, images[0], tmp_path, clean=unet_graph))
    assert result.kind == "batch"
    assert result.path.startswith("down2")


@pytest.mark.parametrize("backend", BACKENDS)
def test_batch_as_a_constant_in_a_reshape(
    backend: str, unet: ModelPredictor, unet_graph: Graph, images: list[Path], tmp_path: Path
) -> None:
    def plant(graph: ir.Graph) -> None:
        value = named(graph, "down2.maxpool_conv.0/MaxPool").outputs[0]
        sides = constant(graph, "planted/sides", np.array([1, *list(value.shape)[1:]], np.int64))
        insert_behind(graph, value, [("Reshape", [sides], {})])

    result = finding(found_in(unet, edited(unet_graph, plant), backend, images[0], tmp_path, clean=unet_graph))
    assert result.kind == "batch"
    assert result.path.startswith("down2")


@pytest.mark.parametrize(
    ("rule", "evidence"),
    [
        ({"channels": "bgr"}, "opposite order"),
        ({"normalise": Normalise(1.0)}, "255 x"),
        ({"normalise": Normalise(1 / 255, mean=(0.5, 0.4, 0.3))}, "-0.5"),
    ],
    ids=["swapped channels", "scale", "mean"],
)
def test_preprocessing(
    rule: dict[str, Any], evidence: str, unet: ModelPredictor, unet_graph: Graph, images: list[Path], tmp_path: Path
) -> None:
    image: ImageInput = msgspec.structs.replace(unet_graph.spec.image, **rule)
    planted = replace(unet_graph, spec=msgspec.structs.replace(unet_graph.spec, image=image))
    result = finding(found_in(unet, planted, "onnxruntime", images[0], tmp_path, clean=unet_graph))
    assert result.kind == "preprocessing"
    assert evidence in result.evidence


def test_precision(unet: ModelPredictor, unet_graph: Graph, images: list[Path], tmp_path: Path) -> None:
    def plant(graph: ir.Graph) -> None:
        half, single = ir.DataType.BFLOAT16.value, ir.DataType.FLOAT.value
        for node in [node for node in graph if node.op_type == "Relu"]:
            insert_behind(graph, node.outputs[0], [("Cast", [], {"to": half}), ("Cast", [], {"to": single})])

    result = finding(found_in(unet, edited(unet_graph, plant), "onnxruntime", images[0], tmp_path, clean=unet_graph))
    assert result.kind == "precision"
    assert "no step stands out" in result.evidence


def test_an_unknown_error_is_not_given_a_name(
    unet: ModelPredictor, unet_graph: Graph, images: list[Path], tmp_path: Path
) -> None:
    def plant(graph: ir.Graph) -> None:
        weight = graph.initializers["down3.maxpool_conv.1.double_conv.0.weight"]
        weight.const_value = ir.tensor(np.roll(weight.const_value.numpy(), 1, axis=2), name=weight.name)

    result = finding(found_in(unet, edited(unet_graph, plant), "onnxruntime", images[0], tmp_path, clean=unet_graph))
    assert result.kind == "unexplained"
    assert result.path.startswith("down3.maxpool_conv.1.double_conv")


@pytest.fixture(scope="module")
def segformer_export(segformer: ModelPredictor) -> Graph:
    return export_module(segformer.spec, segformer.model.module, SIZE)


def in_graph(model: ModelPredictor, graph: Graph, image: Path) -> Finding | None:
    prepared = model.prepare(image)
    return diverging_graph(model, graph, model_feeds(model, prepared), prepared.frame)


def test_a_right_export_diverges_nowhere(
    segformer: ModelPredictor, segformer_export: Graph, unet: ModelPredictor, unet_graph: Graph, images: list[Path]
) -> None:
    assert in_graph(segformer, segformer_export, images[0]) is None
    assert in_graph(unet, unet_graph, images[0]) is None


def test_epsilon_of_an_export(segformer: ModelPredictor, segformer_export: Graph, images: list[Path]) -> None:
    def plant(graph: ir.Graph) -> None:
        node = named(graph, "backbone.block3.0.norm2/LayerNormalization")
        node.attributes["epsilon"] = ir.AttrFloat32("epsilon", 0.1)

    found = in_graph(segformer, edited(segformer_export, plant), images[0])
    assert found is not None
    assert (found.between, found.kind, found.path) == (("PyTorch", "graph"), "epsilon", "backbone.block3.0.norm2")
    assert "PyTorch's values fit an epsilon of 1e-06" in found.evidence


def test_half_pixel_of_an_export(segformer: ModelPredictor, segformer_export: Graph, images: list[Path]) -> None:
    def plant(graph: ir.Graph) -> None:
        for node in graph:
            if node.op_type == "Resize":
                rule = "coordinate_transformation_mode"
                node.attributes[rule] = ir.AttrString(rule, "asymmetric")

    found = in_graph(segformer, edited(segformer_export, plant), images[0])
    assert found is not None
    assert found.kind == "half-pixel"
    assert found.path.startswith("decode_head")


def test_layout_of_an_export(unet: ModelPredictor, unet_graph: Graph, images: list[Path]) -> None:
    """A convolution whose BatchNorm is folded into it is no divergence, though its module gave other values."""

    def plant(graph: ir.Graph) -> None:
        insert_behind(graph, named(graph, "up2/Concat").outputs[0], [("Transpose", [], {"perm": [0, 1, 3, 2]})])

    found = in_graph(unet, edited(unet_graph, plant), images[0])
    assert found is not None
    assert (found.kind, found.path) == ("layout", "up2.conv.double_conv.0")


def test_command(
    unet_file: Path, unet_graph: Graph, images: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def plant(graph: ir.Graph) -> None:
        insert_behind(graph, named(graph, "up3.up/ConvTranspose").outputs[0], [("Sqrt", [], {})])

    engine = build(edited(unet_graph, plant), "onnxruntime", tmp_path / "planted.engine")
    words = ["diff", str(unet_file), str(engine.path), "--image", str(images[0]), "--fact", "scale=1.0"]
    with pytest.raises(SystemExit) as end:
        main([*words, "--json"])
    assert end.value.code == 1
    printed = json.loads(capsys.readouterr().out)
    assert printed["finding"]["kind"] == "nan"
    assert printed["finding"]["advice"]
    assert printed["steps"]
    with pytest.raises(SystemExit) as end:
        main(words)
    assert end.value.code == 1
    assert "engine diverges from graph at up3" in capsys.readouterr().out


def test_another_checkpoint_is_refused(unet_graph: Graph, images: list[Path], tmp_path: Path) -> None:
    engine = build(unet_graph, "onnxruntime", tmp_path / "unet.engine")
    other = write({key: value + 1 for key, value in state_of("unet", UNET).items()}, tmp_path / "other.pth")
    with pytest.raises(BadArgument, match="is not the checkpoint that"):
        diff(other, engine.path, images[0], scale=1.0)
