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
        turned = _joined(graph, reshape, source, reshape.name or "", joined.shape)
        joined.replace_all_uses_with(turned, replace_graph_outputs=True)
        graph.remove(reshape, safe=True)
    return len(found)


def sample_from_planes(graph: ir.Graph) -> int:
    """Give GridSample, whose kernel reads planes, maps that a Transpose has turned, by the same longer form; gives their number.

    OpenVINO's own copy of PointRend's 64 x 64 x 64 features took 0.8 ms of 5.1 in INT8 (docs/decisions/0017).
    """
    sampled = dict.fromkeys(node.inputs[0] for node in graph if node.op_type == "GridSample" and _is_map(node.inputs[0]))
    for source in sampled:
        assert source is not None
        assert source.shape is not None
        readers = [node for node in source.consumers() if node.op_type == "GridSample"]
        first, name = next(node for node in graph if node in readers), f"{source.name}/planes"
        turned = _joined(graph, first, source, name, ir.Shape([*source.shape[:2], None]))
        whole = new_node("Shape", [source], f"{name}/Shape", dtype=ir.DataType.INT64, shape=[4])
        inputs = [turned, whole.outputs[0]]
        back = new_node("Reshape", inputs, name, dtype=source.dtype, shape=source.shape, path=module_path(first))
        graph.insert_before(first, [whole, back])
        for node in readers:
            node.replace_input_with(0, back.outputs[0])
    return len(sampled)


def _joined(graph: ir.Graph, before: ir.Node, source: ir.Value, name: str, shape: ir.Shape) -> ir.Value:
    """(n, c, h * w) of the map ``source``, by way of (n, h * w, c), computed before a node and in its module."""
    kept = constant(graph, f"{name}/channels_last", np.array([0, -1, shape[1]], np.int64))
    kind, path = source.dtype, module_path(before)
    last = new_node("Transpose", [source], f"{name}/last", dtype=kind, attributes={"perm": (0, 2, 3, 1)}, path=path)
    join = new_node("Reshape", [last.outputs[0], kept], f"{name}/join", dtype=kind, path=path)
    turned = {"perm": (0, 2, 1)}
    turn = new_node("Transpose", [join.outputs[0]], f"{name}/turn", dtype=kind, shape=shape, attributes=turned, path=path)
    graph.insert_before(before, [last, join, turn])
    return turn.outputs[0]


def _is_map(value: ir.Value | None) -> bool:
    """A computed map of four axes and more than one channel."""
    if value is None or value.shape is None or len(value.shape) != 4 or value.producer() is None:
        return False
    return isinstance(value.shape[1], int) and value.shape[1] > 1


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
