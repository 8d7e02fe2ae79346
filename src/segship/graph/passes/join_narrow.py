"""Resize a narrow map before its linear layer, and let the linear layer of another map multiply both at once.

``resize(a W + p) + b V + q = [resize(a), b] [W; V] + (p + q)``: a bilinear resize's weights sum to one, so it commutes with a
linear layer. A map that is narrow beside what is made of it is cheaper to resize than the result, and a sum over the whole map
falls away, a step that no INT8 kernel shortens. What is paid are products at the larger size, which INT8 does quickly:
SegFormer's head with 64 channels of 256 takes 4.9 ms for 4.8 in FP32, 3.2 for 4.4 in INT8; with 128, 7.0 for 5.9 and 4.1 for 4.6
(docs/decisions/0017): hence ``NARROW``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from segship.core.graph import Graph, PassRecord
from segship.graph.passes.edit import constant, constant_of, drop_unused_constants, module_path, new_node

NAME = "join_narrow"

NARROW = 4
"""How many times as many channels a linear layer must make of a map for the map to be resized in its place."""

_TO_FIRST, _TO_LAST = (0, 3, 1, 2), (0, 2, 3, 1)


def join_narrow(graph: Graph) -> Graph:
    """The graph with every such map joined to another; unchanged (and said so in the history) where none matches.

    Reads the form that ``channels_last_tokens`` leaves: linear layers on tokens (n, h*w, c), between Reshape and Transpose.
    """
    model = graph.ir.clone()
    joined = [node for node in list(model.graph) if node.op_type == "Resize" and _join(model.graph, node)]
    drop_unused_constants(model.graph)
    return graph.after(model, PassRecord(NAME, "fuse", {"joined": str(len(joined))}, changed=bool(joined)))


class _Linear(NamedTuple):
    """A linear layer whose tokens come from a map and become a map; each step is read by the next one alone."""

    to_last: ir.Node
    join: ir.Node
    product: ir.Node
    add: ir.Node
    split: ir.Node
    to_first: ir.Node
    weight: NDArray[np.float32]
    """(c in, c out)"""
    bias: NDArray[np.float32]


def _linear_before(value: ir.Value | None) -> _Linear | None:
    """The linear layer that makes the map ``value`` (n, c, h, w), for one reader beside those that ask for its shape."""
    kinds = "Transpose", "Reshape", "Add", "MatMul", "Reshape", "Transpose"
    found: list[ir.Node] = []
    for kind in kinds:
        node = value.producer() if value is not None and _read_once(value) else None
        if node is None or node.op_type != kind:
            return None
        found.append(node)
        value = node.inputs[0]
    to_first, split, add, product, join, to_last = found
    weight, bias = constant_of(product.inputs[1]), constant_of(add.inputs[1])
    turns = tuple(to_first.attributes.get_ints("perm", ())), tuple(to_last.attributes.get_ints("perm", ()))
    if weight is None or bias is None or weight.ndim != 2 or turns != (_TO_FIRST, _TO_LAST):
        return None
    return _Linear(to_last, join, product, add, split, to_first, weight, bias)


def _read_once(value: ir.Value) -> bool:
    return sum(use.node.op_type != "Shape" for use in value.uses()) == 1 and not value.is_graph_output()


def _join(graph: ir.Graph, resize: ir.Node) -> bool:
    narrow = _linear_before(resize.inputs[0]) if resize.attributes.get_string("mode", "nearest") == "linear" else None
    if narrow is None or NARROW * narrow.weight.shape[0] > narrow.weight.shape[1]:
        return False
    wide, measured = _summed_with(resize.outputs[0]), _measured(resize)
    if wide is None or (measured is None and _given(resize) is None) or not _is_removable(resize, narrow, measured):
        return False
    sizes = _sizes(graph, resize, narrow, measured)
    tokens = _resized_tokens(graph, resize, narrow, sizes, before=wide.product)
    _widen(graph, wide, narrow, tokens)
    _drop(graph, resize, narrow)
    return True


def _summed_with(value: ir.Value) -> _Linear | None:
    """The first linear layer, not resized, that a chain of sums adds to ``value``."""
    while _read_once(value):
        (add,) = (node for node in value.consumers() if node.op_type != "Shape")
        other = next((each for each in add.inputs if each is not value), None)
        if add.op_type != "Add" or other is None:
            return None
        found = _linear_before(other)
        if found is not None and _is_known(value.shape) and other.shape == value.shape:
            return found
        value = add.outputs[0]
    return None


def _is_known(shape: ir.Shape | None) -> bool:
    """Every side a number or a name: two sides that nobody knows are not the same side."""
    return shape is not None and all(isinstance(side, int) or side.value is not None for side in shape)


def _given(resize: ir.Node) -> NDArray[np.int64] | None:
    """The sizes (n, c, h, w) of a Resize to constant ones."""
    return constant_of(resize.inputs[3]) if len(resize.inputs) > 3 else None


def _measured(resize: ir.Node) -> ir.Node | None:
    """Of a Resize to computed sizes: the Shape that gives the images and channels of what it resizes, for nothing else."""
    asked = resize.inputs[3] if len(resize.inputs) > 3 else None
    parts = asked.producer() if asked is not None and len(asked.uses()) == 1 else None
    shape = (
        parts.inputs[0].producer() if parts is not None and parts.op_type == "Concat" and parts.inputs[0] is not None else None
    )
    if shape is None or shape.op_type != "Shape" or shape.inputs[0] is not resize.inputs[0]:
        return None
    first_two = (shape.attributes.get_int("start", 0), shape.attributes.get_int("end", 4)) == (0, 2)
    return shape if first_two and len(shape.outputs[0].uses()) == 1 else None


def _is_removable(resize: ir.Node, narrow: _Linear, measured: ir.Node | None) -> bool:
    """Whether nobody else asks for the narrow map's linear layer or for its enlarged result, be it for their shape."""
    steps = narrow.join, narrow.product, narrow.add, narrow.split, narrow.to_first, narrow.to_last
    known = {*steps, resize, measured}
    return len(resize.outputs[0].uses()) == 1 and all(user in known for step in steps for user in step.outputs[0].consumers())


def _sizes(graph: ir.Graph, resize: ir.Node, narrow: _Linear, measured: ir.Node | None) -> ir.Value:
    """The sizes (n, c, h, w) that the narrow map itself is resized to."""
    given = _given(resize)
    if given is not None:
        return constant(graph, f"{resize.name}/narrow/sizes", np.array([given[0], narrow.weight.shape[0], *given[2:]], np.int64))
    asked = resize.inputs[3]
    assert asked is not None
    assert measured is not None
    measured.replace_input_with(0, narrow.to_last.inputs[0])
    return asked


def _resized_tokens(graph: ir.Graph, resize: ir.Node, narrow: _Linear, sizes: ir.Value, before: ir.Node) -> ir.Value:
    """The narrow map, resized, as tokens (n, h*w, c)."""
    kind, path, name, channels = resize.outputs[0].dtype, module_path(resize), f"{resize.name}/narrow", narrow.weight.shape[0]
    attributes = {key: each.value for key, each in resize.attributes.items()}
    inputs = [narrow.to_last.inputs[0], None, None, sizes]
    up = new_node("Resize", inputs, name, dtype=kind, attributes=attributes, path=path)
    last = new_node("Transpose", up.outputs, f"{name}/move", dtype=kind, attributes={"perm": _TO_LAST}, path=path)
    rows = constant(graph, f"{name}/rows", np.array([0, -1, channels], np.int64))
    join = new_node("Reshape", [last.outputs[0], rows], f"{name}/join", dtype=kind, path=path)
    up.outputs[0].shape = _shape(resize.outputs[0], (0, None, 2, 3), channels)
    last.outputs[0].shape = _shape(resize.outputs[0], (0, 2, 3, None), channels)
    join.outputs[0].shape = ir.Shape([up.outputs[0].shape[0], None, channels]) if up.outputs[0].shape is not None else None
    graph.insert_before(before, [up, last, join])
    return join.outputs[0]


def _shape(like: ir.Value, axes: Sequence[int | None], channels: int) -> ir.Shape | None:
    """Axes of ``like``, as far as its shape is known; ``channels`` for None."""
    shape = like.shape
    return None if shape is None else ir.Shape([channels if axis is None else shape[axis] for axis in axes])


def _widen(graph: ir.Graph, wide: _Linear, narrow: _Linear, tokens: ir.Value) -> None:
    """Let the wide map's linear layer multiply ``tokens``, too, by the narrow map's weights."""
    own, name, path = wide.product.inputs[0], f"{wide.product.name}/joined", module_path(wide.product)
    assert own is not None
    weight = np.concatenate([wide.weight, narrow.weight])
    both = new_node("Concat", [own, tokens], name, dtype=tokens.dtype, attributes={"axis": -1}, path=path)
    both.outputs[0].shape = _shape(own, (0, 1, None), len(weight))
    graph.insert_before(wide.product, both)
    wide.product.replace_input_with(0, both.outputs[0])
    wide.product.replace_input_with(1, constant(graph, f"{name}.weight", weight))
    wide.add.replace_input_with(1, constant(graph, f"{wide.add.name}/joined.bias", wide.bias + narrow.bias))


def _drop(graph: ir.Graph, resize: ir.Node, narrow: _Linear) -> None:
    """Take the resized result out of the sum, and all that made it."""
    (add,) = resize.outputs[0].consumers()
    rest = next(each for each in add.inputs if each is not resize.outputs[0])
    assert rest is not None
    add.outputs[0].replace_all_uses_with(rest)
    steps = narrow.to_first, narrow.split, narrow.add, narrow.product, narrow.join, narrow.to_last
    graph.remove([add, resize, *steps], safe=True)
