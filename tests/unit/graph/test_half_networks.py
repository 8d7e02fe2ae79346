"""The embedded networks in FP16, BF16 and INT8 + FP16, by a reference that rounds: what any machine must find."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest

from segship.core.backend import Traits
from segship.core.errors import BuildFailed
from segship.core.graph import Graph
from segship.core.precision import Keep, PrecisionPlan
from segship.graph.inner_sums import tensors_for_half, with_inner_sums
from segship.graph.passes.insert_qdq import tensors_to_quantise
from segship.graph.passes.to_half import to_half
from segship.graph.plan import half_plan, int8_plan
from segship.graph.recipe import legalised, written
from unit.graph.demo_networks import NAMES, demo_graph, scene_inputs
from unit.graph.networks import PlainSession
from unit.graph.typed import RoundedSession, check_types, extremes

AGREEMENT = 0.995
"""Share of pixels with the label that float32 gives: 0.9998 is found for FP16, 0.998 for BF16; a wrong layer costs far more."""

TENSORRT = Traits(
    precisions=("fp32", "fp16", "int8"), activations="symmetric", int8_ops=("Conv", "ConvTranspose", "MatMul", "Gemm")
)


def agreement(graph: Graph, candidate: Graph) -> float:
    """Share of equal labels over four scenes; raises where a logit is not finite."""
    inputs = scene_inputs(graph, 4)
    sessions = PlainSession(graph), RoundedSession(candidate)
    expected, found = (np.concatenate([session.run({"image": each})["logits"] for each in inputs]) for session in sessions)
    assert np.isfinite(found).all()
    return float((expected.argmax(1) == found.argmax(1)).mean())


def noise(graph: Graph, candidate: Graph) -> float:
    """Standard deviation of the logits' error, in that of the logits, over four scenes."""
    sessions = PlainSession(graph), RoundedSession(candidate)
    expected, found = (
        np.concatenate([session.run({"image": each})["logits"] for each in scene_inputs(graph, 4)]) for session in sessions
    )
    return float((found - expected).std() / expected.std())


def observed(graph: Graph) -> dict:
    """Ranges for :func:`half_plan`, of scenes that are not judged on."""
    return extremes(with_inner_sums(graph), tensors_for_half(graph), scene_inputs(graph, 2, seed=61_000))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("precision", ["fp16", "bf16"])
def test_half_precision_keeps_the_labels(name: str, precision: str) -> None:
    graph = demo_graph(name)
    half = to_half(graph, PrecisionPlan(precision))
    check_types(half)
    assert agreement(graph, half) >= AGREEMENT
    assert len(half.to_bytes()) < 0.52 * len(graph.to_bytes())
    assert sum(node.op_type == "Cast" for node in half.ir.graph) == 2


@pytest.mark.parametrize("name", NAMES)
def test_int8_and_half_together_are_as_right_as_int8_alone(name: str) -> None:
    graph = demo_graph(name)
    ranges = extremes(graph, tensors_to_quantise(graph, PrecisionPlan("int8")), scene_inputs(graph, 4, seed=61_000))
    alone = written(graph, int8_plan(graph, TENSORRT), ranges)
    mixed = written(graph, int8_plan(graph, TENSORRT, rest="fp16"), ranges)
    for each, integer in ((mixed, alone), (legalised(mixed, TENSORRT), legalised(alone, TENSORRT))):
        check_types(each)
        # the noise of INT8 is drawn anew by every other rounding: up to 1.15 times as much was seen, a wrong scale gives tenfold
        assert noise(graph, each) <= 1.3 * noise(graph, integer)
    assert [node.inputs[0].name for node in mixed.ir.graph if node.op_type == "Cast"] == ["logits/float16"]
    assert len(mixed.to_bytes()) < 0.3 * len(graph.to_bytes())


@pytest.mark.parametrize(("name", "where"), [("scenes-unet.pth", "op:Conv"), ("scenes-segformer", "*.fc1")])
def test_int8_chosen_layer_by_layer_in_a_half_precision_graph_keeps_the_labels(name: str, where: str) -> None:
    graph = demo_graph(name)
    plan = PrecisionPlan("fp16", (Keep(where, "int8", "a test"), Keep("outc.*", "fp16", "gives the logits")))
    ranges = extremes(graph, tensors_to_quantise(graph, plan), scene_inputs(graph, 4, seed=61_000))
    mixed = written(graph, plan, ranges)
    check_types(mixed)
    assert set(mixed.asked().values()) == {"int8", "fp16"}
    assert agreement(graph, mixed) >= AGREEMENT


PLANTED = {
    "scenes-unet.pth": (("up1.conv.double_conv.0/Conv",), "up1.conv.double_conv.3/Conv"),
    "scenes-segformer": (
        ("backbone.block2.0.attn.kv/MatMul", "backbone.block2.0.attn.kv/Add"),
        "backbone.block2.0.attn.proj/MatMul",
    ),
}


def planted(name: str) -> Graph:
    """The network with one layer's results a million times larger, and the next one's weights as much smaller.

    The function is the same: a ReLU, or attention's sum over values, lies between. Of keys and values only the latter grow.
    """
    graph = demo_graph(name)
    model = graph.ir.clone()
    nodes = {node.name: node for node in model.graph}
    large, small = PLANTED[name]
    for each in large:
        for value in nodes[each].inputs[1:]:
            _scale(value, 1e6, half="kv" in each)
    _scale(nodes[small].inputs[1], 1e-6)
    return Graph(model, graph.spec, graph.signature)


def _scale(value: ir.Value, factor: float, half: bool = False) -> None:
    content = value.const_value.numpy().copy()
    content[..., content.shape[-1] // 2 if half else 0 :] *= np.float32(factor)
    value.const_value = ir.tensor(content, name=value.name)


@pytest.mark.parametrize("name", NAMES)
def test_planted_overflow_is_found_from_ranges_and_cured_with_few_layers_in_float32(name: str) -> None:
    graph = planted(name)
    assert agreement(demo_graph(name), to_half(graph, PrecisionPlan("fp32"))) > 0.9999  # float32 rounds otherwise, nothing else
    with pytest.raises(AssertionError):
        agreement(graph, to_half(graph, PrecisionPlan("fp16")))
    plan = half_plan(graph, observed(graph))
    cured = to_half(graph, plan)
    check_types(cured)
    assert agreement(graph, cured) >= AGREEMENT
    asked = list(cured.asked().values())
    assert 0 < asked.count("fp32") <= 0.1 * len(asked)
    assert any("float16 ends at 65504" in keep.reason for keep in plan.keep)
    with pytest.raises(BuildFailed, match="no observed range"):
        half_plan(graph, {})
