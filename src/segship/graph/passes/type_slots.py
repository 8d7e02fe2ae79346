"""Which inputs and outputs of a node may be half precision: read from the operators' own ONNX schemas, not from a list."""

from __future__ import annotations

from functools import cache
from typing import NamedTuple

import onnx.defs
import onnx_ir as ir

from segship.core.precision import Precision

HALF_TYPES: dict[Precision, ir.DataType] = {"fp16": ir.DataType.FLOAT16, "bf16": ir.DataType.BFLOAT16}

FLOAT = ir.DataType.FLOAT

_OPSET = 22
"""The first in which Conv, Einsum, GridSample and pooling take bfloat16."""

_NEW_ATTRIBUTES_ONLY = ("DequantizeLinear", "QuantizeLinear")
"""Have more attributes in opset 21, whose defaults mean what opset 20 means."""

_TENSORS = {FLOAT: "tensor(float)", ir.DataType.FLOAT16: "tensor(float16)", ir.DataType.BFLOAT16: "tensor(bfloat16)"}


class Formal(NamedTuple):
    """A formal input or output: its type variable, or its type where that is fixed, and all types it may have."""

    variable: str
    allowed: frozenset[str]


class Signature(NamedTuple):
    """Formal inputs and outputs of an operator; the last stands for all further ones where ``variadic``."""

    inputs: tuple[Formal, ...]
    outputs: tuple[Formal, ...]

    def input(self, index: int) -> Formal:
        """The formal input at ``index``."""
        return self.inputs[min(index, len(self.inputs) - 1)]

    def output(self, index: int) -> Formal:
        """The formal output at ``index``."""
        return self.outputs[min(index, len(self.outputs) - 1)]

    def is_free(self, index: int) -> bool:
        """Whether the type of the input at ``index`` binds no other: Shape, ArgMax or Cast take any type as it comes."""
        variable = self.input(index).variable
        others = [formal.variable for place, formal in enumerate(self.inputs) if place != index]
        return variable not in _TENSORS.values() and variable not in (*others, *(each.variable for each in self.outputs))


@cache
def _signature(kind: str, domain: str, opset: int) -> Signature | None:
    try:
        schema = onnx.defs.get_schema(kind, opset, domain)
    except onnx.defs.SchemaError:
        return None
    allowed = {each.type_param_str: frozenset(each.allowed_type_strs) for each in schema.type_constraints}
    inputs, outputs = (
        tuple(Formal(each.type_str, allowed.get(each.type_str, frozenset([each.type_str]))) for each in formals)
        for formals in (schema.inputs, schema.outputs)
    )
    return Signature(inputs, outputs)


def signature_of(node: ir.Node, opset: int) -> Signature | None:
    """The schema of a node's operator; None for foreign operators and those with subgraphs, which stay as they are."""
    has_graph = any(each.type in (ir.AttributeType.GRAPH, ir.AttributeType.GRAPHS) for each in node.attributes.values())
    return None if has_graph else _signature(node.op_type, node.domain, opset)


def takes(formal: Formal, kind: ir.DataType) -> bool:
    """Whether an input or output may be of a floating-point type."""
    return _TENSORS[kind] in formal.allowed


def opset_for(graph: ir.Graph, kinds: frozenset[Precision], opset: int) -> int:
    """The opset to write these precisions in: 20 has no bfloat16 convolution, 22 has.

    It is raised only where every operator means the same in both.
    """
    if "bf16" not in kinds or opset >= _OPSET:
        return opset
    return _OPSET if all(_means_the_same(node, opset, _OPSET) for node in graph) else opset


def _means_the_same(node: ir.Node, old: int, new: int) -> bool:
    """Whether the schemas differ in no more than the types they allow."""
    if node.domain or node.op_type in _NEW_ATTRIBUTES_ONLY:
        return True
    before, after = (onnx.defs.get_schema(node.op_type, opset, "") for opset in (old, new))
    return _shape(before) == _shape(after)


def _shape(schema: onnx.defs.OpSchema) -> tuple[object, ...]:
    formals = [[(each.name, each.type_str) for each in side] for side in (schema.inputs, schema.outputs)]
    return formals, sorted(schema.attributes)
