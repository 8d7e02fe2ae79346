"""What diverges already between PyTorch and the graph that is exported of it."""

from __future__ import annotations

from pathlib import Path

import onnx_ir as ir
import pytest

from pipeline.diff.planting import SIZE, edited, insert_behind, named
from segship.core.graph import Graph
from segship.diff import Finding, model_feeds
from segship.diff.exported import diverging_graph
from segship.graph.export import export as export_module
from segship.pipeline import ModelPredictor


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
