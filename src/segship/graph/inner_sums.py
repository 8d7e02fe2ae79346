"""Sums that operators form inside, as tensors that can be observed: they may overflow half precision though the result fits.

A normalisation divides by the root of a sum of squares, a mean is a sum divided. ONNX asks float32 sums of
LayerNormalization only (``stash_type``), and kernels for half precision do not all keep to it. 16 in each of 300 channels,
and the sum of squares is beyond float16.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx_ir as ir

from segship.core.graph import Graph
from segship.graph.passes.edit import constant, new_node
from segship.graph.passes.exact_nodes import exact_nodes

SQUARES, SUM = "sum_of_squares", "sum"


def with_inner_sums(graph: Graph) -> Graph:
    """The graph with a node beside each operator that sums inside; for observing, not for running."""
    model = graph.ir.clone()
    for node in list(model.graph):
        if node.op_type in _WRITERS and _rank(node):
            _WRITERS[node.op_type](model.graph, node)
    return Graph(model, graph.spec, graph.signature)


def inner_sum(node: ir.Node) -> str | None:
    """Name of the tensor that holds the sum inside ``node`` after :func:`with_inner_sums`; None where there is none."""
    if node.op_type not in _WRITERS or not _rank(node):
        return None
    return f"{node.name}/{SUM if node.op_type in _MEANS else SQUARES}/out"


def tensors_for_half(graph: Graph) -> tuple[str, ...]:
    """Tensors of :func:`with_inner_sums` whose ranges decide what half precision can hold: all float32 results, and the sums.

    Left out is what stays float32 by rule, and what is constant.
    """
    exact = exact_nodes(graph.ir.graph)
    names: list[str] = []
    for node in graph.ir.graph:
        if node in exact:
            continue
        names += [value.name or "" for value in node.outputs if value.dtype == ir.DataType.FLOAT]
        inside = inner_sum(node)
        names += [inside] if inside is not None else []
    return tuple(names)


def _rank(node: ir.Node) -> int:
    shape = node.inputs[0].shape if node.inputs and node.inputs[0] is not None else None
    return len(shape) if shape is not None else 0


def _append(graph: ir.Graph, node: ir.Node, kind: str, word: str, inputs: list[ir.Value | None]) -> ir.Node:
    new = new_node(kind, inputs, f"{node.name}/{word}", dtype=ir.DataType.FLOAT, attributes={"keepdims": 0})
    graph.insert_after(node, new)
    return new


def _axes(graph: ir.Graph, node: ir.Node, axes: list[int]) -> ir.Value:
    return constant(graph, f"{node.name}/inner_axes", np.array(axes, np.int64))


def _layer_norm(graph: ir.Graph, node: ir.Node) -> None:
    first = node.attributes.get_int("axis", -1) % _rank(node)
    _append(graph, node, "ReduceSumSquare", SQUARES, [node.inputs[0], _axes(graph, node, list(range(first, _rank(node))))])


def _instance_norm(graph: ir.Graph, node: ir.Node) -> None:
    _append(graph, node, "ReduceSumSquare", SQUARES, [node.inputs[0], _axes(graph, node, list(range(2, _rank(node))))])


def _group_norm(graph: ir.Graph, node: ir.Node) -> None:
    shape = constant(graph, f"{node.name}/inner_groups", np.array([0, node.attributes.get_int("num_groups", 1), -1], np.int64))
    groups = new_node("Reshape", [node.inputs[0], shape], f"{node.name}/groups", dtype=ir.DataType.FLOAT)
    _append(graph, node, "ReduceSumSquare", SQUARES, [groups.outputs[0], _axes(graph, node, [2])])
    graph.insert_after(node, groups)


def _pool(graph: ir.Graph, node: ir.Node) -> None:
    _append(graph, node, "ReduceSum", SUM, [node.inputs[0], _axes(graph, node, list(range(2, _rank(node))))])


def _mean(graph: ir.Graph, node: ir.Node) -> None:
    _append(graph, node, "ReduceSum", SUM, list(node.inputs))


def _norm(graph: ir.Graph, node: ir.Node) -> None:
    _append(graph, node, "ReduceSumSquare", SQUARES, list(node.inputs))


_MEANS = ("GlobalAveragePool", "ReduceMean")

_WRITERS: dict[str, Callable[[ir.Graph, ir.Node], None]] = {
    "GlobalAveragePool": _pool,
    "GroupNormalization": _group_norm,
    "InstanceNormalization": _instance_norm,
    "LayerNormalization": _layer_norm,
    "ReduceL2": _norm,
    "ReduceMean": _mean,
}
