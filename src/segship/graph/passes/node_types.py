"""The floating-point type of every node, decided before anything is written: by plan, by rule, and by its neighbours.

Three kinds of nodes. Most compute in the type that the plan asks for, or in float32 where a rule says so. Nodes that only
move values have no rounding of their own: they take the type of their neighbours, so that no value changes its type twice
for them. Nodes whose input binds no other type (Shape, ArgMax, Cast) take what comes.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass, field

import onnx_ir as ir

from segship.core.precision import PrecisionPlan
from segship.graph.passes.edit import constant_of, place
from segship.graph.passes.exact_nodes import exact_inputs, exact_nodes
from segship.graph.passes.half_constants import name_of, why_not
from segship.graph.passes.insert_qdq import SAME_VALUES
from segship.graph.passes.type_slots import FLOAT, HALF_TYPES, signature_of, takes

_MOVES = (*SAME_VALUES, "Concat", "Expand", "Gather", "GatherElements", "GatherND", "Identity", "Slice", "Split", "Tile")

QDQ = ("DequantizeLinear", "QuantizeLinear")


@dataclass
class NodeTypes:
    """Types of all nodes of ``graph`` under ``plan``; ``kept`` counts what stayed float32 by rule, by (operator, reason)."""

    graph: ir.Graph
    plan: PrecisionPlan
    opset: int
    kept: Counter[tuple[str, str]] = field(default_factory=Counter)
    _kinds: dict[ir.Node, ir.DataType] = field(default_factory=dict)
    _follows: set[ir.Node] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.floats = {value for value in _values(self.graph) if value.dtype == FLOAT}
        """Values that are float32 before the pass."""
        exact = exact_nodes(self.graph)
        for node in self.graph:
            self._kinds[node] = self._of_plan(node, exact.get(node))
        self._settle()

    def of(self, node: ir.Node) -> ir.DataType:
        """The type that ``node`` computes in, where its operator allows it."""
        return self._kinds.get(node, FLOAT)

    def of_input(self, node: ir.Node, index: int) -> ir.DataType | None:
        """The type of a float32 input after the pass; None where the operator takes any, as it comes."""
        kind, signature = self.of(node), signature_of(node, self.opset)
        if signature is None or index in exact_inputs(node):
            return FLOAT
        formal = signature.input(index)
        if signature.is_free(index):
            return None
        return kind if takes(formal, kind) else FLOAT

    def of_output(self, node: ir.Node, index: int) -> ir.DataType:
        """The type of a float32 output after the pass."""
        kind, signature = self.of(node), signature_of(node, self.opset)
        if signature is None:
            return FLOAT
        formal = signature.output(index)
        bound = node.op_type in ("Cast", "ConstantOfShape") or formal.variable in {each.variable for each in signature.inputs}
        return kind if bound and takes(formal, kind) else FLOAT

    def _of_plan(self, node: ir.Node, exact: str | None) -> ir.DataType:
        kind = HALF_TYPES.get(self.plan.float_precision_of(place(node), node.op_type), FLOAT)
        if node.op_type in QDQ:  # stand between two nodes and belong to neither
            kind = next(half for name, half in HALF_TYPES.items() if name in self.plan.precisions)
        if kind == FLOAT or not any(value in self.floats for value in (*node.inputs, *node.outputs)):
            return FLOAT
        reason = exact or self._why_not(node, kind) or self._why_not_dequantised(node)
        if reason is not None:
            if any(value in self.floats for value in node.outputs):
                self.kept[node.op_type, reason] += 1
            return FLOAT
        by_default = self.plan.exception_of(place(node), node.op_type) is None
        if node.op_type in QDQ or (node.op_type in _MOVES and by_default):
            self._follows.add(node)
        return kind

    def _why_not(self, node: ir.Node, kind: ir.DataType) -> str | None:
        """Why ``node`` cannot compute in ``kind``: its operator has no such type, or one of its constants does not fit."""
        signature = signature_of(node, self.opset)
        if signature is None:
            return "is not described by ONNX"
        formals = [signature.input(index) for index, value in enumerate(node.inputs) if value in self.floats]
        formals += [signature.output(index) for index, value in enumerate(node.outputs) if value in self.floats]
        if not any(takes(formal, kind) for formal in formals):
            return f"has no {name_of(kind)} at opset {self.opset}"
        for index, value in enumerate(node.inputs):
            content = constant_of(value) if value in self.floats else None
            if content is not None and index not in exact_inputs(node) and takes(signature.input(index), kind):
                reason = why_not(content, kind, node.op_type)
                if reason is not None:
                    return reason
        return None

    def _why_not_dequantised(self, node: ir.Node) -> str | None:
        """A scale that does not fit keeps also the reader of what it scales: a Cast between would hide the INT8 from runtimes."""
        sources = [value.producer() for value in node.inputs if value is not None]
        kept = [each for each in sources if each is not None and each.op_type == "DequantizeLinear" and each not in self._follows]
        return "reads INT8 whose scale half precision cannot hold" if kept else None

    def _settle(self) -> None:
        """Give each following node the type of its neighbours.

        It is float32 where float32 comes and is wanted (rounding between would only lose), else the half type around it.
        """
        wanted: dict[ir.Node, frozenset[ir.DataType]] = {}
        for node in reversed(list(self.graph)):
            if node in self._follows:
                wanted[node] = self._wanted(node, wanted)
        offered: dict[ir.Node, frozenset[ir.DataType]] = {}
        for node in self.graph:
            if node in self._follows:
                offered[node] = self._offered(node, offered)
                self._kinds[node] = _between(offered[node], wanted[node], self._kinds[node])

    def _wanted(self, node: ir.Node, known: dict[ir.Node, frozenset[ir.DataType]]) -> frozenset[ir.DataType]:
        """Types that the users of a following node's result want."""
        found: set[ir.DataType] = set()
        for value in node.outputs:
            if value.is_graph_output() and value in self.floats:
                found.add(FLOAT)
            for user, index in value.uses():
                if user in self._follows:
                    found |= known[user]
                elif value in self.floats and (kind := self.of_input(user, index)) is not None:
                    found.add(kind)
        return frozenset(found) if node.op_type != "QuantizeLinear" else frozenset()

    def _offered(self, node: ir.Node, known: dict[ir.Node, frozenset[ir.DataType]]) -> frozenset[ir.DataType]:
        """Types that come to a following node."""
        found: set[ir.DataType] = set()
        for value in node.inputs:
            if value not in self.floats or value is None or value.const_value is not None:
                continue
            producer = value.producer()
            if producer in self._follows and producer is not None:
                found |= known[producer] or {self._kinds[producer]}
            else:
                found.add(self.of_output(producer, value.index() or 0) if producer is not None else FLOAT)
        return frozenset(found)


def _between(offered: Collection[ir.DataType], wanted: Collection[ir.DataType], asked: ir.DataType) -> ir.DataType:
    """The type of a node that takes ``offered`` and whose users want ``wanted``; ``asked`` where neither says anything."""
    if FLOAT in offered and FLOAT in wanted:
        return FLOAT
    halves = [kind for kind in (*offered, *wanted) if kind != FLOAT]
    if halves:
        return asked if asked in halves else halves[0]
    return FLOAT if offered or wanted else asked


def _values(graph: ir.Graph) -> list[ir.Value]:
    computed = [value for node in graph for value in node.outputs]
    return [*graph.inputs, *graph.initializers.values(), *computed]
