"""Tokens become maps and maps tokens with the same numbers, in the form that runtimes can cancel."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest

from segship.core.graph import Graph
from segship.core.spec import Size
from segship.graph.passes.channels_last_tokens import channels_last_tokens
from segship.graph.passes.edit import constant
from unit.graph.networks import SIZE, Net, PlainSession, images, kinds

CHANNELS = 6


def tokens_and_back(size: Size | None = SIZE, batch: int = -1) -> Graph:
    """Convolution, tokens, a linear layer, a map again, convolution: the inside of a Mix-FFN."""
    net = Net(size)
    x = shaped(net.conv(net.image, "first", 3, CHANNELS), CHANNELS, "height", "width")
    flat = shaped(
        net.node("Reshape", [x, target(net, size, "flat", joined=True, batch=batch)], "flat/Reshape"), CHANNELS, "tokens"
    )
    tokens = shaped(net.node("Transpose", [flat], "turn/Transpose", perm=[0, 2, 1]), "tokens", CHANNELS)
    tokens = shaped(net.linear(tokens, "linear", CHANNELS, CHANNELS), "tokens", CHANNELS)
    turned = shaped(net.node("Transpose", [tokens], "back/Transpose", perm=[0, 2, 1]), CHANNELS, "tokens")
    again = net.node("Reshape", [turned, target(net, size, "map", joined=False, batch=batch)], "map/Reshape")
    x = shaped(again, CHANNELS, "height", "width")
    return net.done(net.conv(x, "last", CHANNELS, 4), 4)


def shaped(value: ir.Value, *sides: int | str) -> ir.Value:
    value.shape = ir.Shape(["batch", *sides])
    return value


def target(net: Net, size: Size | None, name: str, *, joined: bool, batch: int) -> ir.Value:
    """(batch, channels, h*w) or (batch, channels, h, w): a constant for a fixed size, computed for free ones."""
    if size is not None:
        sides = [size[0] * size[1]] if joined else list(size)
        return constant(net.graph, f"{name}/shape", np.array([batch, CHANNELS, *sides], np.int64))
    lead = constant(net.graph, f"{name}/lead", np.array([batch, CHANNELS], np.int64))
    if joined:
        tail = constant(net.graph, f"{name}/tail", np.array([-1], np.int64))
        lead = constant(net.graph, f"{name}/lead0", np.array([0, CHANNELS], np.int64))
    else:
        tail = net.node("Shape", [net.image], f"{name}/Shape", start=2, end=4)
        tail.dtype = ir.DataType.INT64
    both = net.node("Concat", [lead, tail], f"{name}/Concat", axis=0)
    both.dtype = ir.DataType.INT64
    return both


@pytest.mark.parametrize("size", [SIZE, None], ids=["fixed", "free"])
def test_the_numbers_are_the_same(size: Size | None) -> None:
    graph = tokens_and_back(size)
    turned = channels_last_tokens(graph)
    assert turned.history[-1].options == {"to_map": "1", "to_tokens": "1"}
    for image in (images(1)[0], np.concatenate(images(3))):
        expected, found = (PlainSession(each).run({"image": image})["logits"] for each in (graph, turned))
        assert np.array_equal(found, expected)


def test_transposes_stand_next_to_the_convolutions() -> None:
    order = [kind for kind in kinds(channels_last_tokens(tokens_and_back())) if kind != "Add"]
    assert order == ["Conv", "Transpose", "Reshape", "MatMul", "Reshape", "Transpose", "Conv"]


def test_a_batch_copied_by_zero_is_kept_and_a_channel_copied_by_zero_is_left_alone() -> None:
    graph = tokens_and_back(batch=0)
    image = np.concatenate(images(2))
    expected, found = (PlainSession(each).run({"image": image})["logits"] for each in (graph, channels_last_tokens(graph)))
    assert np.array_equal(found, expected)
    for name in ("flat/shape", "map/shape"):
        value = graph.ir.graph.initializers[name]
        content = value.const_value.numpy().copy()
        content[1] = 0
        value.const_value = ir.tensor(content, name=name)
    assert not channels_last_tokens(graph).history[-1].changed


def test_a_reshape_that_mixes_channels_and_sides_is_left_alone() -> None:
    graph = tokens_and_back()
    for node in graph.ir.graph:
        if node.op_type == "Reshape":
            node.outputs[0].shape = ir.Shape(["batch", CHANNELS * 2, *[None] * (len(node.outputs[0].shape) - 2)])
    assert not channels_last_tokens(graph).history[-1].changed


def test_twice_is_once_and_the_input_is_not_modified() -> None:
    graph = tokens_and_back()
    before = graph.sha256()
    turned = channels_last_tokens(graph)
    assert graph.sha256() == before
    assert not channels_last_tokens(turned).history[-1].changed
