"""Small edits of an ``onnx_ir`` graph that the passes share: make a constant, make a node, read a constant."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from segship.core.graph import MODULE_PATH


def constant(graph: ir.Graph, name: str, content: NDArray[Any]) -> ir.Value:
    """An initializer with ``content``; one of that name that is already there is used again."""
    if name in graph.initializers:
        return graph.initializers[name]
    tensor = ir.tensor(np.ascontiguousarray(content).reshape(content.shape), name=name)
    value = ir.Value(name=name, shape=ir.Shape(content.shape), type=ir.TensorType(tensor.dtype), const_value=tensor)
    graph.register_initializer(value)
    return value


def constant_of(value: ir.Value | None) -> NDArray[Any] | None:
    """The content of an initializer, or None for a value that is computed or fed."""
    return value.const_value.numpy() if value is not None and value.const_value is not None else None


def fixed_values(graph: ir.Graph) -> set[ir.Value]:
    """Every value that no image decides, but at most its size: initializers, shapes, and all that is computed of nothing else."""
    fixed = set(graph.initializers.values())
    for node in graph:
        if node.op_type == "Shape" or all(value is None or value in fixed for value in node.inputs):
            fixed.update(node.outputs)
    return fixed


def module_path(node: ir.Node) -> str:
    """PyTorch module path that the node came from; empty where it is not known."""
    return node.metadata_props.get(MODULE_PATH, "")


def place(node: ir.Node) -> str:
    """What a precision plan addresses the node by: its module path, or its own name where that is not known."""
    return module_path(node) or node.name or ""


def new_node(
    kind: str,
    inputs: Sequence[ir.Value | None],
    name: str,
    *,
    dtype: ir.DataType | None,
    shape: ir.Shape | Sequence[int | str | None] | None = None,
    attributes: Mapping[str, Any] | None = None,
    path: str = "",
) -> ir.Node:
    """A node with one output, called ``NAME/out``, that knows its type and, as far as given, its shape and module path."""
    node = ir.node(kind, inputs, attributes=attributes or {}, name=name)
    if path:
        node.metadata_props[MODULE_PATH] = path
    output = node.outputs[0]
    output.name = f"{name}/out"
    output.type = ir.TensorType(dtype) if dtype is not None else None
    output.shape = shape if shape is None or isinstance(shape, ir.Shape) else ir.Shape(shape)
    return node


def insert_before(
    graph: ir.Graph,
    node: ir.Node,
    kind: str,
    inputs: Sequence[ir.Value | None],
    name: str,
    dtype: ir.DataType | None,
    **attributes: Any,
) -> ir.Value:
    """The output of a new node before ``node``, called ``name`` behind its name and of its module."""
    new = new_node(kind, inputs, f"{node.name}/{name}", dtype=dtype, attributes=attributes, path=module_path(node))
    graph.insert_before(node, new)
    return new.outputs[0]


def sides_of(value: ir.Value | None) -> tuple[int, int] | None:
    """Height and width of a map (n, c, height, width); None where they are free, and for what is no map."""
    shape = value.shape if value is not None else None
    if shape is None or len(shape) != 4:
        return None
    height, width = shape[2:]
    return (height, width) if isinstance(height, int) and isinstance(width, int) else None


def drop_unused_constants(graph: ir.Graph) -> None:
    """Remove initializers that no node reads any more."""
    for name, value in list(graph.initializers.items()):
        if not value.uses() and not value.is_graph_output():
            del graph.initializers[name]


def reaches(node: ir.Node, kinds: Collection[str], without: Collection[str] = ()) -> bool:
    """Whether a node of one of ``kinds`` uses, directly or not, what ``node`` computes; not by way of nodes of ``without``."""
    seen: set[ir.Node] = set()
    waiting = list(node.successors())
    while waiting:
        current = waiting.pop()
        if current.op_type in kinds:
            return True
        if current not in seen:
            seen.add(current)
            waiting.extend(() if current.op_type in without else current.successors())
    return False
