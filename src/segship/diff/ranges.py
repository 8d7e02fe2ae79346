"""Which layers would leave the range of float16 on an image, found on the FP32 graph before any engine is built.

Not only results count: a normalisation sums squares, a softmax and a mean sum all they see, and in float16 that sum can
pass 65504 though inputs and result are small.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import msgspec
import numpy as np
import onnx_ir as ir

from segship.core.backend import Array, Feeds
from segship.core.graph import Graph
from segship.diff.segment import run_graph, values_of
from segship.graph.observe import observing_graph, shapes_graph, tensors_graph
from segship.graph.passes.edit import constant, constant_of, new_node, place

LARGEST = 65504.0
"""The largest finite float16."""

SMALLEST_NORMAL = 2.0**-14
"""Below, float16 is subnormal and loses a bit with each halving; below 2**-25 it is zero."""

_MOSTLY = 0.5
"""Share of a tensor's values other than zero that must be subnormal to be worth a word."""


class HalfRisk(msgspec.Struct, frozen=True):
    """What float16 cannot hold: the largest value (``overflow``) or sum inside the operator (``inner sum``) beyond 65504,
    or the share of values other than zero that are ``subnormal``."""

    path: str
    op: str
    tensor: str
    kind: Literal["overflow", "inner sum", "subnormal"]
    value: float


def half_risks(graph: Graph, feeds: Feeds) -> tuple[HalfRisk, ...]:
    """Every risk of an FP32 graph on ``feeds`` (from a real image), in graph order, overflows and sums before subnormals."""
    names = [name for name, value in values_of(graph.ir.graph).items() if value.producer() is not None and _is_float(value)]
    risks = [*_of_constants(graph), *_of_results(graph, names, feeds), *_of_sums(graph, feeds)]
    order = {name: index for index, name in enumerate(values_of(graph.ir.graph))}
    return tuple(sorted(risks, key=lambda risk: (risk.kind == "subnormal", order.get(risk.tensor, -1))))


def _is_float(value: ir.Value) -> bool:
    return value.dtype == ir.DataType.FLOAT


def _risk(graph: Graph, name: str, kind: Literal["overflow", "inner sum", "subnormal"], value: float) -> HalfRisk:
    node = values_of(graph.ir.graph)[name].producer()
    assert node is not None
    return HalfRisk(place(node), node.op_type, name, kind, value)


def _of_constants(graph: Graph) -> list[HalfRisk]:
    risks = []
    for node in graph.ir.graph:
        for value in node.inputs:
            content = constant_of(value) if value is not None and _is_float(value) else None
            peak = float(np.abs(content[np.isfinite(content)]).max(initial=0.0)) if content is not None else 0.0
            if value is not None and LARGEST < peak < float(np.finfo(np.float32).max):  # the largest float32 means "no limit"
                risks.append(HalfRisk(place(node), node.op_type, value.name or "", "overflow", peak))
    return risks


def _of_results(graph: Graph, names: Sequence[str], feeds: Feeds) -> list[HalfRisk]:
    found = run_graph(shapes_graph(graph, names), feeds)
    shapes = {name: tuple(int(side) for side in found[f"{index}/shape"]) for index, name in enumerate(names)}
    filled = [name for name in names if math.prod(shapes[name])]
    seen = run_graph(observing_graph(graph, filled, shapes), feeds)
    risks = []
    for index, name in enumerate(filled):
        sample = seen[f"{index}/sample"]
        seen_values = np.concatenate([sample, [seen[f"{index}/min"], seen[f"{index}/max"]]])
        peak = float(np.abs(seen_values[np.isfinite(seen_values)]).max(initial=0.0))  # infinity is meant, and float16 has it
        share = _subnormal_share(sample)
        if peak > LARGEST:
            risks.append(_risk(graph, name, "overflow", peak))
        elif share > _MOSTLY:
            risks.append(_risk(graph, name, "subnormal", share))
    return risks


def _subnormal_share(sample: Array) -> float:
    sizes = np.abs(sample[sample != 0])
    return float(np.mean(sizes < SMALLEST_NORMAL)) if sizes.size else 0.0


def _of_sums(graph: Graph, feeds: Feeds) -> list[HalfRisk]:
    model = graph.ir.clone()
    sums = {node.outputs[0].name or "": _sum_inside(model.graph, node) for node in list(model.graph)}
    wanted = {name: total for name, total in sums.items() if total}
    if not wanted:
        return []
    watched = Graph(model, graph.spec, graph.signature)
    found = run_graph(tensors_graph(watched, list(wanted.values())), feeds)
    peaks = {name: float(found[total]) for name, total in wanted.items()}
    return [_risk(graph, name, "inner sum", peak) for name, peak in peaks.items() if not peak <= LARGEST]


def _sum_inside(graph: ir.Graph, node: ir.Node) -> str:
    """Append what computes the largest sum inside ``node``; the name of that value, empty where there is no such sum."""
    source = node.inputs[0] if node.inputs else None
    rank = len(source.shape) if source is not None and source.shape is not None else 0
    if source is None or not rank or not _is_float(source):
        return ""
    summed = _summed(graph, node, source, rank)
    if summed is None:
        return ""
    kind, terms, axes = summed
    total = _append(graph, node, kind, [terms, axes], "sum", keepdims=0)
    return _append(graph, node, "ReduceMax", [total], "largest_sum", keepdims=0).name or ""


def _summed(graph: ir.Graph, node: ir.Node, source: ir.Value, rank: int) -> tuple[str, ir.Value, ir.Value] | None:
    """How ``node`` sums: the reduction, of which value, over which axes."""
    sides = list(range(2, rank))
    last = [node.attributes.get_int("axis", -1) % rank]
    match node.op_type:
        case "LayerNormalization":
            return "ReduceSumSquare", source, _axes(graph, node, list(range(last[0], rank)))
        case "InstanceNormalization":
            return "ReduceSumSquare", source, _axes(graph, node, sides)
        case "GlobalAveragePool":
            return "ReduceL1", source, _axes(graph, node, sides)
        case "ReduceMean" | "ReduceSum" if len(node.inputs) > 1 and node.inputs[1] is not None:
            return "ReduceL1", source, node.inputs[1]
        case "Softmax":
            axes = _axes(graph, node, last)
            largest = _append(graph, node, "ReduceMax", [source, axes], "largest", keepdims=1)
            return (
                "ReduceSum",
                _append(graph, node, "Exp", [_append(graph, node, "Sub", [source, largest], "below")], "exp"),
                axes,
            )
    return None


def _axes(graph: ir.Graph, node: ir.Node, axes: list[int]) -> ir.Value:
    return constant(graph, f"{node.name}/ranges/axes", np.array(axes, np.int64))


def _append(graph: ir.Graph, node: ir.Node, kind: str, inputs: list[ir.Value], name: str, **attributes: int) -> ir.Value:
    added = new_node(kind, inputs, f"{node.name}/ranges/{name}", dtype=ir.DataType.FLOAT, attributes=attributes)
    graph.append(added)
    return added.outputs[0]
