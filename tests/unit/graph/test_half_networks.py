"""The embedded networks in FP16, BF16 and INT8 + FP16, by a reference that rounds: what any machine must find."""

from __future__ import annotations

import numpy as np
import pytest

from segship.core.backend import Traits
from segship.core.graph import Graph
from segship.core.precision import Keep, PrecisionPlan
from segship.graph.passes.insert_qdq import tensors_to_quantise
from segship.graph.passes.to_half import to_half
from segship.graph.plan import int8_plan
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
