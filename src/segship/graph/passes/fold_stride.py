"""An INT8 convolution with a stride over few channels, as one without a stride over blocks of pixels.

Integer convolutions that lie channels last gather their input pixel by pixel; for an image's three channels and 7 x 7 places
that is 49 copies of 3 bytes for each result, and takes longer than the products. Each block of stride x stride pixels
becomes one pixel of all its channels (7 x 7 places with stride 2 are 4 x 4 of 12 channels; what the kernel lacks there
is zero): the same integers are summed (docs/decisions/0015).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from segship.graph.passes.edit import constant, constant_of, insert_before, sides_of

_FEW = 4
"""Channels whose copy costs as much as its call."""


class _Fold(NamedTuple):
    """One axis: ``stride``; ``blocks`` of the input; places that the kernel lacks ``before`` and ``after``; new ``pads``."""

    stride: int
    blocks: int
    before: int
    after: int
    pads: tuple[int, int]


def fold_stride(graph: ir.Graph) -> int:
    """Replace every such convolution; gives their number."""
    found = [(node, folds) for node in graph if (folds := _folds(node)) is not None]
    for conv, (y, x) in found:
        _replace(graph, conv, y, x)
    return len(found)


def _folds(node: ir.Node) -> tuple[_Fold, _Fold] | None:
    weight, image = _integers(node.inputs[1]) if node.op_type == "Conv" else None, _integers(node.inputs[0])
    content, sides = constant_of(weight), sides_of(image)
    if content is None or sides is None or content.ndim != 4 or content.shape[1] > _FEW or constant_of(image) is not None:
        return None
    plain = node.attributes.get_int("group", 1) == 1 and node.attributes.get_string("auto_pad", "NOTSET") == "NOTSET"
    if not plain or set(node.attributes.get_ints("dilations", (1,))) != {1}:
        return None
    strides, pads = node.attributes.get_ints("strides", (1, 1)), node.attributes.get_ints("pads", (0, 0, 0, 0))
    y, x = (_fold(sides[axis], content.shape[2 + axis], strides[axis], pads[axis], pads[2 + axis]) for axis in (0, 1))
    return None if y is None or x is None else (y, x)


def _integers(value: ir.Value | None) -> ir.Value | None:
    """What ``value`` is the float form of, if it is that."""
    up = value.producer() if value is not None else None
    return up.inputs[0] if up is not None and up.op_type == "DequantizeLinear" else None


def _fold(side: int, kernel: int, stride: int, begin: int, end: int) -> _Fold | None:
    if stride < 2 or side % stride:
        return None
    results = (side + begin + end - kernel) // stride + 1
    before = -begin % stride
    after = -(before + kernel) % stride
    first = (begin + before) // stride
    last = results - 1 + (before + kernel + after) // stride - side // stride - first
    return _Fold(stride, side // stride, before, after, (first, last)) if last >= 0 else None


def _replace(graph: ir.Graph, conv: ir.Node, y: _Fold, x: _Fold) -> None:
    image, weight = (value.producer() if value is not None else None for value in conv.inputs[:2])
    assert image is not None
    assert weight is not None
    content = constant_of(weight.inputs[0])
    assert content is not None
    blocks = _in_blocks(graph, conv, image.inputs[0], content.shape[1], y, x)
    kernel = constant(graph, f"{conv.name}/blocks/weight", _kernel(content, y, x))
    for index, (name, source, up) in enumerate((("image", blocks, image), ("kernel", kernel, weight))):
        attributes = {key: each.value for key, each in up.attributes.items()}
        kind = up.outputs[0].dtype
        value = insert_before(graph, conv, "DequantizeLinear", [source, *up.inputs[1:]], f"blocks/{name}", kind, **attributes)
        conv.replace_input_with(index, value)
    conv.attributes["strides"] = ir.AttrInt64s("strides", (1, 1))
    conv.attributes["pads"] = ir.AttrInt64s("pads", (y.pads[0], x.pads[0], y.pads[1], x.pads[1]))
    conv.attributes.pop("kernel_shape", None)
    graph.remove([up for up in (image, weight) if not up.outputs[0].uses()], safe=True)


def _in_blocks(graph: ir.Graph, conv: ir.Node, image: ir.Value | None, channels: int, y: _Fold, x: _Fold) -> ir.Value:
    """(n, c, h, w) to (n, x's stride * c * y's stride, h / stride, w / stride); moves whole rows, then single bytes."""
    assert image is not None
    kind, rows = image.dtype, channels * y.stride

    def step(op: str, value: ir.Value, name: str, *shape: int, perm: tuple[int, ...] = ()) -> ir.Value:
        target = [constant(graph, f"{conv.name}/{name}/shape", np.array(shape, np.int64))] if shape else []
        return insert_before(graph, conv, op, [value, *target], f"blocks/{name}", kind, **({"perm": perm} if perm else {}))

    value = step("Reshape", image, "split", 0, channels, y.blocks, y.stride, x.blocks * x.stride)
    value = step("Transpose", value, "rows", perm=(0, 2, 1, 3, 4))
    value = step("Reshape", value, "joined_rows", 0, y.blocks, rows, x.blocks * x.stride)
    value = step("Transpose", value, "last", perm=(0, 1, 3, 2))
    value = step("Reshape", value, "joined", 0, y.blocks, x.blocks, x.stride * rows)
    return step("Transpose", value, "first", perm=(0, 3, 1, 2))


def _kernel(content: NDArray[np.generic], y: _Fold, x: _Fold) -> NDArray[np.generic]:
    """(out, c, kh, kw) to (out, x's stride * c * y's stride, blocks, blocks), in the order of :func:`_in_blocks`."""
    wide = np.pad(content, ((0, 0), (0, 0), (y.before, y.after), (x.before, x.after)))
    out, channels, height, width = wide.shape
    split = wide.reshape(out, channels, height // y.stride, y.stride, width // x.stride, x.stride)
    return split.transpose(0, 5, 1, 3, 2, 4).reshape(out, -1, height // y.stride, width // x.stride)
