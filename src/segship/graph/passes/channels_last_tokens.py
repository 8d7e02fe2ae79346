"""Between tokens (n, h*w, c) and maps (n, c, h, w): split or join the sides first and move the channels in one 4-D Transpose.

``Reshape(Transpose(tokens))`` and ``Transpose(Reshape(tokens))`` give the same map. In the second form the Transpose stands
next to the convolution, where runtimes that keep convolutions channels last cancel it with their own: of 112 Transposes in
an INT8 SegFormer on ONNX Runtime 37 were left, and the network took 12 % less time (docs/decisions/0004).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

from segship.core.graph import Graph, PassRecord
from segship.graph.passes.edit import constant, constant_of, drop_unused_constants, module_path, new_node

NAME = "channels_last_tokens"

_TURN_TOKENS = (0, 2, 1)
_TO_FIRST, _TO_LAST = (0, 3, 1, 2), (0, 2, 3, 1)


def channels_last_tokens(graph: Graph) -> Graph:
    """The graph with every such pair in the second form; unchanged (and said so in the history) where none matches."""
    model = graph.ir.clone()
    to_map = [node for node in model.graph if _to_map(model.graph, node)]
    to_tokens = [node for node in model.graph if _to_tokens(model.graph, node)]
    drop_unused_constants(model.graph)
    options = {"to_map": str(len(to_map)), "to_tokens": str(len(to_tokens))}
    return graph.after(model, PassRecord(NAME, "fuse", options, changed=bool(to_map or to_tokens)))


def _to_map(graph: ir.Graph, reshape: ir.Node) -> bool:
    """Replace ``Reshape`` behind a ``Transpose`` of tokens; whether it did."""
    turn = reshape.inputs[0].producer() if reshape.op_type == "Reshape" and reshape.inputs[0] is not None else None
    if turn is None or not _is_turn(turn) or not _keeps_channels(reshape, 3, 4):
        return False
    sides = _permuted(graph, reshape, _TO_LAST)
    if sides is None:
        return False
    split = _like(reshape, "Reshape", [turn.inputs[0], sides], "split", _TO_LAST)
    move = _like(reshape, "Transpose", [split.outputs[0]], "move", None, perm=_TO_FIRST)
    _replace(graph, reshape, [split, move], turn)
    return True


def _to_tokens(graph: ir.Graph, turn: ir.Node) -> bool:
    """Replace a ``Transpose`` of tokens behind the ``Reshape`` of a map; whether it did."""
    reshape = turn.inputs[0].producer() if _is_turn(turn) and turn.inputs[0] is not None else None
    if reshape is None or reshape.op_type != "Reshape" or not _keeps_channels(reshape, 4, 3):
        return False
    sides = _permuted(graph, reshape, _TURN_TOKENS)
    if sides is None:
        return False
    source = reshape.inputs[0]
    move = _like(turn, "Transpose", [source], "move", None, perm=_TO_LAST)
    shape = source.shape if source is not None else None
    move.outputs[0].shape = ir.Shape([shape[axis] for axis in _TO_LAST]) if shape is not None else None
    join = _like(turn, "Reshape", [move.outputs[0], sides], "join", None)
    _replace(graph, turn, [move, join], reshape)
    return True


def _is_turn(node: ir.Node) -> bool:
    return node.op_type == "Transpose" and tuple(node.attributes.get_ints("perm", ())) == _TURN_TOKENS


def _keeps_channels(reshape: ir.Node, rank_before: int, rank_after: int) -> bool:
    """Whether it is known that the channels (axis 1) stay as they are while the sides are split or joined."""
    before, after = reshape.inputs[0], reshape.outputs[0]
    if before is None or before.shape is None or after.shape is None:
        return False
    same = isinstance(before.shape[1], int) and before.shape[1] == after.shape[1]
    return same and (len(before.shape), len(after.shape)) == (rank_before, rank_after)


def _permuted(graph: ir.Graph, reshape: ir.Node, order: Sequence[int]) -> ir.Value | None:
    """The target shape in another order; None where a 0 in it (copy that axis) would then mean another axis."""
    target = reshape.inputs[1]
    content = constant_of(target)
    if content is not None:
        return None if 0 in content[1:] else constant(graph, f"{reshape.name}/channels_last", content[list(order)])
    indices = constant(graph, f"channels_last/{len(order)}", np.array(order, np.int64))
    gather = new_node(
        "Gather", [target, indices], f"{reshape.name}/channels_last", dtype=ir.DataType.INT64, path=module_path(reshape)
    )
    graph.insert_before(reshape, gather)
    return gather.outputs[0]


def _like(
    node: ir.Node,
    kind: str,
    inputs: Sequence[ir.Value | None],
    suffix: str,
    order: Sequence[int] | None,
    **attributes: Sequence[int],
) -> ir.Node:
    """A node in the place of ``node``; ``order`` is that of its output's axes among the old output's."""
    output = node.outputs[0]
    axes = range(len(output.shape)) if order is None and output.shape is not None else order
    shape = ir.Shape([output.shape[axis] for axis in axes]) if output.shape is not None and axes is not None else None
    return new_node(
        kind, inputs, f"{node.name}/{suffix}", dtype=output.dtype, shape=shape, attributes=attributes, path=module_path(node)
    )


def _replace(graph: ir.Graph, node: ir.Node, new: Sequence[ir.Node], before: ir.Node) -> None:
    """Put ``new`` in the place of ``node``, and remove the node before it when nobody else reads that."""
    graph.insert_before(node, new)
    node.outputs[0].replace_all_uses_with(new[-1].outputs[0], replace_graph_outputs=True)
    graph.remove(node, safe=True)
    if not before.outputs[0].uses() and not before.outputs[0].is_graph_output():
        graph.remove(before, safe=True)
