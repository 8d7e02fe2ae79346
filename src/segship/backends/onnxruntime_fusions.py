"""What ONNX Runtime leaves apart in a graph that it has optimised; done on the file that it wrote, before an engine keeps it.

ONNX Runtime joins Q/DQ around a MatMul into ``MatMulIntegerToFloat``, whose kernel adds a bias while it scales its sums
(https://github.com/microsoft/onnxruntime/blob/main/docs/ContribOperators.md), but never gives it one: the 44 sums of an INT8
SegFormer were passes of their own over memory, 2.7 of 32 ms (docs/decisions/0017). The float kernels have nothing to match:
``Gemm`` with a bias took as long as ``MatMul`` and ``Add``.
"""

from __future__ import annotations

import onnx_ir as ir

_BIAS = 6
"""The bias's place among the inputs: behind both operands, their scales and their zero points."""


def fuse(graph: ir.Graph) -> None:
    """Give integer products their biases, and take out what quantises once more as before; numbers change by rounding at most."""
    for node in list(graph):
        if node.op_type == "Add":
            _add_in_product(graph, node)
        elif node.op_type == "QuantizeLinear":
            _take_back(graph, node)


def _add_in_product(graph: ir.Graph, add: ir.Node) -> None:
    """``Add(MatMulIntegerToFloat(...), bias)`` becomes the product alone."""
    for summed, bias in (add.inputs, reversed(add.inputs)):
        product = _made_by(summed, "MatMulIntegerToFloat")
        if product is None or bias is None or not _is_bias_of(product, bias) or not _is_free(product):
            continue
        product.resize_inputs(_BIAS + 1)
        product.replace_input_with(_BIAS, bias)
        before, after = product.outputs[0], add.outputs[0]
        before.name, after.name = after.name, before.name  # a name stands for its numbers
        _pass_on(graph, add, before)
        return


def _is_free(product: ir.Node) -> bool:
    """Whether the product has no bias yet, and is not asked for without it."""
    has_bias = len(product.inputs) > _BIAS and product.inputs[_BIAS] is not None
    return not has_bias and len(product.outputs[0].uses()) == 1 and not product.outputs[0].is_graph_output()


def _is_bias_of(product: ir.Node, value: ir.Value) -> bool:
    """A constant with one number for each column of the product: Add would repeat others, the kernel cannot."""
    weight = product.inputs[1].const_value if product.inputs[1] is not None else None
    bias = value.const_value
    return bias is not None and weight is not None and list(bias.shape) == [weight.shape[-1]]


def _take_back(graph: ir.Graph, quantise: ir.Node) -> None:
    """``QuantizeLinear(DequantizeLinear(x, s, z), s, z)`` is x."""
    back = _made_by(quantise.inputs[0], "DequantizeLinear")
    if back is None or back.inputs[1:] != quantise.inputs[1:] or quantise.outputs[0].is_graph_output():
        return
    source = back.inputs[0]
    if source is not None and source.dtype == quantise.outputs[0].dtype:
        _pass_on(graph, quantise, source)
        if not back.outputs[0].uses() and not back.outputs[0].is_graph_output():
            graph.remove(back, safe=True)


def _made_by(value: ir.Value | None, kind: str) -> ir.Node | None:
    """The node of that kind that computes ``value``."""
    node = value.producer() if value is not None else None
    return node if node is not None and node.op_type == kind else None


def _pass_on(graph: ir.Graph, node: ir.Node, value: ir.Value) -> None:
    """Let all who read the result of ``node`` read ``value``, and remove the node."""
    node.outputs[0].replace_all_uses_with(value, replace_graph_outputs=True)
    graph.remove(node, safe=True)
