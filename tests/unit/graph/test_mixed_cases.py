"""What spoils INT8 in practice, planted in tiny networks: a plan of INT8 and FP16 restores the numbers, or they hold at once."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest

from segship.core.errors import BuildFailed
from segship.core.graph import Graph
from segship.core.precision import Keep, PrecisionPlan
from segship.graph.inner_sums import tensors_for_half, with_inner_sums
from segship.graph.passes.edit import constant_of
from segship.graph.passes.insert_qdq import tensors_to_quantise
from segship.graph.passes.to_half import to_half
from segship.graph.plan import half_plan
from segship.graph.recipe import written
from unit.graph.networks import Net, PlainSession, images, named
from unit.graph.typed import NumpySession, RoundedSession, check_types, extremes

FINE, SPOILT = 0.06, 0.09
"""Error's standard deviation, in that of the logits: 8 bits cost 0.01 to 0.05 here, channels that vanish twice that and more."""


def noise(graph: Graph, *keep: str) -> float:
    """Error of the graph in INT8 + FP16, with FP16 at ``keep``."""
    plan = PrecisionPlan("int8", tuple(Keep(where, "fp16", "a test") for where in keep), rest="fp16")
    mixed = written(graph, plan, extremes(graph, tensors_to_quantise(graph, plan), images(4, seed=1)))
    check_types(mixed)
    image = {"image": images(1, seed=9)[0]}
    expected, found = PlainSession(graph).run(image)["logits"], RoundedSession(mixed).run(image)["logits"]
    return float((found - expected).std() / expected.std())


def scale(net: Net, name: str, where: object, factor: float) -> None:
    value = net.graph.initializers[name]
    content = value.const_value.numpy().copy()
    content[where] *= np.float32(factor)
    value.const_value = ir.tensor(content, name=name)


def relu(net: Net, x: ir.Value, path: str, channels: int) -> ir.Value:
    return net.node("Relu", [x], f"{path}/Relu", channels)


def test_an_outlier_channel_spoils_int8_and_float16_around_it_restores() -> None:
    net = Net()
    x = relu(net, net.conv(net.image, "a", 3, 8), "a", 8)
    x = relu(net, net.conv(x, "b", 8, 8), "b", 8)
    graph = net.done(net.conv(x, "last", 8, 4), 4)
    assert noise(graph) < FINE
    for name, where, factor in (("a.weight", 0, 2000), ("a.bias", 0, 2000), ("b.weight", np.s_[:, 0], 1 / 2000)):
        scale(net, name, where, factor)
    assert noise(graph) > SPOILT
    assert noise(graph, "a", "b") < FINE


def test_a_depthwise_layer_of_unlike_channels_has_exact_weights_but_spoils_its_result_until_float16() -> None:
    net = Net()
    x = relu(net, net.conv(net.image, "a", 3, 8), "a", 8)
    inputs = [x, net.weight("depthwise.weight", 8, 1, 3, 3), net.weight("depthwise.bias", 8)]
    deep = relu(net, net.node("Conv", inputs, "depthwise/Conv", 8, pads=[1] * 4, group=8), "depthwise", 8)
    graph = net.done(net.conv(deep, "last", 8, 4), 4)
    assert noise(graph) < FINE
    growing = np.logspace(-2, 2, 8)
    scale(net, "depthwise.weight", np.s_[:], growing[:, None, None, None])
    scale(net, "depthwise.bias", np.s_[:], growing)
    scale(net, "last.weight", np.s_[:], 1 / growing[:, None, None])
    plan = PrecisionPlan("int8", rest="fp16")
    mixed = written(graph, plan, extremes(graph, tensors_to_quantise(graph, plan), images(1)))
    content = constant_of(named(mixed, "depthwise/Conv").inputs[1].producer().inputs[0])
    assert (np.abs(content).max(axis=(1, 2, 3)) == 127).all()
    assert noise(graph) > SPOILT
    assert noise(graph, "depthwise", "last") < FINE


def test_a_skip_of_another_range_spoils_the_join_and_float16_there_restores() -> None:
    net = Net()
    skip = relu(net, net.conv(net.image, "skip", 3, 8), "skip", 8)
    deep = relu(net, net.conv(skip, "deep", 8, 8), "deep", 8)
    joined = net.node("Concat", [skip, deep], "join/Concat", 16, axis=1)
    graph = net.done(net.conv(relu(net, net.conv(joined, "wide", 16, 8), "wide", 8), "last", 8, 4), 4)
    assert noise(graph) < FINE
    for name, where, factor in (("skip.weight", np.s_[:], 2000), ("skip.bias", np.s_[:], 2000)):
        scale(net, name, where, factor)
    scale(net, "deep.weight", np.s_[:], 1 / 2000)
    scale(net, "wide.weight", np.s_[:, :8], 1 / 2000)
    assert noise(graph) > SPOILT
    assert noise(graph, "wide") < FINE


def test_a_sum_inside_a_normalisation_that_overflows_is_found_by_its_range() -> None:
    net = Net()
    wide = net.node("Transpose", [net.conv(net.image, "a", 3, 64)], "turn/Transpose", perm=[0, 2, 3, 1])
    scale(net, "a.weight", np.s_[:], 300)
    wide.shape = ir.Shape(["batch", 16, 24, 64])
    parameters = [net.weight(f"norm.{name}", 64) for name in ("weight", "bias")]
    normed = net.node("LayerNormalization", [wide, *parameters], "norm/LayerNormalization", axis=-1, epsilon=1e-5)
    back = net.node("Transpose", [normed], "back/Transpose", 64, perm=[0, 3, 1, 2])
    graph = net.done(net.conv(back, "last", 64, 4), 4)
    image = {"image": images(1, seed=9)[0]}
    expected = PlainSession(graph).run(image)["logits"]
    spoilt = NumpySession(to_half(graph, PrecisionPlan("fp16"))).run(image)["logits"]
    assert not np.abs(spoilt - expected).max() < expected.std()  # the sum is infinite, so the norm gives zeros or NaN
    plan = half_plan(graph, extremes(with_inner_sums(graph), tensors_for_half(graph), images(2, seed=1)))
    assert [keep.where for keep in plan.keep] == ["norm"]
    assert plan.keep[0].reason.startswith("the sum of squares inside reaches")
    cured = NumpySession(to_half(graph, plan)).run(image)["logits"]
    assert np.abs(cured - expected).max() < 0.03 * expected.std()  # float16 rounds to 2**-11 in each of five nodes


def test_a_mean_a_norm_and_every_normalisation_show_their_sums() -> None:
    net = Net()
    x = net.conv(net.image, "a", 3, 8)
    x.shape = ir.Shape(["batch", 8, 16, 24])
    each, groups = ([net.weight(f"{name}{count}", count) for name in ("scale", "bias")] for count in (8, 2))
    one = net.node("InstanceNormalization", [x, *each], "one/InstanceNormalization", 8)
    one.shape = x.shape
    other = net.node("GroupNormalization", [one, *groups], "two/GroupNormalization", 8, num_groups=2)
    other.shape = x.shape
    pooled = net.node("GlobalAveragePool", [other], "pool/GlobalAveragePool", 8)
    graph = net.done(net.node("Add", [net.conv(other, "last", 8, 8), pooled], "sum/Add", 8), 8)
    ranges = extremes(with_inner_sums(graph), tensors_for_half(graph), images(1))
    values = extremes(graph, ["a/Conv/out"], images(1))
    squares = ranges["one/InstanceNormalization/sum_of_squares/out"].high
    assert 0 < squares <= 16 * 24 * max(-values["a/Conv/out"].low, values["a/Conv/out"].high) ** 2
    assert ranges["two/GroupNormalization/sum_of_squares/out"].high > 0
    assert {"pool/GlobalAveragePool/sum/out"} < set(ranges)
    assert not half_plan(graph, ranges).keep
    with pytest.raises(BuildFailed, match="no observed range"):
        half_plan(graph, {})
