"""An INT8 ConvTranspose whose blocks do not overlap, as 1x1 Conv and a shuffle: for backends without a kernel for it.

With a stride as long as the kernel, every input pixel makes a block of its own, so the operator is a matrix product (a
1x1 Conv with one output channel for each place in the block) and a move of its results to their places. The move runs on
8-bit values, channels last: there it copies whole pixels, and runtimes that keep integer convolutions channels last
cancel the Transposes at both ends. (DepthToSpace would say the same, but the Transposes around it stay.)
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from segship.graph.passes.edit import constant, constant_of, module_path, new_node

_TO_LAST, _TO_FIRST = (0, 2, 3, 1), (0, 3, 1, 2)
_INTERLEAVE = (0, 1, 3, 2, 4, 5)  # (n, h, w, i, j, c) to (n, h, i, w, j, c)


def makes_blocks(node: ir.Node) -> bool:
    """Whether ``node`` is a 2-D ConvTranspose whose output blocks neither overlap nor leave gaps."""
    if node.op_type != "ConvTranspose":
        return False
    shape = node.inputs[1].shape if node.inputs[1] is not None else None
    kernel = tuple(shape)[2:] if shape is not None else ()
    plain = {"pads": 0, "output_padding": 0, "dilations": 1}
    return (
        len(kernel) == 2
        and kernel == tuple(node.attributes.get_ints("strides", ()))
        and node.attributes.get_int("group", 1) == 1
        and "output_shape" not in node.attributes
        and node.attributes.get_string("auto_pad", "NOTSET") == "NOTSET"
        and all(set(node.attributes.get_ints(name, ())) <= {neutral} for name, neutral in plain.items())
    )


def upsample_as_conv(graph: ir.Graph, node: ir.Node) -> None:
    """Replace an INT8 ConvTranspose for which :func:`makes_blocks` holds; what it computes stays the same."""
    dequantise = node.inputs[1].producer() if node.inputs[1] is not None else None
    assert dequantise is not None
    content = constant_of(dequantise.inputs[0])
    assert content is not None
    _, channels, height, width = content.shape
    conv = _pointwise(graph, node, dequantise, content)
    graph.insert_before(node, conv)
    node.outputs[0].replace_all_uses_with(conv.outputs[0])
    conv.outputs[0].name, node.outputs[0].name = node.outputs[0].name, None
    graph.remove(node, safe=True)
    if not dequantise.outputs[0].uses():
        graph.remove(dequantise, safe=True)
    unmoved = _until_move(conv.outputs[0])
    for value in unmoved:
        value.shape = None  # what was stated is the moved one's
    _Shuffle(graph, conv, (height, width), channels).insert(unmoved[-1])


def _pointwise(graph: ir.Graph, node: ir.Node, dequantise: ir.Node, content: NDArray[np.int8]) -> ir.Node:
    """The 1x1 Conv: output channels in the order (place in the block, channel); it takes over the node's name."""
    places = content.shape[2] * content.shape[3]
    kernel = content.transpose(2, 3, 1, 0).reshape(-1, content.shape[0], 1, 1)
    parts = [kernel, *(np.tile(_content(value), places) for value in dequantise.inputs[1:])]
    inputs = [constant(graph, f"{node.name}/blocks/{index}", part) for index, part in enumerate(parts)]
    name = f"{node.name}/blocks/dequantised"
    kind = dequantise.outputs[0].dtype
    weight = new_node("DequantizeLinear", inputs, name, dtype=kind, shape=kernel.shape, attributes={"axis": 0})
    graph.insert_before(node, weight)
    operands = [node.inputs[0], weight.outputs[0]]
    if len(node.inputs) > 2 and node.inputs[2] is not None:
        operands.append(constant(graph, f"{node.name}/blocks/bias", np.tile(_content(node.inputs[2]), places)))
    return new_node("Conv", operands, node.name or "", dtype=node.outputs[0].dtype, path=module_path(node))


def _content(value: ir.Value | None) -> NDArray[np.generic]:
    content = constant_of(value)
    assert content is not None
    return content


def _until_move(value: ir.Value) -> list[ir.Value]:
    """From ``value`` to its 8-bit form (behind its ReLU, if any), as long as all readers take it from there."""
    readers = value.consumers()
    if [reader.op_type for reader in readers] == ["QuantizeLinear"]:
        return [value, readers[0].outputs[0]]
    if [reader.op_type for reader in readers] == ["Relu"]:
        return [value, *_until_move(readers[0].outputs[0])]
    return [value]


class _Shuffle:
    """The nodes that move (n, block * c, h, w) to (n, c, h * block, w * block)."""

    def __init__(self, graph: ir.Graph, conv: ir.Node, block: tuple[int, int], channels: int) -> None:
        self.graph, self.conv, self.block, self.channels = graph, conv, block, channels
        self.nodes: list[ir.Node] = []

    def insert(self, value: ir.Value) -> None:
        """Put the shuffle between ``value`` and its readers."""
        uses, producer = value.uses(), value.producer()
        assert producer is not None
        x = self._append("Transpose", [value], "to_last", value.dtype, perm=_TO_LAST)
        x = self._append("Reshape", [x, self._ints("blocks", [0, 0, 0, *self.block, self.channels])], "split", value.dtype)
        x = self._append("Transpose", [x], "interleave", value.dtype, perm=_INTERLEAVE)
        x = self._append("Reshape", [x, self._output_sides(value)], "join", value.dtype)
        x = self._append("Transpose", [x], "to_first", value.dtype, perm=_TO_FIRST)
        for node, index in uses:
            node.replace_input_with(index, x)
        self.graph.insert_after(producer, self.nodes)

    def _output_sides(self, value: ir.Value) -> ir.Value:
        """The shape (n, h * block, w * block, c), computed from that of ``value``: sizes may be free."""
        batch = self._append("Shape", [value], "batch", ir.DataType.INT64, start=0, end=1)
        sides = self._append("Shape", [value], "sides", ir.DataType.INT64, start=2, end=4)
        larger = self._append("Mul", [sides, self._ints("block", list(self.block))], "larger", ir.DataType.INT64)
        return self._append(
            "Concat", [batch, larger, self._ints("channels", [self.channels])], "shape", ir.DataType.INT64, axis=0
        )

    def _ints(self, name: str, content: list[int]) -> ir.Value:
        return constant(self.graph, f"{self.conv.name}/shuffle/{name}", np.array(content, np.int64))

    def _append(
        self, kind: str, inputs: list[ir.Value], name: str, dtype: ir.DataType | None, **attributes: int | tuple[int, ...]
    ) -> ir.Value:
        node = new_node(
            kind, inputs, f"{self.conv.name}/shuffle/{name}", dtype=dtype, attributes=attributes, path=module_path(self.conv)
        )
        self.nodes.append(node)
        return node.outputs[0]
