"""Take out a Transpose that undoes the one before it.

Runtimes do this, too, but not through all that stands between: OpenVINO copied the tokens of SegFormer's first stage to a map
and back for its head, 1 of 20 ms in INT8 (docs/decisions/0017).
"""

from __future__ import annotations

import onnx_ir as ir

from segship.core.graph import Graph, PassRecord

NAME = "cancel_transposes"


def cancel_transposes(graph: Graph) -> Graph:
    """The graph without every second Transpose of such a pair, and without the first one where nobody else reads it."""
    model = graph.ir.clone()
    cancelled = [node for node in list(model.graph) if _cancel(model.graph, node)]
    return graph.after(model, PassRecord(NAME, "fuse", {"cancelled": str(len(cancelled))}, changed=bool(cancelled)))


def _cancel(graph: ir.Graph, node: ir.Node) -> bool:
    first = node.inputs[0].producer() if node.op_type == "Transpose" and node.inputs[0] is not None else None
    if first is None or not _undoes(node, first):
        return False
    source = first.inputs[0]
    assert source is not None
    node.outputs[0].replace_all_uses_with(source)
    graph.remove(node, safe=True)
    if not first.outputs[0].uses() and not first.outputs[0].is_graph_output():
        graph.remove(first, safe=True)
    return True


def _undoes(node: ir.Node, first: ir.Node) -> bool:
    if first.op_type != "Transpose" or node.outputs[0].is_graph_output():
        return False
    there, back = first.attributes.get_ints("perm", ()), node.attributes.get_ints("perm", ())
    return bool(there) and [there[axis] for axis in back] == list(range(len(there)))
