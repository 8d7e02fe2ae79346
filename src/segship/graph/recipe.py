"""The order of passes: ``simplify < fuse < precision < legalise``, and no other.

A fusion after the precision pass silently does nothing (a float32 island between casts matches no pattern any more), so
an earlier stage after a later one is refused. A fusion that must have happened and did not is an error, too.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple, get_args

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from segship.core.backend import Traits
from segship.core.errors import BuildFailed, FusionMissing
from segship.core.graph import Graph, Stage
from segship.core.precision import PrecisionPlan
from segship.graph.histogram import Range
from segship.graph.passes.cancel_transposes import cancel_transposes
from segship.graph.passes.channels_last_tokens import channels_last_tokens
from segship.graph.passes.correct_bias import correct_bias
from segship.graph.passes.hoist_pointwise import hoist_pointwise
from segship.graph.passes.insert_qdq import insert_qdq
from segship.graph.passes.join_narrow import join_narrow
from segship.graph.passes.legalise import legalise
from segship.graph.passes.smooth import smooth
from segship.graph.passes.to_half import to_half

STAGES: tuple[Stage, ...] = get_args(Stage)
"""All stages, earliest first."""


class Step(NamedTuple):
    """One pass: its name and stage as it writes them into the history, and the function."""

    name: str
    stage: Stage
    apply: Callable[[Graph], Graph]


OPTIMISE = (
    Step("hoist_pointwise", "fuse", hoist_pointwise),
    Step("channels_last_tokens", "fuse", channels_last_tokens),
    Step("join_narrow", "fuse", join_narrow),
    Step("cancel_transposes", "fuse", cancel_transposes),
)
"""Passes that every graph goes through, whatever precision and backend come later."""


def optimise(graph: Graph) -> Graph:
    """The exported graph, simplified and fused; every operator that must be one node is one.

    Raises :class:`FusionMissing` when normalisation, GELU or BatchNorm is still spelled out in single steps.
    """
    optimised = apply_steps(graph, OPTIMISE)
    check_fused(optimised)
    return optimised


def smoothed(graph: Graph, maxima: Mapping[str, NDArray[np.float64]]) -> Graph:
    """An optimised float32 graph with outliers of channels moved into weights: to be calibrated before INT8 is written."""
    return apply_steps(graph, (Step("smooth", "precision", lambda each: smooth(each, maxima)),))


def written(
    graph: Graph,
    plan: PrecisionPlan,
    ranges: Mapping[str, Range] | None = None,
    errors: Mapping[str, NDArray[np.float64]] | None = None,
    *,
    weight_bits: int = 8,
) -> Graph:
    """An optimised float32 graph with ``plan`` written into it; ``ranges`` are needed where it asks for INT8.

    ``errors``: mean errors of INT8 layers by node name, to be taken out of their biases; None leaves biases alone.
    ``weight_bits``: of INT8 weights, see :class:`segship.core.backend.Traits`.
    INT8 comes first: it is made from float32 weights and ranges, and half precision follows it (docs/decisions/0008).
    """
    steps = []
    if "int8" in plan.precisions:
        steps.append(Step("insert_qdq", "precision", lambda each: insert_qdq(each, ranges or {}, plan, weight_bits=weight_bits)))
    if "int8" in plan.precisions and errors is not None:
        steps.append(Step("correct_bias", "precision", lambda each: correct_bias(each, errors)))
    if plan.precisions & {"fp16", "bf16"}:
        steps.append(Step("to_half", "precision", lambda each: to_half(each, plan)))
    return apply_steps(graph, steps)


def legalised(graph: Graph, traits: Traits) -> Graph:
    """An optimised graph in the form that a backend of ``traits`` runs it best, in the precision that it has."""
    return apply_steps(graph, (Step("legalise", "legalise", lambda each: legalise(each, traits)),))


def apply_steps(graph: Graph, steps: Sequence[Step]) -> Graph:
    """Apply passes one after another.

    Raises :class:`BuildFailed` for a pass of an earlier stage than one that the graph has been through, and for a pass
    that does not record itself truthfully.
    """
    for step in steps:
        _check_order(graph, step)
        after = step.apply(graph)
        record = after.history[-1] if len(after.history) == len(graph.history) + 1 else None
        if record is None or (record.name, record.stage) != (step.name, step.stage):
            raise BuildFailed(f"the pass {step.name} did not record itself as {step.name} of the stage {step.stage}")
        graph = after
    return graph


def _check_order(graph: Graph, step: Step) -> None:
    for record in graph.history:
        if STAGES.index(record.stage) > STAGES.index(step.stage):
            raise BuildFailed(
                f"the pass {step.name} belongs to the stage {step.stage}, but {record.name} of the later stage {record.stage} "
                f"has run: apply passes in the order {' < '.join(STAGES)}"
            )


def check_fused(graph: Graph) -> None:
    """Raise :class:`FusionMissing` where an operator of opset 20 is still spelled out in older ones."""
    for name, is_spelled_out in _UNFUSED.items():
        left = [node.name or node.op_type for node in graph.ir.graph if is_spelled_out(node)]
        if left:
            raise FusionMissing(
                f"{len(left)} {name} of {graph.spec.variant} did not become one node each (the first near {left[0]}): "
                "backends would run them slowly, and in half precision wrongly"
            )


def _is_layer_norm_root(node: ir.Node) -> bool:
    """``Sqrt(ReduceMean(x * x) + eps)``: the denominator of a LayerNormalization in single steps."""
    add = node.inputs[0].producer() if node.op_type == "Sqrt" and node.inputs[0] is not None else None
    mean = add.inputs[0].producer() if add is not None and add.op_type == "Add" and add.inputs[0] is not None else None
    return mean is not None and mean.op_type == "ReduceMean"


def _is_erf(node: ir.Node) -> bool:
    return node.op_type == "Erf"


def _is_batch_norm_behind_conv(node: ir.Node) -> bool:
    producer = node.inputs[0].producer() if node.op_type == "BatchNormalization" and node.inputs[0] is not None else None
    return producer is not None and producer.op_type in ("Conv", "ConvTranspose")


_UNFUSED: dict[str, Callable[[ir.Node], bool]] = {
    "LayerNormalization": _is_layer_norm_root,
    "Gelu": _is_erf,
    "Conv with BatchNorm": _is_batch_norm_behind_conv,
}
