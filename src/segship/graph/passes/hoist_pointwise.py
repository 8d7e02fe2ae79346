"""Move a 1x1 convolution from behind ``Concat(Resize(a), Resize(b), ..., z)`` to before the resizes, and into a linear layer.

A 1x1 convolution and a bilinear resize are both linear, and the resize's weights sum to one, so they commute:
``conv(concat(resize(a), z)) = resize(conv_a(a)) + conv_z(z)``. SegFormer's head spends more arithmetic in this one
convolution (4 widths to 1, at stride 4) than a B1 encoder does; at the maps' own strides it costs almost nothing. The share
of each map then merges with the linear layer before it: two matrices become their product.
In floating point the result differs by rounding only; ``graph.export.check_export`` runs after this pass, too.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from segship.core.graph import MODULE_PATH, Graph, PassRecord

NAME = "hoist_pointwise"
STAGE = "fuse"


def hoist_pointwise(graph: Graph) -> Graph:
    """The graph with every such convolution moved; unchanged (and said so in the history) where none matches."""
    model = graph.ir.clone()
    moved = [node for node in model.graph if _hoist(model.graph, node)]
    merged = [node for node in model.graph if node.op_type == "Conv" and _merge_into_linear(model.graph, node)]
    options = {"moved": str(len(moved)), "merged": str(len(merged))}
    return graph.after(model, PassRecord(NAME, "fuse", options, changed=bool(moved or merged)))


def _hoist(graph: ir.Graph, conv: ir.Node) -> bool:
    concat = conv.inputs[0].producer() if _is_pointwise(conv) and conv.inputs[0] else None
    if concat is None or concat.op_type != "Concat" or concat.attributes["axis"].as_int() != 1:
        return False
    weight = _constant(conv.inputs[1])
    parts = [value for value in concat.inputs if value is not None]
    if weight is None or len(concat.outputs[0].uses()) != 1 or not _fits(weight, parts):
        return False
    bias = conv.inputs[2] if len(conv.inputs) > 2 else None
    shares: list[ir.Value] = []
    ends = np.cumsum([_channels(part) for part in parts])
    for index, (part, kernel) in enumerate(zip(parts, np.split(weight, ends[:-1], axis=1), strict=True)):
        shares.append(_share(graph, conv, part, kernel, index, bias if index == len(parts) - 1 else None))
    total = shares[0]
    for index, following in enumerate(shares[1:]):
        add = _node(conv, "Add", [total, following], f"sum{index}")
        graph.insert_before(conv, add)
        total = add.outputs[0]
    conv.outputs[0].replace_all_uses_with(total)
    graph.remove([conv, concat], safe=True)
    graph.remove([node for part in parts if (node := part.producer()) and node.op_type == "Resize"], safe=True)
    return True


def _is_pointwise(node: ir.Node) -> bool:
    if node.op_type != "Conv":
        return False
    group, strides, pads = (node.attributes.get(name) for name in ("group", "strides", "pads"))
    weight = _constant(node.inputs[1])
    return (
        weight is not None
        and weight.shape[2:] == (1, 1)
        and (group is None or group.as_int() == 1)
        and (strides is None or set(strides.as_ints()) == {1})
        and (pads is None or set(pads.as_ints()) == {0})
    )


def _fits(weight: np.ndarray, parts: list[ir.Value]) -> bool:
    """At least one bilinear resize of a map with as many channels as the convolution gives (so its target size stays right)."""
    channels = [_channels(part) for part in parts]
    resized = [part for part in parts if _resize_of(part) is not None]
    return bool(resized) and sum(channels) == weight.shape[1] and all(_channels(part) == weight.shape[0] for part in resized)


def _resize_of(value: ir.Value) -> ir.Node | None:
    """The bilinear Resize that makes ``value`` for nobody else."""
    node = value.producer()
    if node is None or node.op_type != "Resize" or len(value.uses()) != 1:
        return None
    return node if node.attributes["mode"].as_string() == "linear" else None


def _channels(value: ir.Value) -> int:
    side = value.shape[1] if value.shape is not None and len(value.shape) > 1 else None
    return side if isinstance(side, int) else 0


def _share(graph: ir.Graph, conv: ir.Node, part: ir.Value, weight: np.ndarray, index: int, bias: ir.Value | None) -> ir.Value:
    """The convolution's share on one part of the concatenation, ahead of that part's resize if it has one."""
    resize = _resize_of(part)
    source = resize.inputs[0] if resize is not None else part
    assert source is not None
    kernel = _initializer(graph, f"{conv.name}/share{index}.weight", weight)
    pointwise = _node(conv, "Conv", [source, kernel] + ([bias] if bias is not None else []), f"share{index}", source.shape)
    graph.insert_before(conv, pointwise)
    if resize is None:
        return pointwise.outputs[0]
    copy = ir.node(
        "Resize", [pointwise.outputs[0], *resize.inputs[1:]], attributes=resize.attributes, name=f"{resize.name}/hoisted"
    )
    copy.metadata_props.update(resize.metadata_props)
    copy.outputs[0].name = f"{resize.outputs[0].name}/hoisted"
    copy.outputs[0].type, copy.outputs[0].shape = resize.outputs[0].type, resize.outputs[0].shape
    graph.insert_before(conv, copy)
    return copy.outputs[0]


def _merge_into_linear(graph: ir.Graph, conv: ir.Node) -> bool:
    """``Conv1x1(Transpose(Reshape(Add(MatMul(x, W), b))))`` of equal width: the convolution goes into W and b."""
    chain = _linear_before(conv)
    kernel = _constant(conv.inputs[1])
    if (
        chain is None
        or kernel is None
        or (len(conv.inputs) > 2 and conv.inputs[2] is not None and _constant(conv.inputs[2]) is None)
    ):
        return False
    matmul, add = chain
    weight, bias = _constant(matmul.inputs[1]), _constant(add.inputs[1])
    square = kernel[:, :, 0, 0].astype(np.float64)
    if weight is None or bias is None or square.shape != (weight.shape[1], weight.shape[1]):
        return False
    outer = _constant(conv.inputs[2]) if len(conv.inputs) > 2 else None
    merged_bias = square @ bias.astype(np.float64) + (0 if outer is None else outer)
    matmul.replace_input_with(
        1, _initializer(graph, f"{matmul.name}/merged.weight", (weight.astype(np.float64) @ square.T).astype(np.float32))
    )
    add.replace_input_with(1, _initializer(graph, f"{add.name}/merged.bias", merged_bias.astype(np.float32)))
    source = conv.inputs[0]
    assert source is not None
    conv.outputs[0].replace_all_uses_with(source)
    graph.remove(conv, safe=True)
    return True


_LAYOUT = ("Reshape", "Transpose")


def _linear_before(conv: ir.Node) -> tuple[ir.Node, ir.Node] | None:
    """(MatMul, Add) of the linear layer whose tokens the convolution sees as a map."""
    found: list[ir.Node] = []
    value = conv.inputs[0] if _is_pointwise(conv) else None
    for kinds in (_LAYOUT, _LAYOUT, ("Add",), ("MatMul",)):
        node = value.producer() if value is not None and _feeds_one(value) else None
        if node is None or node.op_type not in kinds:
            return None
        found.append(node)
        value = node.inputs[0]
    return found[3], found[2]


def _feeds_one(value: ir.Value) -> bool:
    """Whether one node uses the values; others may ask for the shape, which the merge leaves as it is."""
    return sum(use.node.op_type != "Shape" for use in value.uses()) == 1


def _constant(value: ir.Value | None) -> np.ndarray | None:
    return value.const_value.numpy() if value is not None and value.const_value is not None else None


def _initializer(graph: ir.Graph, name: str, content: np.ndarray) -> ir.Value:
    value = ir.Value(
        name=name, shape=ir.Shape(content.shape), type=ir.TensorType(ir.DataType.FLOAT), const_value=ir.tensor(content, name=name)
    )
    graph.register_initializer(value)
    return value


def _node(like: ir.Node, kind: str, inputs: list[ir.Value], suffix: str, spatial: ir.Shape | None = None) -> ir.Node:
    """A node of ``like``'s module; its output has ``like``'s channels, on ``spatial``'s grid if given."""
    attributes = like.attributes if kind == like.op_type else {}
    node = ir.node(kind, inputs, attributes=attributes, name=f"{like.name}/{suffix}")
    node.metadata_props[MODULE_PATH] = like.metadata_props.get(MODULE_PATH, "")
    output, shape = node.outputs[0], like.outputs[0].shape
    output.name, output.type = f"{like.name}/{suffix}/out", like.outputs[0].type
    output.shape = ir.Shape([shape[0], shape[1], *spatial[2:]]) if shape is not None and spatial is not None else shape
    return node
