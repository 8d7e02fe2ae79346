"""Smoothing changes no result in float, moves outliers into weights, and keeps away from where it cannot."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest

from segship.core.errors import BuildFailed
from segship.core.graph import Graph
from segship.graph.passes.edit import constant, constant_of
from segship.graph.passes.smooth import smooth, tensors_to_smooth
from unit.graph.demo_networks import NAMES, demo_graph, scene_inputs
from unit.graph.networks import Net, images, named, small_unet
from unit.graph.observed import in_int8, logits, maxima, signal_to_noise, smoothed

WIDTH = 24
ROUNDING = 1e-4
"""Of the result's standard deviation: weights times a factor, rounded to float32, in networks of dozens of layers."""


def normed(net: Net, x: ir.Value, path: str, outlier: float = 1.0) -> ir.Value:
    """LayerNorm over the last axis; ``outlier`` multiplies one channel, as trained transformers do."""
    scale, shift = np.ones(WIDTH, np.float32), np.zeros(WIDTH, np.float32)
    scale[5] = outlier
    inputs = [x, constant(net.graph, f"{path}.weight", scale), constant(net.graph, f"{path}.bias", shift)]
    return shaped(net.node("LayerNormalization", inputs, f"{path}/LayerNormalization", axis=-1))


def shaped(value: ir.Value) -> ir.Value:
    value.shape = ir.Shape(["batch", 3, 16, WIDTH])
    return value


def outlying(outlier: float = 100.0) -> Graph:
    """LayerNorm with an outlier channel, and a linear layer that gives it little weight, as in large transformers."""
    net = Net()
    tokens = normed(net, net.image, "norm", outlier)
    wide = shaped(net.linear(tokens, "linear", WIDTH, WIDTH))
    weight = net.graph.initializers["linear.weight"]
    content = constant_of(weight).copy()
    content[5] /= outlier
    weight.const_value = ir.tensor(content, name=weight.name)
    return net.done(shaped(net.linear(net.node("Relu", [wide], "linear/Relu"), "last", WIDTH, WIDTH)), 3)


@pytest.mark.parametrize("name", NAMES)
def test_the_demo_networks_compute_the_same(name: str) -> None:
    graph = demo_graph(name)
    inputs = scene_inputs(graph, 2)
    after = smoothed(graph, inputs)
    assert after.history[-1].changed
    assert int(after.history[-1].options["tensors"]) >= 14
    expected, found = logits(graph, inputs), logits(after, inputs)
    assert np.abs(found - expected).max() < ROUNDING * expected.std()


def test_a_planted_outlier_channel_costs_nothing_once_smoothed() -> None:
    graph, inputs = outlying(), images(4, seed=1)
    plain = signal_to_noise(graph, in_int8(graph, inputs), inputs)
    after = smoothed(graph, inputs)
    mended = signal_to_noise(graph, in_int8(after, inputs), inputs)
    without = outlying(outlier=1.0)
    clean = signal_to_noise(without, in_int8(without, inputs), inputs)
    assert plain < 25  # 8 bits for the outlier leave the others two or three
    assert mended > clean - 3
    expected = logits(graph, inputs)
    assert np.abs(logits(after, inputs) - expected).max() < ROUNDING * expected.std()


def test_twice_is_once() -> None:
    graph, inputs = outlying(), images(4, seed=1)
    once = smoothed(graph, inputs)
    twice = smoothed(once, inputs)
    for node in ("linear/MatMul", "last/MatMul"):
        first, second = (constant_of(named(each, node).inputs[1]) for each in (once, twice))
        assert second == pytest.approx(first, rel=1e-4)  # the factors of the second time are 1, but for rounding


def test_convolutions_smooth_through_relu_and_pooling_and_stop_at_concat() -> None:
    assert tensors_to_smooth(small_unet()) == {"deep/Relu/out": 1, "wide/Relu/out": 1}


def test_pooling_over_the_axis_of_channels_stops_it() -> None:
    net = Net()
    pooled = net.node("MaxPool", [normed(net, net.image, "norm")], "pool/MaxPool", kernel_shape=[1, 3], pads=[0, 1, 0, 1])
    graph = net.done(shaped(net.linear(shaped(pooled), "last", WIDTH, WIDTH)), 3)
    assert tensors_to_smooth(graph) == {}


def test_what_others_read_too_stays() -> None:
    net = Net()
    tokens = normed(net, net.image, "norm", 50.0)
    total = net.node("Add", [shaped(net.linear(tokens, "linear", WIDTH, WIDTH)), tokens], "residual/Add")
    graph = net.done(shaped(total), 3)
    assert tensors_to_smooth(graph) == {}
    after = smooth(graph, {})
    assert not after.history[-1].changed


def test_weights_that_are_shared_are_smoothed_for_each_reader_alone() -> None:
    net = Net()
    first = net.node("Relu", [net.conv(net.image, "first", 3, 8)], "first/Relu", 8)
    once = net.conv(first, "shared", 8, 8)
    between = net.node("Relu", [once], "shared/Relu", 8)
    again = net.node("Conv", [between, *once.producer().inputs[1:]], "again/Conv", 8, pads=[1] * 4)
    graph = net.done(net.conv(net.node("Relu", [again], "again/Relu", 8), "last", 8, 4), 4)
    inputs = images(2)
    expected = logits(graph, inputs)
    assert np.abs(logits(smoothed(graph, inputs), inputs) - expected).max() < ROUNDING * expected.std()


def test_a_silent_channel_and_one_without_weights_keep_their_size() -> None:
    graph, inputs = small_unet(), images(2)
    found = maxima(graph, inputs)
    found["deep/Relu/out"][3] = 0.0
    after = smooth(graph, found)
    before = constant_of(named(graph, "deep/Conv").inputs[1])
    assert np.array_equal(constant_of(named(after, "deep/Conv").inputs[1])[3], before[3])


def test_channels_that_were_not_observed_are_an_error() -> None:
    with pytest.raises(BuildFailed, match="deep/Relu/out"):
        smooth(small_unet(), {})
