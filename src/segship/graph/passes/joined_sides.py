"""Join a map's sides channels last, for runtimes that keep maps so: (n, c, h, w) to (n, c, h * w) by way of (n, h * w, c).

``Reshape`` alone needs the channels first in memory, and the runtime copies the map for it; in the longer form its own order
stays, and the Transpose at the end becomes part of the matrix product behind it. OpenVINO's copy of Panoptic FCN's features
took 6.5 ms of 42 in INT8 (docs/decisions/0015).
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from segship.graph.passes.edit import constant, module_path, new_node


def join_sides_channels_last(graph: ir.Graph) -> int:
    """Replace every such Reshape; gives their number."""
    found = [node for node in graph if node.op_type == "Reshape" and _joins_sides(node)]
    for reshape in found:
        source, joined = reshape.inputs[0], reshape.outputs[0]
        assert source is not None
        assert joined.shape is not None
        kept = constant(graph, f"{reshape.name}/channels_last", np.array([0, -1, joined.shape[1]], np.int64))
        name, kind, path = reshape.name or "", joined.dtype, module_path(reshape)
        last = new_node("Transpose", [source], f"{name}/last", dtype=kind, attributes={"perm": (0, 2, 3, 1)}, path=path)
        join = new_node("Reshape", [last.outputs[0], kept], f"{name}/join", dtype=kind, path=path)
        turned = {"perm": (0, 2, 1)}
        turn = new_node(
            "Transpose", [join.outputs[0]], f"{name}/turn", dtype=kind, shape=joined.shape, attributes=turned, path=path
        )
        graph.insert_before(reshape, [last, join, turn])
        joined.replace_all_uses_with(turn.outputs[0], replace_graph_outputs=True)
        graph.remove(reshape, safe=True)
    return len(found)


def _joins_sides(reshape: ir.Node) -> bool:
    """From four to three axes, with the images and the channels (more than one) kept; not at the end, where names count.

    What a Transpose made is no map: heads of attention, whose joining would cost SegFormer-B1 a third of its speed.
    """
    before, after = reshape.inputs[0], reshape.outputs[0]
    if before is None or before.shape is None or after.shape is None or after.is_graph_output():
        return False
    producer = before.producer()
    if producer is not None and producer.op_type == "Transpose":
        return False
    if (len(before.shape), len(after.shape)) != (4, 3) or 0 in before.shape:
        return False
    channels = before.shape[1]
    return isinstance(channels, int) and channels > 1 and before.shape[:2] == after.shape[:2]
