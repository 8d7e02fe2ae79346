"""The moved convolution computes the same at a fraction of the cost; where it must not move, it stays."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest

from segship.core.graph import Graph
from segship.graph.passes.edit import constant
from segship.graph.passes.hoist_pointwise import hoist_pointwise
from unit.graph.networks import Net, PlainSession, images, kinds, named

ROUNDING = 1e-5
"""Of the largest logit: the order of sums differs, nothing else."""


def resize(net: Net, x: ir.Value, name: str, channels: int, mode: str = "linear") -> ir.Value:
    """To four times the size of the deep map, which is the size of the image."""
    sizes = constant(net.graph, f"{name}/sizes", np.array([1, channels, *net.size], np.int64))
    how = {"mode": mode, "coordinate_transformation_mode": "half_pixel" if mode == "linear" else "asymmetric"}
    return net.node("Resize", [x, None, None, sizes], name, channels, **how)


def head(mode: str = "linear", side: int = 1, wide: int = 6, fused: int = 6) -> Graph:
    """Two maps, one a quarter of the other's size, resized, concatenated, fused: SegFormer's head in small."""
    net = Net()
    deep = net.conv(net.image, "deep", 3, wide, strides=[4, 4])
    flat = net.conv(net.image, "flat", 3, 5)
    joined = net.node("Concat", [resize(net, deep, "head/Resize", wide, mode), flat], "head/Concat", wide + 5, axis=1)
    x = net.node("Relu", [net.conv(joined, "fuse", wide + 5, fused, side=side)], "fuse/Relu", fused)
    return net.done(net.conv(x, "last", fused, 4), 4)


def test_the_numbers_are_the_same_and_the_concat_is_gone() -> None:
    graph = head()
    moved = hoist_pointwise(graph)
    assert moved.history[-1].changed
    assert "Concat" not in kinds(moved)
    image = images(1)[0]
    expected, found = (PlainSession(each).run({"image": image})["logits"] for each in (graph, moved))
    assert np.abs(found - expected).max() <= ROUNDING * np.abs(expected).max()


def test_the_convolution_runs_before_the_resize() -> None:
    moved = hoist_pointwise(head())
    resized = next(node for node in moved.ir.graph if node.op_type == "Resize")
    share = resized.inputs[0].producer()
    assert share.op_type == "Conv"
    assert share.metadata_props == named(head(), "fuse/Conv").metadata_props


@pytest.mark.parametrize(
    "graph",
    [head(mode="nearest"), head(side=3), head(wide=6, fused=7)],
    ids=["nearest resize", "3x3 kernel", "more channels than before"],
)
def test_other_heads_are_left_alone(graph: Graph) -> None:
    before = graph.sha256()
    left = hoist_pointwise(graph)
    assert not left.history[-1].changed
    assert kinds(left) == kinds(graph)
    assert graph.sha256() == before


def test_twice_is_once_and_the_input_is_not_modified() -> None:
    graph = head()
    before = graph.sha256()
    moved = hoist_pointwise(graph)
    assert graph.sha256() == before
    assert not hoist_pointwise(moved).history[-1].changed
