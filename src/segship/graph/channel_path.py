"""Where the channels of a tensor are, and which constants scale them: what is behind a layer, and what is before the next.

A layer's output channel can be made smaller, and the next layer's weights on it larger by as much, without a change of the
function, if all between them lets a positive factor pass.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import onnx_ir as ir

from segship.graph.passes.edit import constant_of

_POOLS = ("AveragePool", "MaxPool")
LETS_FACTORS_PASS = (*_POOLS, "LeakyRelu", "PRelu", "Relu")
"""Operators that work on each channel alone, and f(a x) = a f(x) for positive a; pools do where the channels are axis 1."""


class Slot(NamedTuple):
    """A constant input of a node (by its index) and the axis of the constant that goes over the channels."""

    node: ir.Node
    place: int
    axis: int


class Site(NamedTuple):
    """A tensor whose channels can be scaled: ``axis`` over its channels, ``makers`` to divide, ``readers`` to multiply."""

    value: ir.Value
    axis: int
    makers: tuple[Slot, ...]
    readers: tuple[Slot, ...]


def sites(graph: ir.Graph) -> list[Site]:
    """Every tensor whose channels can be scaled for nothing, in graph order."""
    found = []
    for node in graph:
        made = _made_by(node)
        if made is not None:
            value, axis, makers = _last_of_chain(node.outputs[0], *made)
            readers = _readers(value, axis)
            if readers:
                found.append(Site(value, axis, tuple(makers), tuple(readers)))
    return found


def scaled_values(site: Site) -> Iterator[ir.Value]:
    """Every value that scaling the site scales: from the node that makes its channels to those whose weights read them."""
    yield from _back_to(site.makers[0].node, site.value)
    for reader in site.readers:
        yield from _back_to(site.value.producer(), reader.node.inputs[0])


def _back_to(maker: ir.Node | None, value: ir.Value | None) -> Iterator[ir.Value]:
    while value is not None:
        yield value
        node = value.producer()
        if node is maker or node is None:
            return
        value = next((each for each in node.inputs if each is not None and constant_of(each) is None), None)


def _made_by(node: ir.Node) -> tuple[int, list[Slot]] | None:
    """The axis of the channels that ``node`` makes, and its constants for them; None where it makes none."""
    rank = len(node.outputs[0].shape) if node.outputs[0].shape is not None else 0
    weight = constant_of(node.inputs[1]) if len(node.inputs) > 1 else None
    if not rank or weight is None:
        return None
    bias = len(node.inputs) > 2 and node.inputs[2] is not None
    if bias and (constant_of(node.inputs[2]) is None or constant_of(node.inputs[2]).ndim != 1):  # type: ignore[union-attr]
        return None
    match node.op_type:
        case "LayerNormalization" if node.attributes.get_int("axis", -1) in (-1, rank - 1):
            axis, of_weight = rank - 1, 0
        case "Conv":
            axis, of_weight = 1, 0
        case "ConvTranspose" if node.attributes.get_int("group", 1) == 1:
            axis, of_weight = 1, 1
        case "MatMul" if weight.ndim == 2:
            axis, of_weight = rank - 1, 1
        case "Gemm" if not node.attributes.get_int("transA", 0):
            axis, of_weight = 1, 0 if node.attributes.get_int("transB", 0) else 1
        case _:
            return None
    return axis, [Slot(node, 1, of_weight), *([Slot(node, 2, 0)] if bias else [])]


def _last_of_chain(value: ir.Value, axis: int, makers: list[Slot]) -> tuple[ir.Value, int, list[Slot]]:
    """Forward through bias and activations, as long as one node alone reads the value."""
    while len(uses := list(value.uses())) == 1 and not value.is_graph_output():
        node, index = uses[0].node, uses[0].idx
        if node.op_type == "Add" and (bias := constant_of(node.inputs[1 - index])) is not None and bias.ndim == 1:
            if value.shape is None or axis != len(value.shape) - 1 or bias.shape[0] != value.shape[axis]:
                break
            makers = [*makers, Slot(node, 1 - index, 0)]
        elif node.op_type not in LETS_FACTORS_PASS or index != 0 or (node.op_type in _POOLS and axis != 1):
            break
        value = node.outputs[0]
    return value, axis, makers


def _readers(value: ir.Value, axis: int) -> list[Slot]:
    """The weights of all that reads ``value``; empty where something else reads it, too."""
    if value.is_graph_output():
        return []
    found: list[Slot] = []
    for node, index in value.uses():
        moved = _moved(node, value, axis)
        slots = _readers(node.outputs[0], moved) if moved is not None else _slot_of(node, index, value, axis)
        if not slots:
            return []
        found += slots
    return found


def _moved(node: ir.Node, value: ir.Value, axis: int) -> int | None:
    """The axis of the channels behind an operator that only moves values; None for others, and where they mix."""
    if node.op_type == "Transpose":
        return list(node.attributes["perm"].as_ints()).index(axis)
    before, after = value.shape, node.outputs[0].shape
    if node.op_type != "Reshape" or before is None or after is None or before[axis] is None:
        return None
    if axis == len(before) - 1 and after[-1] == before[-1]:
        return len(after) - 1
    same_front = list(after[: axis + 1]) == list(before[: axis + 1])
    return axis if same_front else None


def _slot_of(node: ir.Node, index: int, value: ir.Value, axis: int) -> list[Slot]:
    weight = constant_of(node.inputs[1]) if index == 0 and len(node.inputs) > 1 else None
    if weight is None or value.shape is None:
        return []
    last, group = len(value.shape) - 1, node.attributes.get_int("group", 1)
    match node.op_type:
        case "Conv" if axis == 1 and group == 1:
            return [Slot(node, 1, 1)]
        case "Conv" if axis == 1 and group == weight.shape[0]:  # depthwise: one filter for each channel
            return [Slot(node, 1, 0)]
        case "ConvTranspose" if axis == 1 and group == 1:
            return [Slot(node, 1, 0)]
        case "MatMul" if axis == last and weight.ndim == 2:
            return [Slot(node, 1, 0)]
        case "Gemm" if axis == 1 and not node.attributes.get_int("transA", 0):
            return [Slot(node, 1, 1 if node.attributes.get_int("transB", 0) else 0)]
    return []
