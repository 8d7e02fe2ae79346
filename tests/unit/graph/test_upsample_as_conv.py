"""A ConvTranspose in INT8 and the Conv that replaces it compute the same, also where sizes are free."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest

from segship.backends import load_backend
from segship.core.graph import Graph
from segship.core.precision import PrecisionPlan
from segship.core.spec import Size
from segship.graph.passes.insert_qdq import insert_qdq
from segship.graph.passes.legalise import legalise
from segship.graph.passes.upsample_as_conv import makes_blocks
from unit.graph.networks import SIZE, Net, PlainSession, images, kinds, named
from unit.graph.test_insert_qdq import ranges_of
from unit.graph.test_legalise import NO_UPSAMPLING, traits


def upsampling(block: Size = (2, 3), size: Size | None = SIZE, *, relu: bool = False) -> Graph:
    """A network whose second layer makes blocks of another height than width."""
    net = Net(size)
    x = net.up(net.conv(net.image, "first", 3, 8), "up", 8, 5, block, strides=list(block))
    if relu:
        x = net.node("Relu", [x], "up/Relu", 5)
    graph = net.done(net.conv(x, "last", 5, 4), 4)
    graph.ir.graph.outputs[0].shape = ir.Shape(["batch", 4, None, None])
    return graph


def both(graph: Graph, ranges_from: Graph) -> tuple[Graph, Graph]:
    """The graph in INT8 with its ConvTranspose, and without."""
    quantised = insert_qdq(graph, ranges_of(ranges_from), PrecisionPlan("int8"))
    kept = legalise(quantised, traits(quantised_conv_output=True))
    return kept, legalise(quantised, traits(quantised_conv_output=True, int8_ops=NO_UPSAMPLING))


@pytest.mark.parametrize("relu", [False, True], ids=["plain", "relu"])
@pytest.mark.parametrize("block", [(2, 2), (2, 3), (4, 1)])
def test_the_numbers_are_the_same(block: Size, relu: bool) -> None:
    graph = upsampling(block, relu=relu)
    kept, replaced = both(graph, graph)
    assert "ConvTranspose" in kinds(kept)
    assert "ConvTranspose" not in kinds(replaced)
    image = images(1, seed=5)[0]
    expected, found = (PlainSession(each).run({"image": image})["logits"] for each in (kept, replaced))
    assert np.abs(found - expected).max() <= 1e-5 * np.abs(expected).max()


def test_free_sizes_and_batches_work() -> None:
    kept, replaced = both(upsampling(size=None), upsampling())
    for size in [(16, 24), (9, 14)]:
        image = np.concatenate(images(2, size, seed=5))
        expected, found = (PlainSession(each).run({"image": image})["logits"] for each in (kept, replaced))
        assert np.abs(found - expected).max() <= 1e-5 * np.abs(expected).max()


def test_the_move_is_made_on_8_bit_values_and_the_name_stays() -> None:
    graph = upsampling()
    _, replaced = both(graph, graph)
    assert named(replaced, "up/ConvTranspose").op_type == "Conv"
    assert replaced.asked()["up/ConvTranspose"] == "int8"
    moved = named(replaced, "up/ConvTranspose/shuffle/to_last").inputs[0]
    assert moved.producer().op_type == "QuantizeLinear"
    assert replaced.history[-1].options["upsampled_by_conv"] == "1"
    unread = [node.name for node in replaced.ir.graph if not node.outputs[0].uses() and not node.outputs[0].is_graph_output()]
    assert unread == []


def test_onnxruntime_runs_it_in_int8(tmp_path_factory: pytest.TempPathFactory) -> None:
    module = load_backend("onnxruntime")
    if problem := module.probe():
        pytest.skip(problem)
    graph = upsampling((2, 2))
    _, replaced = both(graph, graph)
    built = module.build(replaced, tmp_path_factory.mktemp("engine"))
    found = {layer.precision for layer in built.precision.layers if layer.name.startswith("up/ConvTranspose")}
    assert found == {"int8"}


@pytest.mark.parametrize(
    "attributes",
    [
        {"strides": [1, 1]},
        {"strides": [2, 3], "pads": [0, 0, 1, 0]},
        {"strides": [2, 3], "output_padding": [1, 0]},
        {"strides": [2, 3], "dilations": [2, 1]},
        {"strides": [2, 3], "output_shape": [40, 80]},
        {"strides": [2, 3], "auto_pad": "SAME_UPPER"},
    ],
)
def test_overlaps_gaps_and_padding_are_left_alone(attributes: dict) -> None:
    net = Net()
    net.up(net.image, "up", 3, 4, (2, 3), strides=[2, 3])
    net.up(net.image, "other", 3, 4, (2, 3), **attributes)
    assert [makes_blocks(node) for node in net.graph] == [True, False]
