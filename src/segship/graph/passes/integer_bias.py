"""Biases of INT8 linear layers as int32, for runtimes that turn them into integers only where the result is quantised, too.

ONNX Runtime else runs a Gemm with a float result in float, and dequantises its weight in every run: 5.6 for 2.1 ms for 1000
rows of 1024 by 1024 (docs/decisions/0015).
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from segship.graph.passes.edit import constant, constant_of, insert_before
from segship.graph.passes.insert_qdq import source


def integer_biases(graph: ir.Graph) -> int:
    """Put the float bias of every INT8 Gemm into int32, with the scale of its sums; gives their number."""
    return sum(_write(graph, node) for node in list(graph) if node.op_type == "Gemm" and len(node.inputs) > 2)


def _write(graph: ir.Graph, gemm: ir.Node) -> bool:
    origin = source(gemm.inputs[0])
    image, weight = (value.producer() if value is not None else None for value in (origin, gemm.inputs[1]))
    bias = constant_of(gemm.inputs[2])
    if image is None or weight is None or {image.op_type, weight.op_type} != {"DequantizeLinear"} or bias is None:
        return False
    scale, scales = constant_of(image.inputs[1]), constant_of(weight.inputs[1])
    if scale is None or scales is None or bias.shape != scales.shape:
        return False
    steps = (scale * scales).astype(np.float32)
    integers = np.rint(bias / steps.astype(np.float64)).astype(np.int32)  # insert_qdq chose scales that leave room
    parts = [constant(graph, f"{gemm.name}/bias/{name}", each) for name, each in (("int32", integers), ("scale", steps))]
    gemm.replace_input_with(2, insert_before(graph, gemm, "DequantizeLinear", parts, "bias", ir.DataType.FLOAT, axis=0))
    return True
