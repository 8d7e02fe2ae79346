"""Linear layers on points, written as 1x1 convolutions of (n, c, points), become products of rows (n, points, c).

PointRend's head concatenates the coarse logits to every layer's input. As convolutions with channels first, ONNX Runtime moves
the channels of each layer to the end and back in INT8, because they meet again in a Concat: 0.55 of the demo's 6.6 ms
(docs/decisions/0018). As rows they are moved once, when the points are taken, and all layers share it.
"""

from __future__ import annotations

import onnx_ir as ir

from segship.core.graph import Graph, PassRecord
from segship.graph.passes.edit import constant, constant_of, drop_unused_constants, module_path, new_node

NAME = "points_as_rows"

_TURN = (0, 2, 1)


def points_as_rows(graph: Graph) -> Graph:
    """The graph with every such layer as a product; unchanged (and said so in the history) where none matches."""
    model = graph.ir.clone()
    rows = _Rows(model.graph)
    layers = [node for node in list(model.graph) if rows.follow(node)]
    rows.hand_over()
    drop_unused_constants(model.graph)
    return graph.after(model, PassRecord(NAME, "fuse", {"nodes": str(len(layers))}, changed=bool(layers)))


class _Rows:
    """Values (n, c, points) and their twins (n, points, c), made as nodes ask for them."""

    def __init__(self, graph: ir.Graph) -> None:
        self._graph = graph
        self._twins: dict[ir.Value, ir.Value] = {}
        self._computed: list[ir.Value] = []
        """Values that a twin replaces; the others of ``_twins`` are read channels first, too."""

    def follow(self, node: ir.Node) -> bool:
        """Compute the result of ``node`` as rows, too, if it is a layer or lies between layers."""
        if _is_layer(node):
            twin = self._product(node)
        elif _joins(node) and (self._has_twin(node) or any(_is_layer(each) for each in node.outputs[0].consumers())):
            twin = self._insert(node, "Concat", [self._twin(value, node) for value in node.inputs], "rows", axis=2)
        elif node.op_type == "Relu" and self._has_twin(node):
            twin = self._insert(node, "Relu", [self._twin(node.inputs[0], node)], "rows")
        else:
            return False
        self._twins[node.outputs[0]] = twin
        self._computed.append(node.outputs[0])
        return True

    def hand_over(self) -> None:
        """Remove what twins replace; who still reads it gets the twin turned back."""
        for value in reversed(self._computed):
            node = value.producer()
            assert node is not None
            if value.uses() or value.is_graph_output():
                back = self._insert(node, "Transpose", [self._twins[value]], "turned_back", perm=_TURN)
                back.shape, back.name, value.name = value.shape, value.name, back.name
                value.replace_all_uses_with(back, replace_graph_outputs=True)
            self._graph.remove(node, safe=True)

    def _has_twin(self, node: ir.Node) -> bool:
        return any(value in self._computed for value in node.inputs)

    def _twin(self, value: ir.Value | None, reader: ir.Node) -> ir.Value:
        assert value is not None
        if value not in self._twins:
            name = f"{value.name}/rows"
            turn = new_node("Transpose", [value], name, dtype=value.dtype, attributes={"perm": _TURN}, path=module_path(reader))
            turn.outputs[0].shape = _turned(value)
            self._graph.insert_before(reader, turn)
            self._twins[value] = turn.outputs[0]
        return self._twins[value]

    def _product(self, conv: ir.Node) -> ir.Value:
        weight = constant_of(conv.inputs[1])
        assert weight is not None
        matrix = constant(self._graph, f"{conv.inputs[1].name}/matrix", weight[:, :, 0].T)
        product = self._insert(conv, "MatMul", [self._twin(conv.inputs[0], conv), matrix], "rows")
        bias = conv.inputs[2] if len(conv.inputs) > 2 else None
        return product if bias is None else self._insert(conv, "Add", [product, bias], "bias")

    def _insert(self, node: ir.Node, kind: str, inputs: list[ir.Value], suffix: str, **attributes: int | tuple[int, ...]) -> ir.Value:
        output = node.outputs[0]
        new = new_node(
            kind, inputs, f"{node.name}/{suffix}", dtype=output.dtype, attributes=attributes, path=module_path(node)
        )
        new.outputs[0].shape = _turned(output)
        self._graph.insert_before(node, new)
        return new.outputs[0]


def _turned(value: ir.Value) -> ir.Shape | None:
    return ir.Shape([value.shape[axis] for axis in _TURN]) if value.shape is not None else None


def _is_layer(node: ir.Node) -> bool:
    """A convolution of one axis with a kernel of one and constant weights."""
    weight = constant_of(node.inputs[1]) if node.op_type == "Conv" else None
    return (
        weight is not None
        and weight.ndim == 3
        and weight.shape[2] == 1
        and node.attributes.get_int("group", 1) == 1
        and set(node.attributes.get_ints("strides", (1,))) == {1}
        and not any(node.attributes.get_ints("pads", ()))
    )


def _joins(node: ir.Node) -> bool:
    """A Concat of channels."""
    shape = node.outputs[0].shape
    return node.op_type == "Concat" and shape is not None and len(shape) == 3 and node.attributes["axis"].as_int() in (1, -2)
