"""Resizing a narrow map before its linear layer gives the same numbers with one sum less; other heads are left alone."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest

from segship.core.graph import Graph
from segship.core.spec import Size
from segship.graph.passes.edit import constant
from segship.graph.passes.join_narrow import join_narrow
from unit.graph.networks import SIZE, Net, PlainSession, images, kinds, named

ROUNDING = 1e-5
"""Of the largest logit: the order of sums differs, nothing else."""
WIDTH = 8


def head(
    narrow: int = 2,
    mode: str = "linear",
    size: Size | None = SIZE,
    *,
    measured: bool = False,
    wide: bool = True,
    asked: bool = False,
) -> Graph:
    """A map of half the size and the image, each through a linear layer on tokens; the first resized, both summed.

    ``measured``: the sizes are computed as exporters do it, the number of channels taken from the map to resize.
    Without ``wide``, a convolution stands in the place of the second linear layer; ``asked``: another node asks for the first
    one's shape.
    """
    net = Net(size)
    half = net.conv(net.image, "half", 3, narrow, strides=[2, 2])
    deep = linear(net, half, "deep", narrow, (SIZE[0] // 2, SIZE[1] // 2))
    sizes = constant(net.graph, "sizes", np.array([1, WIDTH, *SIZE], np.int64))
    if measured:
        batch = net.node("Shape", [deep], "head/Shape", start=0, end=2)
        sizes = net.node("Concat", [batch, constant(net.graph, "sides", np.array(SIZE, np.int64))], "head/Concat", axis=0)
        batch.type = sizes.type = ir.TensorType(ir.DataType.INT64)
    how = {"mode": mode, "coordinate_transformation_mode": "half_pixel" if mode == "linear" else "asymmetric"}
    large = shaped(net.node("Resize", [deep, None, None, sizes], "head/Resize", **how), WIDTH, *SIZE)
    flat = linear(net, net.image, "flat", 3, SIZE) if wide else net.conv(net.image, "flat", 3, WIDTH)
    if asked:
        shape = net.node("Shape", [deep], "asked/Shape", start=1, end=2)
        shape.type = ir.TensorType(ir.DataType.INT64)
        flat = net.node("Add", [flat, net.node("Cast", [shape], "asked/Cast", to=1)], "asked/Add", WIDTH)
        flat = linear(net, flat, "again", WIDTH, SIZE)
    x = net.node("Relu", [net.node("Add", [large, flat], "sum/Add", WIDTH)], "relu/Relu", WIDTH)
    return net.done(net.conv(x, "last", WIDTH, 4), 4)


def linear(net: Net, x: ir.Value, path: str, c_in: int, size: Size) -> ir.Value:
    """A linear layer on the pixels of a map of ``size``."""
    last = shaped(net.node("Transpose", [x], f"{path}/move", perm=[0, 2, 3, 1]), *size, c_in)
    rows = constant(net.graph, f"{path}/rows", np.array([0, -1, c_in], np.int64))
    tokens = shaped(net.node("Reshape", [last, rows], f"{path}/join"), None, c_in)
    tokens = shaped(net.linear(tokens, path, c_in, WIDTH), None, WIDTH)
    sides = constant(net.graph, f"{path}/sides", np.array([0, *size, WIDTH], np.int64))
    split = shaped(net.node("Reshape", [tokens, sides], f"{path}/split"), *size, WIDTH)
    return shaped(net.node("Transpose", [split], f"{path}/back", perm=[0, 3, 1, 2]), WIDTH, *size)


def shaped(value: ir.Value, *sides: int | None) -> ir.Value:
    value.shape = ir.Shape(["batch", *sides])
    return value


def logits(graph: Graph, image: np.ndarray) -> np.ndarray:
    return PlainSession(graph).run({"image": image})["logits"]


@pytest.mark.parametrize("measured", [False, True], ids=["sizes given", "sizes measured"])
def test_the_numbers_are_the_same_and_the_sum_is_gone(measured: bool) -> None:
    graph = head(measured=measured)
    joined = join_narrow(graph)
    assert joined.history[-1].options == {"joined": "1"}
    assert kinds(joined).count("MatMul") == kinds(graph).count("MatMul") - 1
    assert named(joined, "head/Resize/narrow").outputs[0].shape[1] == 2
    image = images(1)[0]
    expected = logits(graph, image)
    assert np.abs(logits(joined, image) - expected).max() <= ROUNDING * np.abs(expected).max()


def test_any_number_of_images() -> None:
    graph, image = head(measured=True), np.concatenate(images(3))
    expected = logits(graph, image)
    assert np.abs(logits(join_narrow(graph), image) - expected).max() <= ROUNDING * np.abs(expected).max()


def test_a_lost_bias_would_be_seen() -> None:
    graph, image = head(), images(1)[0]
    joined = join_narrow(graph)
    bias = joined.ir.graph.initializers["flat/Add/joined.bias"]
    bias.const_value = ir.tensor(bias.const_value.numpy() - graph.ir.graph.initializers["deep.bias"].const_value.numpy())
    expected = logits(graph, image)
    assert np.abs(logits(joined, image) - expected).max() > 100 * ROUNDING * np.abs(expected).max()


@pytest.mark.parametrize(
    "graph",
    [head(narrow=3), head(mode="nearest"), head(measured=True, wide=False), head(asked=True)],
    ids=["not narrow", "nearest resize", "nothing to join", "its shape is asked for"],
)
def test_other_heads_are_left_alone(graph: Graph) -> None:
    before = graph.sha256()
    left = join_narrow(graph)
    assert not left.history[-1].changed
    assert kinds(left) == kinds(graph)
    assert graph.sha256() == before
    assert np.array_equal(logits(left, images(1)[0]), logits(graph, images(1)[0]))


def test_twice_is_once_and_the_input_is_not_modified() -> None:
    graph = head()
    before = graph.sha256()
    joined = join_narrow(graph)
    assert graph.sha256() == before
    assert not join_narrow(joined).history[-1].changed
