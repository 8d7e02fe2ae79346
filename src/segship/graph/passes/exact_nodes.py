"""Where half precision is wrong whatever the numbers: coordinates, and scores that are ranked.

Float16 has 11 significant bits, bfloat16 8: beyond 1024 pixels float16 knows no half pixel, and of the scores above 0.99
most are equal. So whatever only computes where to look or what comes first stays float32. It is little arithmetic: the
weighted layers whose results are decoded into boxes or scores are not part of it.
"""

from __future__ import annotations

from collections.abc import Iterator

import onnx_ir as ir

from segship.core.graph import WEIGHTED_OPS

COORDINATES = "computes coordinates: float16 has no half pixels beyond 1024, bfloat16 none beyond 128"
RANKING = "computes scores that are ranked: in half precision they tie"

_EXACT_INPUTS = {
    "CumSum": {0: "counts along an axis: half precision cannot count beyond 2048"},
    "GridSample": {1: COORDINATES},
    "NonMaxSuppression": {0: COORDINATES, 1: RANKING},
    "Range": {0: COORDINATES, 1: COORDINATES, 2: COORDINATES},
    "Resize": {1: COORDINATES, 2: COORDINATES},
    "RoiAlign": {1: COORDINATES},
    "TopK": {0: RANKING},
}
"""Inputs that must be exact, with the reason."""

_MIXERS = (
    *WEIGHTED_OPS,
    "Einsum",
    "GridSample",
    "GroupNormalization",
    "InstanceNormalization",
    "LayerNormalization",
    "Resize",
    "RoiAlign",
)
"""What makes features of many values: their rounding is noise that training has seen, and no decision follows at once. Pooling
is none of them: Panoptic FCN smooths its scores with it."""

_INTEGERS = (ir.DataType.INT64, ir.DataType.INT32)
_WALKED = (ir.DataType.FLOAT, ir.DataType.BOOL)


def exact_inputs(node: ir.Node) -> dict[int, str]:
    """Indices of the inputs of ``node`` that must stay float32, with the reason."""
    return _EXACT_INPUTS.get(node.op_type, {})


def exact_nodes(graph: ir.Graph) -> dict[ir.Node, str]:
    """Nodes that must compute in float32, with the reason: those before an exact input, and those that continue from them."""
    found: dict[ir.Node, str] = {}
    for node in graph:
        needed = dict(exact_inputs(node))
        if _is_index(node):
            needed[0] = COORDINATES
        for index, reason in needed.items():
            if index < len(node.inputs):
                _mark_before(node.inputs[index], reason, found)
        if node.op_type in ("CumSum", "NonMaxSuppression", "Range", "RoiAlign", "TopK"):  # one type for all their inputs
            found.setdefault(node, next(iter(needed.values())))
    for node in graph:
        continued = _continued(node, found)
        if continued is not None:
            found.setdefault(node, continued)
    return found


def _is_index(node: ir.Node) -> bool:
    """A Cast from float to an integer: something is counted or addressed with it."""
    source = node.inputs[0] if node.op_type == "Cast" else None
    return source is not None and source.dtype == ir.DataType.FLOAT and node.outputs[0].dtype in _INTEGERS


def _mark_before(value: ir.Value | None, reason: str, found: dict[ir.Node, str]) -> None:
    """Mark all that ``value`` is computed from, up to the layers that make features."""
    waiting = [value]
    while waiting:
        current = waiting.pop()
        producer = current.producer() if current is not None else None
        if producer is None or producer in found or producer.op_type in _MIXERS:
            continue
        found[producer] = reason
        waiting.extend(each for each in producer.inputs if each is not None and each.dtype in _WALKED)


def _continued(node: ir.Node, found: dict[ir.Node, str]) -> str | None:
    """The reason where ``node`` goes on from exact values alone: computes boxes from boxes, or from integers."""
    if node.op_type == "Cast" and node.inputs[0] is not None and node.inputs[0].dtype in _INTEGERS:
        return COORDINATES
    reasons = [found.get(producer) if producer is not None else None for producer in _float_producers(node)]
    return reasons[0] if reasons and all(reasons) and node.op_type not in _MIXERS else None


def _float_producers(node: ir.Node) -> Iterator[ir.Node | None]:
    """Where the computed floating-point inputs come from; None for an input of the graph."""
    for value in node.inputs:
        if value is not None and value.dtype == ir.DataType.FLOAT and value.const_value is None:
            yield value.producer()
