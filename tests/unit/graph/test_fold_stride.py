"""A convolution with a stride over an image's channels, and the one over blocks that replaces it, sum the same integers."""

from __future__ import annotations

import msgspec
import numpy as np
import onnx_ir as ir
import pytest

from segship.backends import load_backend
from segship.core.graph import Graph
from segship.core.precision import PrecisionPlan
from segship.core.spec import Size
from segship.graph.passes.edit import constant, constant_of
from segship.graph.passes.insert_qdq import insert_qdq
from segship.graph.passes.legalise import legalise
from unit.graph.networks import SIZE, Net, PlainSession, images, named
from unit.graph.test_insert_qdq import ranges_of
from unit.graph.test_legalise import NO_UPSAMPLING, traits

OFF = traits(quantised_conv_output=True, int8_ops=NO_UPSAMPLING)
ON = msgspec.structs.replace(OFF, integers_channels_last=True)


def stem(kernel: Size, strides: Size, pads: tuple[int, int, int, int], size: Size | None = SIZE, channels: int = 3) -> Graph:
    """One convolution over an image, and a second one, so that the first is not the last."""
    net = Net(size)
    x = net.image if channels == 3 else net.conv(net.image, "before", 3, channels)
    if size is not None:
        x.shape = ir.Shape(["batch", channels, *size])
    weights = [net.weight("stem.weight", 8, channels, *kernel), net.weight("stem.bias", 8)]
    x = net.node("Relu", [net.node("Conv", [x, *weights], "stem/Conv", 8, strides=strides, pads=pads)], "stem/Relu", 8)
    graph = net.done(net.conv(x, "last", 8, 4), 4)
    graph.ir.graph.outputs[0].shape = ir.Shape(["batch", 4, None, None])
    return graph


def both(graph: Graph, ranges_from: Graph | None = None) -> tuple[Graph, Graph]:
    quantised = insert_qdq(graph, ranges_of(ranges_from or graph), PrecisionPlan("int8"))
    return legalise(quantised, OFF), legalise(quantised, ON)


def difference(before: Graph, after: Graph) -> float:
    feeds = {"image": np.concatenate(images(2, seed=5)) - 0.5}
    expected, found = (PlainSession(each).run(feeds)["logits"] for each in (before, after))
    assert expected.shape == found.shape
    return float(np.abs(expected - found).max() / np.abs(expected).max())


SAME = 1e-6
"""Of the largest logit: as written, the products are summed in float, over blocks in another order than over pixels."""


@pytest.mark.parametrize(
    ("kernel", "strides", "pads"),
    [
        ((7, 7), (2, 2), (3, 3, 3, 3)),  # ResNet
        ((7, 7), (4, 4), (3, 3, 3, 3)),  # SegFormer
        ((4, 4), (4, 4), (0, 0, 0, 0)),
        ((3, 5), (2, 4), (1, 2, 0, 3)),  # nothing the same along both axes
    ],
)
def test_the_numbers_are_the_same(kernel: Size, strides: Size, pads: tuple[int, int, int, int]) -> None:
    before, after = both(stem(kernel, strides, pads))
    assert after.history[-1].options["strides_folded"] == "1"
    assert named(after, "stem/Conv").attributes.get_ints("strides") == (1, 1)
    assert after.asked() == before.asked()
    assert difference(before, after) <= SAME


def test_places_in_another_order_are_seen() -> None:
    before, after = both(stem((7, 7), (2, 2), (3, 3, 3, 3)))
    weight = named(after, "stem/Conv/blocks/kernel")
    content = constant_of(weight.inputs[0])
    assert content is not None
    weight.replace_input_with(0, constant(after.ir.graph, "turned", np.roll(content, 1, axis=1)))
    assert difference(before, after) > 1e4 * SAME


def test_what_does_not_fit_is_left_alone() -> None:
    inside = (1, 1, 1, 1)
    graphs = [
        (stem((3, 3), (1, 1), inside), None),  # no stride
        (stem((3, 3), (3, 3), inside), None),  # 16 rows make no blocks of 3
        (stem((3, 3), (2, 2), inside, channels=8), None),  # many channels
        (stem((3, 3), (2, 2), inside, size=None), stem((3, 3), (2, 2), inside)),  # free sizes
    ]
    for graph, ranges_from in graphs:
        assert both(graph, ranges_from)[1].history[-1].options["strides_folded"] == "0"
    assert legalise(stem((7, 7), (2, 2), (3, 3, 3, 3)), ON).history[-1].options["strides_folded"] == "0"  # float


def test_twice_is_the_same() -> None:
    _, once = both(stem((7, 7), (2, 2), (3, 3, 3, 3)))
    assert legalise(once, ON).history[-1].options["strides_folded"] == "0"


def test_onnxruntime_runs_it_in_int8_with_the_same_numbers(tmp_path_factory: pytest.TempPathFactory) -> None:
    module = load_backend("onnxruntime")
    if problem := module.probe():
        pytest.skip(problem)
    # without VNNI, AVX2 sums pairs of products in 16 bits: at half the brightness, 128 * 127 * 2, none of them saturates
    dim = images(1, seed=5)[0] / 2
    found = []
    for graph in both(stem((7, 7), (2, 2), (3, 3, 3, 3))):
        directory = tmp_path_factory.mktemp("engine")
        built = module.build(graph, directory)
        assert {layer.precision for layer in built.precision.layers if layer.name.startswith("stem/Conv")} == {"int8"}
        found.append(module.load(directory, graph.signature, threads=1).run({"image": dim})["logits"])
    np.testing.assert_array_equal(*found)  # integers are summed exactly
