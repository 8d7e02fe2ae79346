"""A wide classifier runs in INT8 with a float result; other last layers stay float."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest

from segship.backends import load_backend
from segship.core.backend import Traits
from segship.core.graph import Graph
from segship.graph.passes.edit import place
from segship.graph.passes.insert_qdq import insert_qdq
from segship.graph.passes.legalise import legalise
from segship.graph.plan import WIDE, int8_plan
from unit.graph.networks import Net, PlainSession, images, named
from unit.graph.test_insert_qdq import NOISE_LIMIT, noise, ranges_of

ONNXRUNTIME, OPENVINO = (load_backend(name).TRAITS for name in ("onnxruntime", "openvino"))
PLAIN = Traits(precisions=("int8",), activations="unsigned", int8_ops=("Conv", "MatMul"))


def classifier(channels: int = WIDE, classes: int = 4, lasts: int = 1, rank: str = "") -> Graph:
    """A map of so many channels and a 1x1 convolution, or two that are added."""
    net = Net()
    x = net.node("Relu", [net.conv(net.image, "first", 3, channels)], "first/Relu", channels)
    total, *others = [net.conv(x, f"last{index}", channels, classes, side=1) for index in range(lasts)]
    for other in others:
        total = net.node("Add", [total, other], "sum/Add", classes)
    return net.done(net.node(rank, [total], "rank/best", classes, axis=1) if rank else total, classes)


def asked(graph: Graph, traits: Traits) -> dict[str, str]:
    plan = int8_plan(graph, traits)
    return {place(node): plan.precision_of(place(node), node.op_type) for node in graph.ir.graph if node.op_type == "Conv"}


def test_a_wide_classifier_runs_in_int8_where_its_result_is_float() -> None:
    assert asked(classifier(), OPENVINO) == {"first": "int8", "last0": "int8"}
    assert asked(classifier(), ONNXRUNTIME) == {"first": "int8", "last0": "fp32"}  # no resize of tokens: stays a convolution
    assert asked(classifier(), PLAIN) == {"first": "int8", "last0": "fp32"}


@pytest.mark.parametrize(
    "graph",
    [classifier(WIDE - 1), classifier(lasts=2), classifier(rank="TopK"), classifier(rank="NonMaxSuppression")],
    ids=["narrow", "one of two", "before TopK", "before suppression"],
)
def test_other_last_layers_stay_float(graph: Graph) -> None:
    found = asked(graph, msgspec.structs.replace(OPENVINO, float_results=("Conv", "MatMul")))
    assert {precision for where, precision in found.items() if where != "first"} == {"fp32"}


def test_the_scores_of_classes_keep_more_than_255_steps() -> None:
    graph = classifier()
    plan = int8_plan(graph, OPENVINO)
    ready = legalise(insert_qdq(graph, ranges_of(graph, plan), plan), OPENVINO)
    assert named(ready, "last0/Conv").outputs[0].is_graph_output()
    logits = PlainSession(ready).run({"image": images(1, seed=9)[0]})["logits"]
    assert len(np.unique(logits)) > 256
    assert noise(graph, ready) < NOISE_LIMIT
