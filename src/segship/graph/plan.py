"""Which layers shall run in INT8 or half precision, decided before the graph is touched, each exception with its reason."""

from __future__ import annotations

import glob
from collections.abc import Iterator, Mapping, Sequence
from typing import Literal

import onnx_ir as ir

from segship.core.backend import Backend, Traits
from segship.core.errors import BadArgument, BuildFailed
from segship.core.graph import WEIGHTED_OPS, Graph
from segship.core.precision import FloatPrecision, Keep, PrecisionPlan, check_covered
from segship.graph.histogram import Range
from segship.graph.inner_sums import SQUARES, inner_sum, tensors_for_half
from segship.graph.passes.channels_last_resize import become_products
from segship.graph.passes.edit import constant_of, place, reaches
from segship.graph.passes.exact_nodes import exact_nodes
from segship.graph.passes.half_constants import largest, name_of, smallest_normal
from segship.graph.passes.insert_qdq import chosen_nodes, output_channel_axis
from segship.graph.passes.legalise import runs_int8
from segship.graph.passes.type_slots import HALF_TYPES

CANDIDATE_OPS = ("NonMaxSuppression", "TopK")
RANKING_OPS = ("ArgMax", *CANDIDATE_OPS)
"""Operators that choose by their input's values; the former from candidates."""

WIDE = 128
"""Of how many channels the scores of classes may be summed up in INT8: the rounding of so many averages out, and quantising takes
a pass over the map that ReLU need not take any more (docs/decisions/0017)."""

HEADROOM = 2.0
"""How much further than on the images observed a tensor may reach on others."""


def check_plan(graph: Graph, plan: PrecisionPlan) -> None:
    """Raise :class:`BadArgument` when an exception of ``plan`` covers nothing in ``graph``, or nothing that INT8 can hold."""
    check_covered(plan, ((place(node), node.op_type) for node in graph.ir.graph))
    layers = [(place(node), node.op_type) for node in chosen_nodes(graph.ir.graph, PrecisionPlan("int8"))]
    for keep in plan.keep:
        if keep.precision == "int8" and not any(keep.covers(*layer) for layer in layers):
            raise BadArgument(
                f"the exception {keep.where!r} of the precision plan asks INT8 of what has no weights to hold in it: "
                f"cover layers of {', '.join(WEIGHTED_OPS)}, or take the exception out"
            )


def check_kernels(graph: Graph, plan: PrecisionPlan, backend: Backend) -> None:
    """Raise :class:`BadArgument` when ``plan`` gives INT8 to a layer that ``backend`` has no INT8 kernel for."""
    missing = [node for node in chosen_nodes(graph.ir.graph, plan) if not runs_int8(node, backend.TRAITS)]
    if missing:
        kinds = " and ".join(dict.fromkeys(node.op_type for node in missing))
        layers = "1 layer (" if len(missing) == 1 else f"{len(missing)} layers (first "
        raise BadArgument(
            f"the precision plan asks INT8 of {layers}{place(missing[0])}), and {backend.NAME} has no INT8 kernel for {kinds}: "
            "keep these layers in float by an exception, or choose another backend"
        )


def int8_plan(graph: Graph, traits: Traits, keep: Sequence[Keep] = (), rest: FloatPrecision = "fp32") -> PrecisionPlan:
    """INT8 everywhere but where it makes no sense; ``rest`` is the precision of all that stays float.

    Float stay the last weighted layers before the result or before a choice (proposals, peaks; such heads are small, and a step
    of 1/255 changes which candidates there are), and operators without an INT8 kernel in the backend. A wide classifier runs in
    INT8 where its scores stay float (:data:`WIDE`). ``keep`` adds exceptions, for instance for layers found to be sensitive;
    they win over these.
    """
    classifier = _wide_classifier(graph, traits)
    last = [node for node in _last_layers(graph) if node is not classifier]
    exceptions = [Keep(place(node), rest, "gives the logits: in 8 bits, classes would tie") for node in last]
    ranked = [
        node
        for node in graph.ir.graph
        if node.op_type in WEIGHTED_OPS and node is not classifier and reaches(node, RANKING_OPS, without=WEIGHTED_OPS)
    ]
    known = {place(node) for node in last}
    others = dict.fromkeys(place(node) for node in ranked if place(node) not in known)
    exceptions += [Keep(where, rest, "its values are ranked: in 8 bits, candidates would tie") for where in others]
    missing = [node for node in graph.ir.graph if node.op_type in WEIGHTED_OPS and not runs_int8(node, traits)]
    exceptions += [Keep(place(node), rest, f"the backend has no INT8 kernel for {node.op_type}") for node in missing]
    return PrecisionPlan("int8", (*exceptions, *keep), None if rest == "fp32" else rest)


def _last_layers(graph: Graph) -> list[ir.Node]:
    return [node for node in graph.ir.graph if node.op_type in WEIGHTED_OPS and not reaches(node, WEIGHTED_OPS)]


def _wide_classifier(graph: Graph, traits: Traits) -> ir.Node | None:
    """The layer that alone gives the result, of many channels, and in float though it runs in INT8.

    Of several last layers (classes, boxes, masks) none is taken: a little less of each decides which objects there are.
    """
    last = _last_layers(graph)
    if len(last) != 1 or reaches(last[0], CANDIDATE_OPS):
        return None
    node = last[0]
    weight = constant_of(node.inputs[1])
    as_product = traits.channels_last_resize and node.name in become_products(graph.ir)
    kind = "MatMul" if as_product else node.op_type
    if weight is None or kind not in traits.float_results:
        return None
    return node if weight.size >= WIDE * weight.shape[output_channel_axis(node, weight)] else None


def half_plan(
    graph: Graph, ranges: Mapping[str, Range], precision: Literal["fp16", "bf16"] = "fp16", keep: Sequence[Keep] = ()
) -> PrecisionPlan:
    """Half precision everywhere but at layers whose numbers it cannot hold.

    ``ranges``: extremes (method ``minmax``) of :func:`segship.graph.inner_sums.tensors_for_half` on real images. A layer stays
    float32 when what it reads, gives, or sums inside comes within ``HEADROOM`` of the type's end, or when all that it gives is
    subnormal. ``keep`` adds exceptions, which win over these. Raises :class:`BuildFailed` when a range is missing.
    """
    missing = [name for name in tensors_for_half(graph) if name not in ranges]
    if missing:
        raise BuildFailed(f"{len(missing)} tensors have no observed range (the first: {missing[0]}): observe this graph again")
    exact, kind = exact_nodes(graph.ir.graph), HALF_TYPES[precision]
    found: dict[str, tuple[float, str]] = {}
    for node in graph.ir.graph:
        for badness, reason in _misfits(node, ranges, kind) if node not in exact else ():
            found[place(node)] = max(found.get(place(node), (0.0, "")), (badness, reason))
    return PrecisionPlan(precision, (*(Keep(glob.escape(where), "fp32", reason) for where, (_, reason) in found.items()), *keep))


def _misfits(node: ir.Node, ranges: Mapping[str, Range], kind: ir.DataType) -> Iterator[tuple[float, str]]:
    """What of ``node`` is too large or too small for ``kind``: by how much, and in words."""
    end, begin, name = largest(kind), smallest_normal(kind), name_of(kind)
    inside = inner_sum(node)
    given = [("its result", value.name) for value in node.outputs if value.dtype == ir.DataType.FLOAT]
    read = [("its input", value.name) for value in node.inputs if value is not None and given]
    summed = [("the sum of squares inside" if SQUARES in inside else "the sum inside", inside)] if inside is not None else []
    for what, tensor in (*read, *given, *summed):
        bounds = ranges.get(tensor or "")
        size = max(-bounds.low, bounds.high) if bounds is not None else 0.0
        if size * HEADROOM > end:
            near = "" if size > end else f", with a factor of {HEADROOM:g} for other images"
            yield size / end, f"{what} reaches {size:.2g}{near}, {name} ends at {end:.5g}"
        elif what == "its result" and 0 < size < begin:
            yield begin / size, f"its result is {size:.2g} at most, {name} loses bits below {begin:.2g}"
