"""What a typed graph computes on a machine that has kernels for its types, made visible on one that has none.

ONNX Runtime on the CPU has next to no half-precision kernels: it runs such nodes in float32 between casts of its own and takes
those casts away where they meet, so that neither rounding nor overflow between two nodes can be seen. :func:`rounded` writes the
rounding into the graph: float32 sums, a half-precision result behind each node, which is what tensor cores give.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from segship.core.graph import Graph
from segship.graph.passes.edit import constant, drop_unused_constants, new_node

HALF = (ir.DataType.FLOAT16, ir.DataType.BFLOAT16)

_OPSET = 20
"""In float32 opset 22 means the same, and ONNX Runtime lacks some of its operators."""


def rounded(graph: Graph) -> Graph:
    """The same graph in float32, each half-precision result rounded right behind its node.

    For a session that runs it as it is written (``backends.onnxruntime.open_as_written``): an optimiser takes the casts away.
    """
    model = graph.ir.clone()
    model.graph.opset_imports[""] = _OPSET
    for value in list(model.graph.initializers.values()):
        if value.dtype in HALF and value.const_value is not None:
            content = value.const_value.numpy().astype(np.float32)
            _replace(value, constant(model.graph, f"{value.name}/float32", content))
    for node in list(model.graph):
        for value in node.outputs:
            if value.dtype in HALF:
                _round(model.graph, node, value)
    drop_unused_constants(model.graph)
    return Graph(model, graph.spec, graph.signature)


def _round(graph: ir.Graph, node: ir.Node, value: ir.Value) -> None:
    half, uses = value.dtype, list(value.uses())
    assert half is not None
    value.type = ir.TensorType(ir.DataType.FLOAT)
    if node.op_type == "Cast":
        node.attributes["to"] = ir.AttrInt64("to", ir.DataType.FLOAT.value)
    elif node.op_type == "ConstantOfShape":
        content = node.attributes["value"].as_tensor().numpy().astype(np.float32)
        node.attributes["value"] = ir.AttrTensor("value", ir.tensor(content))
    down = new_node("Cast", [value], f"{value.name}/down", dtype=half, attributes={"to": half.value})
    up = new_node("Cast", down.outputs, f"{value.name}/up", dtype=ir.DataType.FLOAT, attributes={"to": ir.DataType.FLOAT.value})
    graph.insert_after(node, [down, up])
    for user, index in uses:
        user.replace_input_with(index, up.outputs[0])


def _replace(old: ir.Value, new: ir.Value) -> None:
    for user, index in list(old.uses()):
        user.replace_input_with(index, new)
