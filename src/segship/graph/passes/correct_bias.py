"""Take the mean error that INT8 makes in each output channel out of the channel's bias.

Rounding of weights and clipping of activations do not cancel out in the mean: each output channel is off by a little, always to
the same side (Nagel et al. 2019, arXiv:1906.04721, section 4.2). Here that mean is measured on calibration images instead of
assumed: each layer is computed twice from the same exact input, as it is and in 8 bits, so that no error is counted twice
when all layers are corrected at once, and what was measured holds for every plan.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from segship.core.graph import Graph, PassRecord
from segship.core.precision import PrecisionPlan
from segship.graph.histogram import Range
from segship.graph.observe import CHANNELS, reduced_to_channels, with_outputs
from segship.graph.passes.edit import constant, constant_of, drop_unused_constants, new_node
from segship.graph.passes.insert_qdq import chosen_nodes, quantised_weight, scale_and_zero_point, source

NAME = "correct_bias"


def mean_error_graph(graph: Graph, ranges: Mapping[str, Range], *, weight_bits: int = 8) -> Graph:
    """A graph whose outputs are, for each node that can run in INT8, its mean error per channel, shape (channels,).

    ``graph`` is in float32; ``ranges`` holds one range for each of its tensors to quantise.
    """
    model = graph.ir.clone()
    outputs = []
    for node in chosen_nodes(model.graph, PrecisionPlan("int8")):
        exact, name = node.outputs[0], node.name or ""
        if exact.shape is not None and _bias_of(node) is not None:
            twin = _in_eight_bits(model.graph, node, ranges, weight_bits)
            error = new_node("Sub", [twin, exact], f"{name}/error", dtype=exact.dtype)
            model.graph.append(error)
            rank = len(exact.shape)
            outputs.append(
                reduced_to_channels(model, "ReduceMean", error.outputs[0], rank, _channels(node, rank), f"{name}{CHANNELS}")
            )
    return with_outputs(graph, model, outputs)


def correct_bias(graph: Graph, errors: Mapping[str, NDArray[np.float64]]) -> Graph:
    """The graph with the mean errors of its INT8 layers subtracted from their biases; where a layer has none, it gets one.

    ``errors``: what :func:`mean_error_graph` gave, the mean over images, by node name.
    """
    model = graph.ir.clone()
    asked = graph.asked()
    corrected = [node for node in model.graph if node.name in errors and asked.get(str(node.name)) == "int8"]
    for node in corrected:
        _subtract(model.graph, node, errors[node.name or ""])
    drop_unused_constants(model.graph)
    options = {"layers": str(len(corrected))}
    return graph.after(model, PassRecord(NAME, "precision", options, changed=bool(corrected)))


def has_biases(graph: Graph) -> bool:
    """Whether there is a layer to correct."""
    return any(_bias_of(node) is not None for node in chosen_nodes(graph.ir.graph, PrecisionPlan("int8")))


def _in_eight_bits(graph: ir.Graph, node: ir.Node, ranges: Mapping[str, Range], weight_bits: int) -> ir.Value:
    """What ``node`` gives when its input and its weight went through 8 bits."""
    read, origin, name = node.inputs[0], source(node.inputs[0]), f"{node.name}/in eight bits"
    assert read is not None
    assert origin is not None
    scale, zero_point = scale_and_zero_point(ranges[origin.name or ""])
    parameters = [constant(graph, f"{name}/scale", scale), constant(graph, f"{name}/zero_point", zero_point)]
    down = new_node("QuantizeLinear", [read, *parameters], f"{name}/quantised", dtype=ir.DataType.UINT8)
    up = new_node("DequantizeLinear", [down.outputs[0], *parameters], f"{name}/dequantised", dtype=read.dtype)
    weight = quantised_weight(node, float(scale), weight_bits)
    inputs = [up.outputs[0], constant(graph, f"{name}/weight", weight.dequantised()), *node.inputs[2:]]
    twin = ir.node(node.op_type, inputs, attributes=node.attributes, name=name)
    twin.outputs[0].name = f"{name}/out"
    graph.extend([down, up, twin])
    return twin.outputs[0]


def _channels(node: ir.Node, rank: int) -> int:
    """Axis of the output's channels."""
    return rank - 1 if node.op_type in ("MatMul", "Gemm") else 1


def _bias_of(node: ir.Node) -> tuple[ir.Node, int] | None:
    """The node and the index of its input where the layer's bias is, or can be; None where it cannot be corrected."""
    if node.op_type in ("Conv", "ConvTranspose", "Gemm"):
        present = node.inputs[2] if len(node.inputs) > 2 else None
        return (node, 2) if present is None or _is_per_channel(present) else None
    uses = list(node.outputs[0].uses())
    if len(uses) != 1 or uses[0].node.op_type != "Add":
        return None
    add, index = uses[0].node, 1 - uses[0].idx
    return (add, index) if _is_per_channel(add.inputs[index]) else None


def _is_per_channel(value: ir.Value | None) -> bool:
    content = constant_of(value)
    return content is not None and content.ndim == 1


def _subtract(graph: ir.Graph, node: ir.Node, error: NDArray[np.float64]) -> None:
    place = _bias_of(node)
    assert place is not None
    owner, index = place
    before = constant_of(owner.inputs[index]) if index < len(owner.inputs) else None
    after = constant(graph, f"{node.name}/bias/corrected", ((0.0 if before is None else before) - error).astype(np.float32))
    if index >= len(owner.inputs):
        owner.resize_inputs(index + 1)
    owner.replace_input_with(index, after)
