"""Which layers shall run in INT8, decided before the graph is touched, each exception with its reason."""

from __future__ import annotations

from collections.abc import Sequence

from segship.core.backend import Traits
from segship.core.graph import WEIGHTED_OPS, Graph
from segship.core.precision import Keep, PrecisionPlan, check_covered
from segship.graph.passes.edit import place, reaches
from segship.graph.passes.legalise import runs_int8


def check_plan(graph: Graph, plan: PrecisionPlan) -> None:
    """Raise :class:`segship.core.errors.BadArgument` when an exception of ``plan`` covers no node of ``graph``."""
    check_covered(plan, ((place(node), node.op_type) for node in graph.ir.graph))


def int8_plan(graph: Graph, traits: Traits, keep: Sequence[Keep] = ()) -> PrecisionPlan:
    """INT8 everywhere but where it makes no sense.

    Float stay the last weighted layers before the result, and operators without an INT8 kernel in the backend. ``keep``
    adds exceptions, for instance for layers found to be sensitive; they win over these.
    """
    last = [node for node in graph.ir.graph if node.op_type in WEIGHTED_OPS and not reaches(node, WEIGHTED_OPS)]
    exceptions = [Keep(place(node), "fp32", "gives the logits: in 8 bits, classes would tie") for node in last]
    missing = [node for node in graph.ir.graph if node.op_type in WEIGHTED_OPS and not runs_int8(node, traits)]
    exceptions += [Keep(place(node), "fp32", f"the backend has no INT8 kernel for {node.op_type}") for node in missing]
    return PrecisionPlan("int8", (*exceptions, *keep))
