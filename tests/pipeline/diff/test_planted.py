"""A fault of each kind, planted in an engine, is named with its module path."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import onnx_ir as ir
import pytest

from contract.checkpoints import write
from pipeline.diff.planting import BACKENDS, SIZE, UNET, edited, finding, found_in, insert_behind, named, state_of
from segship.backends import load_backend
from segship.core.graph import Graph
from segship.core.spec import ImageInput, Normalise
from segship.graph.passes.edit import constant, new_node
from segship.pipeline import ModelPredictor, export, load_model
from segship.quantiser import Quantiser


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
