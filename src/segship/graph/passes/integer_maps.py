"""What stays float beside integer maps, in a form that leaves those maps as they are: 8 bits, channels last.

ONNX Runtime's integer convolutions keep maps channels last. A float 1x1 convolution behind one costs a Transpose, a
DequantizeLinear and a copy into blocks of channels, which together take longer than its products; a product of matrices
reads the map in its own order. Its nearest Resize takes longer than copying pixels, and on integers twice as long as on
floats. The numbers stay the same, but for the order of a product's sums (docs/decisions/0015).
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from segship.graph.passes.channels_last_resize import hand_over, is_pointwise, product_channels_last
from segship.graph.passes.edit import constant, constant_of, insert_before, module_path, new_node, sides_of

_TO_LAST, _TO_FIRST = (0, 2, 3, 1), (0, 3, 1, 2)


def measure_integers(graph: ir.Graph) -> int:
    """Let every Shape ask the integers: a map that becomes float only to be measured would still be computed. Gives how many."""
    found = [node for node in graph if node.op_type == "Shape" and _integers_of(node.inputs[0]) is not None]
    for node in found:
        floats = node.inputs[0]
        node.replace_input_with(0, _integers_of(floats))
        up = floats.producer() if floats is not None else None
        if up is not None and not up.outputs[0].uses() and not up.outputs[0].is_graph_output():
            graph.remove(up, safe=True)
    return len(found)


def products_of_integers(graph: ir.Graph) -> int:
    """Make float 1x1 convolutions of an integer map products of matrices, all of one map a single one; gives their number."""
    by_map: dict[ir.Value, list[ir.Node]] = {}
    for node in graph:
        known = is_pointwise(node) and all(constant_of(bias) is not None for bias in node.inputs[2:])
        source = node.inputs[0] if known else None
        if source is not None and _integers_of(source) is not None:
            by_map.setdefault(source, []).append(node)
    for source, convs in by_map.items():
        conv = convs[0] if len(convs) == 1 else _as_one(graph, convs)
        last = insert_before(graph, conv, "Transpose", [source], "last", source.dtype, perm=_TO_LAST)
        twin = _product(graph, conv, last) or product_channels_last(graph, conv, last)
        hand_over(graph, conv.outputs[0], twin)
    return sum(map(len, by_map.values()))


def _as_one(graph: ir.Graph, convs: list[ir.Node]) -> ir.Node:
    """One convolution for all channels of several, and a Split behind it; it goes by the first one's name."""
    first, weights, biases = convs[0], [], []
    for conv in convs:
        weight, bias = constant_of(conv.inputs[1]), constant_of(conv.inputs[2]) if len(conv.inputs) > 2 else None
        assert weight is not None
        weights.append(weight)
        biases.append(np.zeros(len(weight), weight.dtype) if bias is None else bias)
    parts = [constant(graph, f"{first.name}/{name}", np.concatenate(each)) for name, each in (("w", weights), ("b", biases))]
    kind, name = first.outputs[0].dtype, first.name or ""
    whole = new_node("Conv", [first.inputs[0], *parts], name, dtype=kind, attributes=first.attributes, path=module_path(first))
    whole.outputs[0].name = f"{name}/all"
    if (shape := first.outputs[0].shape) is not None:
        whole.outputs[0].shape = ir.Shape([shape[0], sum(map(len, weights)), *shape[2:]])
    channels = constant(graph, f"{name}/channels", np.array([len(each) for each in weights], np.int64))
    split = ir.node("Split", [whole.outputs[0], channels], attributes={"axis": 1}, num_outputs=len(convs), name=f"{name}/split")
    graph.insert_before(first, [whole, split])
    for conv, part in zip(convs, split.outputs, strict=True):
        old = conv.outputs[0]
        part.name, part.type, part.shape = f"{old.name}/part", old.type, old.shape
        old.replace_all_uses_with(part, replace_graph_outputs=True)
        part.name, old.name = old.name, None
    graph.remove(convs, safe=True)
    return whole


def _product(graph: ir.Graph, conv: ir.Node, last: ir.Value) -> ir.Value | None:
    """``conv`` of a map channels last as one Gemm, whose bias costs nothing; None for maps of any size."""
    weight, sides = constant_of(conv.inputs[1]), sides_of(conv.outputs[0])
    assert weight is not None
    if sides is None:
        return None
    kind, name = conv.outputs[0].dtype, conv.name or ""
    matrix = constant(graph, f"{name}/matrix", weight[:, :, 0, 0].T)
    bias = conv.inputs[2:3]
    rows = insert_before(graph, conv, "Reshape", [last, _ints(graph, [-1, weight.shape[1]])], "rows", kind)
    gemm = new_node("Gemm", [rows, matrix, *bias], name, dtype=kind, path=module_path(conv))
    graph.insert_before(conv, gemm)
    gemm.outputs[0].name = f"{name}/product"
    return insert_before(graph, conv, "Reshape", [gemm.outputs[0], _ints(graph, [-1, *sides, len(weight)])], "map", kind)


def repeat_integers(graph: ir.Graph) -> int:
    """Enlarge integer maps by whole factors by repeating their pixels, before they become float; gives how many."""
    found = [(node, factors) for node in graph if (factors := _whole_factors(node)) is not None]
    for resize, factors in found:
        _repeat(graph, resize, factors)
    return len(found)


def _whole_factors(node: ir.Node) -> tuple[int, int] | None:
    """How often a nearest Resize of an integer map repeats each pixel; None for all other nodes and factors."""
    if node.op_type != "Resize" or _integers_of(node.inputs[0]) is None or "axes" in node.attributes:
        return None
    rule = [node.attributes.get_string(name, "") for name in ("mode", "coordinate_transformation_mode", "nearest_mode")]
    before, after = sides_of(node.inputs[0]), sides_of(node.outputs[0])
    if rule != ["nearest", "asymmetric", "floor"] or before is None or after is None:
        return None
    whole = all(large % small == 0 for small, large in zip(before, after, strict=True))
    return (after[0] // before[0], after[1] // before[1]) if whole else None


def _repeat(graph: ir.Graph, resize: ir.Node, factors: tuple[int, int]) -> None:
    source, result = resize.inputs[0], resize.outputs[0]
    up = source.producer() if source is not None else None
    assert up is not None
    integers = up.inputs[0]
    assert integers is not None
    kind, sides = integers.dtype, sides_of(result) or ()
    x = insert_before(graph, resize, "Transpose", [integers], "last", kind, perm=_TO_LAST)
    x = insert_before(graph, resize, "Unsqueeze", [x, _ints(graph, [2, 4])], "apart", kind)
    x = insert_before(graph, resize, "Tile", [x, _ints(graph, [1, 1, factors[0], 1, factors[1], 1])], "repeated", kind)
    x = insert_before(graph, resize, "Reshape", [x, _ints(graph, [0, *sides, -1])], "joined", kind)
    x = insert_before(graph, resize, "Transpose", [x], "first", kind, perm=_TO_FIRST)
    x = insert_before(graph, resize, "DequantizeLinear", [x, *up.inputs[1:]], "dequantised", result.dtype)
    x.shape = result.shape
    result.replace_all_uses_with(x, replace_graph_outputs=True)
    graph.remove(resize, safe=True)


def _ints(graph: ir.Graph, content: list[int]) -> ir.Value:
    return constant(graph, f"integer_maps/{'_'.join(map(str, content))}", np.array(content, np.int64))


def _integers_of(value: ir.Value | None) -> ir.Value | None:
    """The integer map that ``value`` is the float form of; None where it is none, and for weights."""
    producer = value.producer() if value is not None else None
    if producer is None or producer.op_type != "DequantizeLinear" or constant_of(producer.inputs[0]) is not None:
        return None
    return producer.inputs[0]
