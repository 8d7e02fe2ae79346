"""Write half precision into the graph: FP16 or BF16 by plan, with a Cast where the type changes and nowhere else.

Inputs and outputs of the graph keep their types, integer arithmetic is not touched, and weights of half layers are stored
in half precision. After ``insert_qdq`` in the same stage: INT8 weights are made from float32 ones, and DequantizeLinear
gives half precision by the type of its scale, without a Cast (docs/decisions/0008).
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import onnx_ir as ir

from segship.core.errors import BuildFailed
from segship.core.graph import Graph, PassRecord
from segship.core.precision import PrecisionPlan
from segship.graph.passes.edit import constant, constant_of, drop_unused_constants, module_path, new_node
from segship.graph.passes.half_constants import clamps, in_half, name_of
from segship.graph.passes.node_types import QDQ, NodeTypes
from segship.graph.passes.type_slots import FLOAT, HALF_TYPES, opset_for

NAME = "to_half"

_LOWEST_SCALE = 2.0**-24
"""Smallest float16 above zero: a scale of zero is no scale."""


def to_half(graph: Graph, plan: PrecisionPlan) -> Graph:
    """The float32 graph with every node that ``plan`` gives to FP16 or BF16 in that precision.

    Where ``plan`` says INT8, its ``rest`` decides. Float32 by rule stay coordinates, ranked scores, operators without the
    type, and nodes with constants that it cannot hold; the record counts them, with reasons. BF16 raises the opset to 22
    where no operator changes its meaning by that. Raises :class:`BuildFailed` for a graph that is half precision already.
    """
    model = graph.ir.clone()
    if not plan.precisions & set(HALF_TYPES):
        return graph.after(model, PassRecord(NAME, "precision", {}, changed=False), plan=plan)
    _check_float(model.graph)
    opset = model.graph.opset_imports[""]
    model.graph.opset_imports[""] = opset_for(model.graph, plan.precisions, opset)
    types = NodeTypes(model.graph, plan, model.graph.opset_imports[""])
    writer = _Writer(model.graph, types)
    writer.write()
    drop_unused_constants(model.graph)
    return graph.after(model, PassRecord(NAME, "precision", writer.record(), changed=writer.changed), plan=plan)


def _check_float(graph: ir.Graph) -> None:
    for node in graph:
        for value in node.outputs:
            if value.dtype in HALF_TYPES.values():
                raise BuildFailed(f"{value.name} is {value.dtype} already: write a precision plan into a float32 graph")
            if value.dtype is None and value.uses():
                raise BuildFailed(f"the type of {value.name} is not known: half precision needs the type of every tensor")


@dataclass
class _Writer:
    """Writes ``types`` into ``graph``, node by node in order."""

    graph: ir.Graph
    types: NodeTypes
    _casts: dict[tuple[ir.Value, ir.DataType], ir.Value] = field(default_factory=dict)
    _scales: dict[ir.Value, ir.DataType] = field(default_factory=dict)
    _clamped: dict[str, None] = field(default_factory=dict)
    _half_nodes: int = 0

    def write(self) -> None:
        """Inputs, constants, attributes and result types of all nodes, then the graph's own outputs."""
        for node in self.graph:
            if node.op_type in QDQ and self.types.of(node) != FLOAT and node.inputs[1] is not None:
                self._scales[node.inputs[1]] = self.types.of(node)
        for node in list(self.graph):
            for index, value in enumerate(node.inputs):
                if value is not None and value in self.types.floats:
                    self._write_input(node, index, value)
            self._write_outputs(node)
        for index, value in enumerate(self.graph.outputs):
            if value in self.types.floats and value.dtype != FLOAT:
                self.graph.outputs[index] = self._under_its_name(value)

    @property
    def changed(self) -> bool:
        """Whether any node gives half precision now."""
        return bool(self._half_nodes)

    def record(self) -> dict[str, str]:
        """Options of the pass record."""
        record = {"half_nodes": str(self._half_nodes), "casts": str(len(self._casts))}
        reasons = sorted({reason for _, reason in self.types.kept})
        record |= {"kept_in_float32": "; ".join(self._kept_because(reason) for reason in reasons)} if reasons else {}
        return record | ({"clamped": ", ".join(self._clamped)} if self._clamped else {})

    def _kept_because(self, reason: str) -> str:
        kept = [f"{count} {kind}" for (kind, each), count in sorted(self.types.kept.items()) if each == reason]
        return f"{', '.join(kept)}: {reason}"

    def _write_input(self, node: ir.Node, index: int, value: ir.Value) -> None:
        wanted = self.types.of_input(node, index)
        if wanted is None:
            return
        if value.const_value is None:
            if value.dtype != wanted:
                node.replace_input_with(index, self._cast(value, wanted))
        elif node.op_type in QDQ and value in self._scales:
            self._write_scale(node, value, wanted)
        elif wanted != FLOAT:
            node.replace_input_with(index, self._constant(node, value, wanted))

    def _cast(self, value: ir.Value, kind: ir.DataType) -> ir.Value:
        """``value`` in another type, by one Cast for all that need it."""
        if (value, kind) in self._casts:
            return self._casts[value, kind]
        producer, name = value.producer(), f"{value.name}/to_{name_of(kind)}"
        path = module_path(producer) if producer is not None else ""
        node = new_node("Cast", [value], name, dtype=kind, shape=value.shape, attributes={"to": kind.value}, path=path)
        if producer is None:
            self.graph.insert_before(self.graph[0], node)
        else:
            self.graph.insert_after(producer, node)
        self._casts[value, kind] = node.outputs[0]
        return node.outputs[0]

    def _constant(self, node: ir.Node, value: ir.Value, kind: ir.DataType) -> ir.Value:
        """The constant in half precision; one with a sentinel in the form that the operator can bear."""
        content = constant_of(value)
        assert content is not None
        name = f"{value.name}/{name_of(kind)}"
        if clamps(content, kind):
            name = f"{name}/{node.op_type}"
            self._clamped[f"{value.name} of {node.name}"] = None
        return constant(self.graph, name, in_half(content, kind, node.op_type))

    def _write_scale(self, node: ir.Node, value: ir.Value, kind: ir.DataType) -> None:
        """Both sides of a pair get the scale that half precision can hold, a float32 side too; weights are fitted to it."""
        half, scale = self._scales[value], constant_of(value)
        assert scale is not None
        rounded = np.maximum(scale, _LOWEST_SCALE).astype(half.numpy())
        node.replace_input_with(
            1, constant(self.graph, f"{value.name}/{name_of(half)}/{name_of(kind)}", rounded.astype(kind.numpy()))
        )
        content = constant_of(node.inputs[0])
        if content is not None and node.inputs[0] is not None:
            axis = node.attributes.get_int("axis", 1)
            shape = [-1 if index == axis and scale.ndim else 1 for index in range(content.ndim)]
            fitted = np.rint(content * (scale / rounded.astype(np.float32)).reshape(shape)).clip(-127, 127).astype(content.dtype)
            if not np.array_equal(fitted, content):
                node.replace_input_with(0, constant(self.graph, f"{node.inputs[0].name}/{name_of(half)}", fitted))

    def _write_outputs(self, node: ir.Node) -> None:
        kinds = {
            value: self.types.of_output(node, index) for index, value in enumerate(node.outputs) if value in self.types.floats
        }
        for value, kind in kinds.items():
            value.type = ir.TensorType(kind)
        half = next((kind for kind in kinds.values() if kind != FLOAT), None)
        if half is None:
            return
        self._half_nodes += 1
        if node.op_type == "Cast":
            node.attributes["to"] = ir.AttrInt64("to", half.value)
        elif node.op_type == "ConstantOfShape":
            given = node.attributes.get("value")
            content = given.as_tensor().numpy() if given is not None else np.zeros(1, np.float32)
            node.attributes["value"] = ir.AttrTensor("value", ir.tensor(in_half(content, half, node.op_type)))

    def _under_its_name(self, value: ir.Value) -> ir.Value:
        """The float32 form of an output of the graph; the name goes over to it."""
        given, name = self._cast(value, FLOAT), value.name
        value.name = f"{name}/{name_of(value.dtype)}" if value.dtype is not None else None
        given.name = name
        return given
