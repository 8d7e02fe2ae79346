"""Which values an ONNX Runtime engine holds channels last is read from its graph, where their shape does not tell."""

from __future__ import annotations

import onnx_ir as ir

from segship.diff.inner_onnxruntime import _channels_last
from segship.graph.passes.edit import new_node


def test_what_is_held_channels_last() -> None:
    image = ir.Value(name="image", shape=ir.Shape([1, 8, 8, 8]), type=ir.TensorType(ir.DataType.UINT8))
    graph = ir.Graph([image], [], nodes=[], opset_imports={"": 20}, name="engine")

    def node(kind: str, inputs: list[ir.Value], name: str, **attributes: object) -> ir.Value:
        graph.append(new_node(kind, inputs, name, dtype=ir.DataType.UINT8, attributes=attributes))
        graph[-1].outputs[0].name = name
        return graph[-1].outputs[0]

    turned = node("Transpose", [image], "turned", perm=[0, 2, 3, 1])
    first = node("QLinearConv", [turned], "first", channels_last=1)
    total = node("QLinearAdd", [first, turned], "total")
    back = node("Transpose", [total], "back", perm=[0, 3, 1, 2])
    plain = node("QLinearAdd", [back, image], "plain")
    own = node("Transpose", [plain], "own", perm=[0, 2, 3, 1])  # the graph's own: its value has this shape there, too
    rows = node("Transpose", [node("QLinearConv", [own], "points", channels_last=1)], "rows", perm=[0, 2, 1])  # of three axes
    node("QLinearConcat", [rows, rows], "joined")

    known = {"own": own, "total": total, "plain": plain}
    assert {value.name for value in _channels_last(graph, known)} == {"turned", "first", "total", "points"}
