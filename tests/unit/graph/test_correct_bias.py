"""The mean error of INT8 goes, where there is a bias to take it out of."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest

from segship.core.graph import Graph
from segship.core.precision import Keep, PrecisionPlan
from segship.graph.passes.correct_bias import correct_bias, has_biases
from segship.graph.passes.edit import constant_of
from unit.graph.demo_networks import NAMES, demo_graph, scene_inputs
from unit.graph.networks import Net, images, named
from unit.graph.observed import in_int8, logits, mean_errors, signal_to_noise


def biased(bias: bool = True) -> Graph:
    """Two convolutions whose weights lie 0.4 of a step above a level, but for one that makes the step: all round down."""
    net = Net()
    x = net.node("Relu", [net.conv(net.image, "first", 3, 8)], "first/Relu", 8)
    x = net.conv(x, "second", 8, 8)
    for name, inputs in (("first", 3), ("second", 8)):
        weight = net.graph.initializers[f"{name}.weight"]
        content = np.full((8, inputs, 3, 3), 10.4 / 127, np.float32)
        content[:, 0, 0, 0] = 1.0
        weight.const_value = ir.tensor(content, name=weight.name)
    if not bias:
        for node in list(net.graph):
            if node.op_type == "Conv":
                node.resize_inputs(2)
    return net.done(x, 8)


def mean_error(graph: Graph, candidate: Graph, inputs: list[np.ndarray]) -> float:
    """Largest mean error of a channel, in standard deviations of the result."""
    expected, found = logits(graph, inputs), logits(candidate, inputs)
    return float(np.abs((found - expected).mean(axis=(0, 2, 3))).max() / expected.std())


@pytest.mark.parametrize("bias", [True, False])
def test_a_planted_bias_of_rounding_goes(bias: bool) -> None:
    graph, inputs, others = biased(bias), images(4, seed=1), images(4, seed=7)
    assert mean_error(graph, in_int8(graph, inputs), others) > 0.05
    assert mean_error(graph, in_int8(graph, inputs, correct=True), others) < 0.01


def test_linear_layers_are_corrected_in_the_addition_behind_them_and_bare_products_not_at_all() -> None:
    net = Net()
    with_bias = net.linear(net.image, "linear", 24, 24)
    bare = net.node("MatMul", [net.node("Relu", [with_bias], "linear/Relu"), net.weight("bare.weight", 24, 24)], "bare/MatMul")
    for value in (with_bias, with_bias.producer().inputs[0], bare):
        value.shape = ir.Shape(["batch", 3, 16, 24])
    graph, inputs = net.done(bare, 3), images(2)
    assert set(mean_errors(graph, inputs)) == {"linear/MatMul"}
    after = in_int8(graph, inputs, correct=True)
    change = constant_of(named(after, "linear/Add").inputs[1]) - constant_of(named(graph, "linear/Add").inputs[1])
    assert change == pytest.approx(-mean_errors(graph, inputs)["linear/MatMul"], abs=1e-6)  # float32 rounding of a bias near 1


def test_layers_that_stay_float_keep_their_biases() -> None:
    graph, inputs = biased(), images(2)
    plan = PrecisionPlan("int8", (Keep("second", "fp32", "a test"),))
    after = in_int8(graph, inputs, correct=True, plan=plan)
    assert after.history[-1].options == {"layers": "1"}
    assert np.array_equal(constant_of(named(after, "second/Conv").inputs[2]), constant_of(named(graph, "second/Conv").inputs[2]))


def test_nothing_to_correct_is_said() -> None:
    net = Net()
    graph = net.done(net.node("Relu", [net.image], "only/Relu", 3), 3)
    assert not has_biases(graph)
    assert not correct_bias(graph, {}).history[-1].changed


@pytest.mark.parametrize("name", NAMES)
def test_the_demo_networks_lose_less_in_the_mean(name: str) -> None:
    graph = demo_graph(name)
    inputs = scene_inputs(graph, 8)  # two are too few: what is found on them as a mean is half noise for SegFormer-B1
    plain, corrected = (in_int8(graph, inputs, correct=correct) for correct in (False, True))

    def off(candidate: Graph) -> float:
        expected, found = logits(graph, inputs), logits(candidate, inputs)
        return float(np.linalg.norm((found - expected).mean(axis=(0, 2, 3))))

    assert off(corrected) < 0.8 * off(plain)  # 0.43 to 0.76 on four sets of images: what ReLU makes of rounding noise stays
    noise = signal_to_noise(graph, plain, inputs)
    assert signal_to_noise(graph, corrected, inputs) > noise - 0.1  # dB; +0.7 to +1.2 for the UNet, -0.06 to +0.15 for SegFormer
