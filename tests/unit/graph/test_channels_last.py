"""What keeps maps channels last: group normalisation from channels' means, sides joined behind the channels' move."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest

from segship.core.backend import Traits
from segship.core.graph import Graph
from segship.core.spec import Size
from segship.graph.passes.edit import constant
from segship.graph.passes.legalise import legalise
from unit.graph.networks import SIZE, Net, PlainSession, images, kinds

LAST, FIRST = (Traits(precisions=("fp32",), channels_last=last) for last in (True, False))


def group_norm(net: Net, x: ir.Value, groups: int, channels: int) -> ir.Value:
    """As PyTorch exports it."""
    ints = constant(net.graph, "split", np.array([0, groups, -1], np.int64))
    ones = constant(net.graph, "ones", np.ones(groups, np.float32))
    zeros = constant(net.graph, "zeros", np.zeros(groups, np.float32))
    split = net.node("Reshape", [x, ints], "norm/Reshape")
    inner = net.node("InstanceNormalization", [split, ones, zeros], "norm/InstanceNormalization", epsilon=1e-3)
    shape = net.node("Shape", [x], "norm/Shape")
    shape.type = ir.TensorType(ir.DataType.INT64)
    back = net.node("Reshape", [inner, shape], "norm/Reshape_1", channels)
    scaled = net.node("Mul", [back, net.weight("norm.weight", channels, 1, 1)], "norm/Mul", channels)
    return net.node("Add", [scaled, net.weight("norm.bias", channels, 1, 1)], "norm/Add", channels)


def normalised(groups: int, channels: int = 8) -> Graph:
    net = Net()
    return net.done(
        net.conv(group_norm(net, net.conv(net.image, "first", 3, channels), groups, channels), "last", channels, 3), 3
    )


def flattened(channels: int) -> Graph:
    """A product of weights and a map whose sides are joined, as kernels are laid over features."""
    net, area = Net(), SIZE[0] * SIZE[1]
    x = net.conv(net.image, "first", 3, channels)
    joined = net.node("Reshape", [x, constant(net.graph, "target", np.array([0, channels, area], np.int64))], "join/Reshape")
    joined.shape = ir.Shape(["batch", channels, area])
    product = net.node("MatMul", [net.weight("kernels", 3, channels), joined], "product/MatMul")
    sides = constant(net.graph, "sides", np.array([0, 3, *SIZE], np.int64))
    return net.done(net.node("Reshape", [product, sides], "out/Reshape", 3), 3)


def logits(graph: Graph) -> np.ndarray:
    return PlainSession(graph).run({"image": np.concatenate(images(2, seed=3)) + 10})["logits"]


@pytest.mark.parametrize("groups", [1, 2, 8])
def test_group_norm_by_channels_has_the_same_numbers(groups: int) -> None:
    graph = normalised(groups)
    changed = legalise(graph, LAST)
    assert "InstanceNormalization" not in kinds(changed)
    assert "Shape" not in kinds(changed)
    # images are far from zero, so that a variance from sums of squares would be wrong; 1e-4 is float32's rounding there
    np.testing.assert_allclose(logits(changed), logits(graph), rtol=1e-4, atol=1e-4)


def test_sides_are_joined_behind_the_channels_move() -> None:
    graph = flattened(4)
    changed = legalise(graph, LAST)
    assert kinds(changed).count("Transpose") == 2
    np.testing.assert_allclose(logits(changed), logits(graph), rtol=1e-5, atol=1e-5)  # the same products, maybe in another order


def test_other_graphs_and_other_backends_are_left_alone() -> None:
    for graph in (normalised(2), flattened(4)):
        assert kinds(legalise(graph, FIRST)) == kinds(graph)
    assert "Transpose" not in kinds(legalise(flattened(1), LAST))  # one channel lies the same either way
    net = Net()
    twice = group_norm(net, net.conv(net.image, "first", 3, 8), 2, 8)
    inner = next(node for node in net.graph if node.op_type == "InstanceNormalization")
    scale = constant(net.graph, "not_ones", np.full(2, 2, np.float32))
    inner.replace_input_with(1, scale)  # no group normalisation: its groups have scales of their own
    assert "InstanceNormalization" in kinds(legalise(net.done(net.conv(twice, "last", 8, 3), 3), LAST))


def test_twice_is_the_same() -> None:
    for graph in (normalised(2), flattened(4)):
        once = legalise(graph, LAST)
        assert kinds(legalise(once, LAST)) == kinds(once)


def sampled(size: Size | None = SIZE) -> Graph:
    """Two samplings of one map at the image's own pixels."""
    net = Net(size)
    features = net.conv(net.image, "first", 3, 4)
    features.shape = ir.Shape(["batch", 4, *(size or ("height", "width"))])
    grid = net.node("Transpose", [net.conv(net.image, "grid", 3, 2)], "where/Transpose", perm=[0, 2, 3, 1])
    first = net.node("GridSample", [features, grid], "one/GridSample", 4, align_corners=0)
    second = net.node("GridSample", [features, grid], "other/GridSample", 4, align_corners=1)
    return net.done(net.conv(net.node("Add", [first, second], "sum/Add", 4), "last", 4, 3), 3)


@pytest.mark.parametrize("size", [SIZE, None], ids=["fixed size", "free size"])
def test_a_map_is_turned_once_for_all_that_sample_it(size: Size | None) -> None:
    graph = sampled(size)
    changed = legalise(graph, LAST)
    assert changed.history[-1].options["sampled_from_planes"] == "1"
    assert kinds(changed).count("Transpose") == kinds(graph).count("Transpose") + 2
    assert np.array_equal(logits(changed), logits(graph))
