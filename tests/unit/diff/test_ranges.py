"""What float16 cannot hold is found on the FP32 graph: results, sums inside operators, and values too small."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx_ir as ir
import pytest

from segship.diff.ranges import half_risks
from unit.graph.networks import SIZE, Net, small_unet

FEEDS = {"image": np.random.default_rng(0).random((1, 3, *SIZE), dtype=np.float32)}


def scaled(net: Net, factor: float) -> ir.Value:
    weight = net.weight("scale.weight", 1, 1, 1, 1)
    weight.const_value = ir.tensor(np.full((1, 1, 1, 1), factor, np.float32), name=weight.name)
    value = net.node("Mul", [net.image, weight], "scale/Mul", 3)
    value.shape = ir.Shape(["batch", 3, *SIZE])
    return value


def layer_norm(net: Net, x: ir.Value) -> ir.Value:
    return net.node("LayerNormalization", [x, net.weight("norm.weight", SIZE[1])], "norm/LayerNormalization", 3, axis=-1)


@pytest.mark.parametrize(
    ("build", "factor", "expected"),
    [
        (lambda net, x: net.node("Relu", [x], "big/Relu", 3), 1e6,  # the weight, the product, and what is made of it
         [("scale", "overflow"), ("scale", "overflow"), ("big", "overflow")]),
        (lambda net, x: net.node("Exp", [x], "decode/Exp", 3), 20.0, [("decode", "overflow")]),
        (layer_norm, 1000.0, [("norm", "inner sum")]),  # squares reach 1e6 and more, the values 1000
        (lambda net, x: net.node("InstanceNormalization", [x, net.weight("n.weight", 3), net.weight("n.bias", 3)], "norm/IN", 3),
         100.0, [("norm", "inner sum")]),
        (lambda net, x: net.node("GlobalAveragePool", [x], "pool/GlobalAveragePool", 3), 1000.0, [("pool", "inner sum")]),
        (lambda net, x: net.node("Relu", [x], "small/Relu", 3), 1e-5, [("scale", "subnormal"), ("small", "subnormal")]),
        (lambda net, x: net.node("Softmax", [x], "attn/Softmax", 3, axis=-1), 100.0, []),  # 24 terms of at most 1
    ],
    ids=["result", "exp", "layer norm", "instance norm", "mean", "subnormal", "softmax"],
)  # fmt: skip
def test_each_risk_is_found_at_its_layer(
    build: Callable[[Net, ir.Value], ir.Value], factor: float, expected: list[tuple[str, str]]
) -> None:
    net = Net()
    graph = net.done(build(net, scaled(net, factor)), 3)
    found = [(risk.path, risk.kind) for risk in half_risks(graph, FEEDS) if not risk.path.startswith("scale") or factor != 1000.0]
    assert [each for each in found if each[1] != "subnormal" or each in expected] == expected


def test_infinity_that_is_meant_is_no_risk() -> None:
    """Proposals that do not count get a score of minus infinity: float16 has that, too."""
    net = Net()
    shape = net.weight("hidden", 1, 3, *SIZE)
    shape.const_value = ir.tensor(
        np.where(np.arange(SIZE[1]) < 3, -np.inf, np.zeros((1, 3, *SIZE))).astype(np.float32), name="hidden"
    )
    graph = net.done(net.node("Add", [net.image, shape], "score/Add", 3), 3)
    assert half_risks(graph, FEEDS) == ()


def test_an_ordinary_network_has_none() -> None:
    assert half_risks(small_unet(), FEEDS) == ()
