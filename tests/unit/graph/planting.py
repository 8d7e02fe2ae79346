"""Faults planted into trained networks without changing their function: numbers grow behind one layer and shrink in the next."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import onnx_ir as ir

from segship.core.graph import WEIGHTED_OPS, Graph

_HOMOGENEOUS = ("Relu", "MaxPool", "AveragePool", "Transpose", "Reshape", "Identity")
"""f(c x) = c f(x) for every positive c, the same one for all channels."""


class Link(NamedTuple):
    """A layer's result, its weight and biases, and the weight of the only layer that reads it."""

    result: str
    grows: tuple[ir.Value, ...]
    shrinks: ir.Value


def links(graph: Graph) -> list[Link]:
    """Every pair of weighted layers with nothing but homogeneous operators and a bias between, in the graph's order."""
    found = (_link(node) for node in graph.ir.graph if node.op_type in WEIGHTED_OPS)
    return [link for link in found if link is not None]


def _link(node: ir.Node) -> Link | None:
    grows = [value for value in node.inputs[1:] if value is not None]
    result, value = node.outputs[0], node.outputs[0]
    while len(uses := list(value.uses())) == 1 and not value.is_graph_output():
        user, index = uses[0]
        if user.op_type in WEIGHTED_OPS:
            ready = index == 0 and all(_is_own(each) for each in (*grows, user.inputs[1]))
            return Link(result.name or "", tuple(grows), user.inputs[1]) if ready else None
        if user.op_type == "Add" and (bias := user.inputs[1 - index]) is not None and bias.const_value is not None:
            grows.append(bias)
            result = user.outputs[0]
        elif user.op_type not in _HOMOGENEOUS:
            return None
        value = user.outputs[0]
    return None


def _is_own(value: ir.Value | None) -> bool:
    return value is not None and value.const_value is not None and len(list(value.uses())) == 1


def scaled(graph: Graph, which: Link, factor: float) -> Graph:
    """The same function, the results of one layer ``factor`` times as large."""
    model = graph.ir.clone()
    for value in which.grows:
        _scale(model.graph.initializers[value.name], factor)
    _scale(model.graph.initializers[which.shrinks.name], 1 / factor)
    return Graph(model, graph.spec, graph.signature)


def _scale(value: ir.Value, factor: float) -> None:
    content = value.const_value.numpy() * np.float32(factor)
    value.const_value = ir.tensor(content, name=value.name)
