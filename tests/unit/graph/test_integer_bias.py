"""A linear layer whose result stays float runs in INT8 on ONNX Runtime only with an integer bias."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest

from segship.backends import load_backend
from segship.core.graph import Graph
from segship.core.precision import Keep, PrecisionPlan
from segship.graph.passes.edit import constant, constant_of
from segship.graph.passes.insert_qdq import insert_qdq
from segship.graph.passes.legalise import legalise
from unit.graph.networks import SIZE, Net, PlainSession, images, named
from unit.graph.test_insert_qdq import ranges_of

PLAN = PrecisionPlan("int8", (Keep("last*", "fp32", "logits"),))
ONNXRUNTIME = load_backend("onnxruntime").TRAITS
WITHOUT = msgspec.structs.replace(ONNXRUNTIME, integer_bias=False)
STEP = 1e-4
"""Of the largest logit. A bias is rounded to a step of input times weight, 255 x 127 of which are the largest product."""


def linear() -> Graph:
    """Two linear layers, and two more that stay float; a map of classes at the end."""
    net = Net()
    x = net.conv(net.image, "first", 3, 2, strides=[4, 4])
    x = net.node("Reshape", [x, constant(net.graph, "rows", np.array([-1, 48], np.int64))], "flat/Reshape")
    for path, width in (("before", 48), ("fc", 32)):
        weights = [net.weight(f"{path}.weight", 32, width), net.weight(f"{path}.bias", 32)]
        x = net.node("Relu", [net.node("Gemm", [x, *weights], f"{path}/Gemm", transB=1)], f"{path}/Relu")
    area, parts = SIZE[0] * SIZE[1], []
    for path in ("last", "last_too"):  # two, as scores and deltas: ONNX Runtime sees no pattern where one layer alone follows
        weights = [net.weight(f"{path}.weight", area, 32), net.weight(f"{path}.bias", area)]
        parts.append(net.node("Gemm", [x, *weights], f"{path}/Gemm", transB=1))
    out = net.node("Concat", parts, "out/Concat", axis=1)
    shape = constant(net.graph, "sides", np.array([-1, 2, *SIZE], np.int64))
    return net.done(net.node("Reshape", [out, shape], "out/Reshape"), 2)


def both() -> tuple[Graph, Graph]:
    graph = linear()
    quantised = insert_qdq(graph, ranges_of(graph, PLAN), PLAN)
    return legalise(quantised, WITHOUT), legalise(quantised, ONNXRUNTIME)


def difference(before: Graph, after: Graph) -> float:
    feeds = {"image": images(1, seed=5)[0]}
    expected, found = (PlainSession(each).run(feeds)["logits"] for each in (before, after))
    return float(np.abs(expected - found).max() / np.abs(expected).max())


def test_the_bias_keeps_its_value() -> None:
    before, after = both()
    assert after.history[-1].options["biases_in_integers"] == "2"
    assert difference(before, after) <= STEP
    assert legalise(after, ONNXRUNTIME).history[-1].options["biases_in_integers"] == "0"


def test_a_wrong_scale_is_seen() -> None:
    before, after = both()
    bias = named(after, "fc/Gemm/bias")
    scale = constant_of(bias.inputs[1])
    assert scale is not None
    bias.replace_input_with(1, constant(after.ir.graph, "doubled", 2 * scale))
    assert difference(before, after) > 10 * STEP


def test_onnxruntime_needs_it(tmp_path_factory: pytest.TempPathFactory) -> None:
    module = load_backend("onnxruntime")
    if problem := module.probe():
        pytest.skip(problem)
    found = []
    for graph in both():
        report = module.build(graph, tmp_path_factory.mktemp("engine")).precision
        found.append({layer.precision for layer in report.layers if "fc/Gemm" in layer.name})
    assert found == [{"fp32"}, {"int8"}]
