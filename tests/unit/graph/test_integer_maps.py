"""What stays float beside integer maps keeps its numbers when it takes them channels last."""

from __future__ import annotations

import msgspec
import numpy as np
import onnx_ir as ir
import pytest

from segship.backends import load_backend
from segship.core.backend import Traits
from segship.core.graph import Graph
from segship.core.precision import Keep, PrecisionPlan
from segship.core.spec import Size
from segship.graph.passes.edit import constant, constant_of
from segship.graph.passes.insert_qdq import insert_qdq
from segship.graph.passes.legalise import legalise
from unit.graph.networks import SIZE, Net, PlainSession, images, kinds, named
from unit.graph.test_insert_qdq import ranges_of
from unit.graph.test_legalise import NO_UPSAMPLING, traits

PLAN = PrecisionPlan("int8", (Keep("predict*", "fp32", "ranked"),))
OFF = traits(quantised_conv_output=True, int8_ops=NO_UPSAMPLING)
ON = msgspec.structs.replace(OFF, integers_channels_last=True)
SUMMED = 1e-6
"""Of the largest value: a 1x1 convolution and a product of matrices add 8 numbers up in different orders."""

NEAREST = {"mode": "nearest", "coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"}


def sized(value: ir.Value, channels: int, sides: tuple[int, int] | None) -> ir.Value:
    value.shape = ir.Shape(["batch", channels, *(sides or ("height", "width"))])
    return value


def heads(size: Size | None = SIZE, biases: int = 2) -> Graph:
    """Two 1x1 convolutions of one integer map, their results side by side; the first ``biases`` of them have one."""
    net = Net(size)
    x = sized(net.node("Relu", [net.conv(net.image, "trunk", 3, 8)], "trunk/Relu"), 8, size)
    parts = []
    for index, channels in enumerate((1, 3)):
        path = f"predict{index}"
        weights = [net.weight(f"{path}.weight", channels, 8, 1, 1), net.weight(f"{path}.bias", channels)]
        inputs = [x, *weights[: 2 if index < biases else 1]]
        parts.append(sized(net.node("Conv", inputs, f"{path}/Conv"), channels, size))
    return net.done(net.node("Concat", parts, "both/Concat", axis=1), 4)


def pyramid(large: tuple[int, int] = (16, 24), small: tuple[int, int] = (8, 8), **rule: str) -> Graph:
    """A coarse map enlarged to a fine one's size, both summed and convolved: a feature pyramid's step."""
    net = Net(large)
    strides = [large[0] // small[0], large[1] // small[1]]
    fine = sized(net.conv(net.image, "fine", 3, 8), 8, large)
    coarse = sized(net.conv(net.image, "coarse", 3, 8, strides=strides), 8, small)
    batch = net.node("Shape", [fine], "size/Shape", start=0, end=1)
    batch.type = ir.TensorType(ir.DataType.INT64)
    rest = constant(net.graph, "rest", np.array([8, *large], np.int64))
    sizes = net.node("Concat", [batch, rest], "size/Concat", axis=0)
    sizes.type = ir.TensorType(ir.DataType.INT64)
    enlarged = sized(net.node("Resize", [coarse, None, None, sizes], "up/Resize", **{**NEAREST, **rule}), 8, large)
    total = sized(net.node("Add", [fine, enlarged], "sum/Add"), 8, large)
    return net.done(net.conv(total, "last", 8, 4), 4)


def both(graph: Graph, chosen: Traits = ON, ranges_from: Graph | None = None) -> tuple[Graph, Graph]:
    """The INT8 graph without these passes, and with them."""
    quantised = insert_qdq(graph, ranges_of(ranges_from or graph, PLAN), PLAN)
    return legalise(quantised, OFF), legalise(quantised, chosen)


def difference(expected: Graph, found: Graph, image: np.ndarray | None = None) -> float:
    """The largest, as a share of the largest value; node by node, nothing fused."""
    feeds = {"image": np.concatenate(images(2, seed=5)) if image is None else image}
    first, second = (PlainSession(each).run(feeds)["logits"] for each in (expected, found))
    assert first.shape == second.shape
    return float(np.abs(first - second).max() / np.abs(first).max())


@pytest.mark.parametrize("biases", [2, 1])
def test_convolutions_of_one_integer_map_are_one_product(biases: int) -> None:
    before, after = both(heads(biases=biases))
    assert after.history[-1].options["products_of_integers"] == "2"
    assert kinds(after).count("Gemm") == 1
    assert kinds(after).count("Conv") == kinds(before).count("Conv") - 2
    assert difference(before, after) <= SUMMED
    assert after.asked()["predict0/Conv"] == "fp32"


def test_free_sizes_work() -> None:
    before, after = both(heads(None), ranges_from=heads())
    assert "MatMul" in kinds(after)
    for size in ((16, 24), (9, 14)):
        assert difference(before, after, images(1, size, seed=5)[0]) <= SUMMED


def test_a_channel_in_the_wrong_place_is_seen() -> None:
    before, after = both(heads())
    product = named(after, "predict0/Conv")
    matrix = constant_of(product.inputs[1])
    assert matrix is not None
    product.replace_input_with(1, constant(after.ir.graph, "turned", np.roll(matrix, 1, axis=1)))
    assert difference(before, after) > 1e4 * SUMMED


def test_a_float_map_and_other_backends_are_left_alone() -> None:
    graph = heads()
    assert kinds(legalise(graph, ON)) == kinds(graph)
    before, _ = both(graph)
    assert "Gemm" not in kinds(before)


@pytest.mark.parametrize("small", [(8, 8), (16, 12), (4, 24)])
def test_pixels_are_repeated_as_integers(small: Size) -> None:
    before, after = both(pyramid(small=small))
    assert after.history[-1].options["repeated_integers"] == "1"
    assert "Resize" not in kinds(after)
    assert named(after, "up/Resize/repeated").outputs[0].dtype == ir.DataType.UINT8
    assert difference(before, after) == 0.0  # values are only picked


@pytest.mark.parametrize(
    "graph", [pyramid((16, 24), (7, 8)), pyramid(nearest_mode="ceil"), pyramid(mode="linear")], ids=["part", "ceil", "linear"]
)
def test_other_resizes_are_left_alone(graph: Graph) -> None:
    assert named(both(graph)[1], "up/Resize").op_type == "Resize"


def test_sizes_are_asked_of_integers() -> None:
    before, after = both(pyramid())
    asked = [named(each, "size/Shape").inputs[0] for each in (before, after)]
    assert [value.dtype for value in asked] == [ir.DataType.FLOAT, ir.DataType.UINT8]


@pytest.mark.parametrize("graph", [heads(), pyramid()], ids=["heads", "pyramid"])
def test_twice_is_the_same(graph: Graph) -> None:
    _, once = both(graph)
    assert kinds(legalise(once, ON)) == kinds(once)


def test_onnxruntime_adds_up_in_integers(tmp_path_factory: pytest.TempPathFactory) -> None:
    module = load_backend("onnxruntime")
    if problem := module.probe():
        pytest.skip(problem)
    directory = tmp_path_factory.mktemp("engine")
    module.build(both(pyramid(), module.TRAITS)[1], directory)
    built = [node.op_type for node in ir.load(directory / module.MODEL).graph]
    assert "QLinearAdd" in built
    assert "Resize" not in built
