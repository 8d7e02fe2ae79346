"""Write INT8 into the graph: QuantizeLinear/DequantizeLinear pairs on activations, INT8 weights behind DequantizeLinear.

The form is the one that both CPU runtimes run in integer kernels (docs/decisions/0004): uint8 activations with one scale
per tensor and a free zero point (0 after ReLU, which thereby needs no kernel of its own); INT8 weights with one scale per
output channel; float bias; a pair stands right behind the producer and all consumers share it; every input of a Concat
keeps its own scale. ``legalise`` takes away what a backend does not need, or cannot use.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import NamedTuple

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from segship.core.errors import BuildFailed
from segship.core.graph import WEIGHTED_OPS, Graph, PassRecord
from segship.core.precision import PrecisionPlan
from segship.graph.histogram import Range
from segship.graph.passes.edit import (
    constant,
    constant_of,
    drop_unused_constants,
    fixed_values,
    module_path,
    new_node,
    place,
)

NAME = "insert_qdq"

SAME_VALUES = ("DepthToSpace", "Flatten", "MaxPool", "Reshape", "Squeeze", "Transpose", "Unsqueeze")
"""Operators whose output holds only values of their input: they need no scale of their own."""

_LEVELS = 255  # steps of uint8
_BIAS_LEVELS = 2.0**30  # of int32's 2**31: leaves room for the sum that the bias is added to


def tensors_to_quantise(graph: Graph, plan: PrecisionPlan) -> tuple[str, ...]:
    """Names of the activations that ``insert_qdq`` will put a pair on, and therefore needs ranges of; in graph order."""
    chosen = _chosen_values(graph.ir.graph, chosen_nodes(graph.ir.graph, plan))
    order = [*graph.ir.graph.inputs, *(value for node in graph.ir.graph for value in node.outputs)]
    return tuple(value.name or "" for value in order if value in chosen)


def quantisable_layers(graph: Graph, plan: PrecisionPlan) -> tuple[str, ...]:
    """Where ``plan`` puts INT8: the places of its nodes, in graph order."""
    return tuple(dict.fromkeys(place(node) for node in chosen_nodes(graph.ir.graph, plan)))


def insert_qdq(graph: Graph, ranges: Mapping[str, Range], plan: PrecisionPlan, *, weight_bits: int = 8) -> Graph:
    """The graph with every node that ``plan`` gives to INT8, and that has constant weights, between Q/DQ.

    Products of two activations (attention) stay float: INT8 made them slower and less exact on both CPU runtimes.
    ``ranges`` holds one range for each of :func:`tensors_to_quantise`. Raises :class:`BuildFailed` when one is missing.
    """
    model = graph.ir.clone()
    nodes = chosen_nodes(model.graph, plan)
    values = _chosen_values(model.graph, nodes)
    missing = sorted(value.name or "" for value in values if value.name not in ranges)
    if missing:
        raise BuildFailed(
            f"{len(missing)} tensors have no calibrated range (the first: {missing[0]}): calibrate this graph again"
        )
    sources = [source(node.inputs[0]) for node in nodes]
    scales = {value: _insert_pair(model.graph, value, ranges[value.name or ""]) for value in values}
    for node, origin in zip(nodes, sources, strict=True):
        input_scale = scales[origin] if origin is not None else 1.0
        _quantise_weight(model.graph, node, quantised_weight(node, input_scale, weight_bits))
    drop_unused_constants(model.graph)
    options = {"nodes": str(len(nodes)), "tensors": str(len(values)), "weight_bits": str(weight_bits)}
    return graph.after(model, PassRecord(NAME, "precision", options, changed=bool(nodes)), plan=plan)


def chosen_nodes(graph: ir.Graph, plan: PrecisionPlan) -> list[ir.Node]:
    """The nodes that ``plan`` gives to INT8, and that have constant weights, in graph order."""
    fixed = fixed_values(graph)
    return [
        node
        for node in graph
        if node.op_type in WEIGHTED_OPS
        and constant_of(node.inputs[1]) is not None
        and node.inputs[0] not in fixed  # a map of coordinates is computed once, in float: nothing to gain, much to lose
        and plan.precision_of(place(node), node.op_type) == "int8"
    ]


def _chosen_values(graph: ir.Graph, nodes: Iterable[ir.Node]) -> dict[ir.Value, None]:
    """Activations to put a pair on (a dict for its order): what the nodes read, and what convolutions among them give."""
    chosen: dict[ir.Value, None] = {}
    for node in nodes:
        _choose(node.inputs[0], chosen)
        if node.op_type in ("Conv", "ConvTranspose"):
            _choose(_after_relu(node.outputs[0]), chosen)
    outputs = set(graph.outputs)
    return {value: None for value in chosen if value not in outputs}


def _choose(value: ir.Value | None, chosen: dict[ir.Value, None]) -> None:
    """Choose the tensor whose values ``value`` holds; with a Concat also its inputs, or it could not run in INT8."""
    origin = source(value)
    if origin is None or origin in chosen or constant_of(origin) is not None:
        return
    chosen[origin] = None
    producer = origin.producer()
    if producer is not None and producer.op_type == "Concat":
        for part in producer.inputs:
            _choose(part, chosen)


def source(value: ir.Value | None) -> ir.Value | None:
    """The tensor that holds a range for ``value``: back through operators that only move or pick them."""
    while value is not None and (producer := value.producer()) is not None and producer.op_type in SAME_VALUES:
        value = producer.inputs[0]
    return value


def _after_relu(value: ir.Value) -> ir.Value:
    """The ReLU's output where a ReLU alone reads ``value``: both run as one kernel."""
    readers = value.consumers()
    alone = len(readers) == 1 and not value.is_graph_output() and readers[0].op_type == "Relu"
    return readers[0].outputs[0] if alone else value


def scale_and_zero_point(bounds: Range) -> tuple[NDArray[np.float32], NDArray[np.uint8]]:
    """Scale and zero point (both shape ()) of uint8 for a range; zero is one of the 256 values, as padding needs it."""
    low, high = min(bounds.low, 0.0), max(bounds.high, 0.0)
    scale = np.float32((high - low) / _LEVELS)
    if not (np.isfinite(scale) and scale > np.finfo(np.float32).tiny):  # a tensor that was zero in every image
        scale = np.float32(1)
    zero_point = np.clip(np.rint(-low / scale), 0, _LEVELS)
    return np.array(scale, np.float32), np.array(zero_point, np.uint8)


def _insert_pair(graph: ir.Graph, value: ir.Value, bounds: Range) -> float:
    """Put Quantize/Dequantize between ``value`` and all its users; gives the scale."""
    scale, zero_point = scale_and_zero_point(bounds)
    parameters = [constant(graph, f"{value.name}/scale", scale), constant(graph, f"{value.name}/zero_point", zero_point)]
    producer, uses = value.producer(), value.uses()
    path = module_path(producer) if producer is not None else ""
    down = new_node(
        "QuantizeLinear", [value, *parameters], f"{value.name}/quantised", dtype=ir.DataType.UINT8, shape=value.shape, path=path
    )
    up = new_node(
        "DequantizeLinear",
        [down.outputs[0], *parameters],
        f"{value.name}/dequantised",
        dtype=value.dtype,
        shape=value.shape,
        path=path,
    )
    for node, index in uses:
        node.replace_input_with(index, up.outputs[0])
    if producer is None:
        graph.insert_before(graph[0], [down, up])
    else:
        graph.insert_after(producer, [down, up])
    return float(scale)


class QuantisedWeight(NamedTuple):
    """A weight as INT8 holds it: ``content``, and one scale for each output channel, which are on ``axis``."""

    content: NDArray[np.int8]
    scale: NDArray[np.float32]
    axis: int

    def dequantised(self) -> NDArray[np.float32]:
        """What the integer kernel multiplies with, as float32."""
        return np.asarray(self.content * self.scale.reshape(_along(self.axis, self.content.ndim)), np.float32)


def quantised_weight(node: ir.Node, input_scale: float, bits: int) -> QuantisedWeight:
    """The constant weight of ``node`` in ``bits`` of INT8; ``input_scale`` is that of the activation it is multiplied with."""
    weight = constant_of(node.inputs[1])
    assert weight is not None
    axis = output_channel_axis(node, weight)
    bias = constant_of(node.inputs[2]) if len(node.inputs) > 2 else None
    levels = 2 ** (bits - 1) - 1  # symmetric: -128 stays unused, so that a weight and its negation are equally exact
    scale = weight_scale(weight, axis, bias, input_scale, levels)
    steps = np.rint(weight / scale.reshape(_along(axis, weight.ndim)))
    return QuantisedWeight(np.clip(steps, -levels, levels).astype(np.int8), scale, axis)


def _along(axis: int, rank: int) -> list[int]:
    return [-1 if index == axis else 1 for index in range(rank)]


def _quantise_weight(graph: ir.Graph, node: ir.Node, weight: QuantisedWeight) -> None:
    """Replace the weight by INT8 content and a DequantizeLinear with one scale per output channel."""
    inputs = [
        constant(graph, f"{node.name}/weight", weight.content),
        constant(graph, f"{node.name}/weight/scale", weight.scale),
        constant(graph, f"{node.name}/weight/zero_point", np.zeros(weight.scale.shape, np.int8)),
    ]
    up = new_node(
        "DequantizeLinear",
        inputs,
        f"{node.name}/weight/dequantised",
        dtype=ir.DataType.FLOAT,
        shape=weight.content.shape,
        attributes={"axis": weight.axis},
        path=module_path(node),
    )
    graph.insert_before(node, up)
    node.replace_input_with(1, up.outputs[0])


def weight_scale(
    weight: NDArray[np.float32], axis: int, bias: NDArray[np.float32] | None, input_scale: float, levels: int
) -> NDArray[np.float32]:
    """One scale per output channel, shape (channels,).

    Runtimes turn the float bias into int32 with the scale ``input_scale * weight scale``. In a channel whose weights are
    almost nothing (weight decay makes such channels) that would overflow, so there the scale grows with the bias; what
    the channel's weights lose is below the bias's own rounding.
    """
    others = tuple(index for index in range(weight.ndim) if index != axis)
    scale = np.abs(weight).max(axis=others).astype(np.float64) / levels
    if bias is not None and bias.size == scale.size:
        scale = np.maximum(scale, np.abs(bias.reshape(-1)) / (input_scale * _BIAS_LEVELS))
    scale[scale <= np.finfo(np.float32).tiny] = 1.0
    rounded: NDArray[np.float32] = scale.astype(np.float32)
    return rounded


def output_channel_axis(node: ir.Node, weight: NDArray[np.float32]) -> int:
    """Conv weights are (out, in, ...), ConvTranspose's (in, out, ...), MatMul's (..., in, out); Gemm's may be transposed."""
    if node.op_type == "Conv":
        return 0
    if node.op_type == "ConvTranspose":
        return 1
    transposed = node.attributes.get("transB")
    return 0 if node.op_type == "Gemm" and transposed is not None and transposed.as_int() else weight.ndim - 1
