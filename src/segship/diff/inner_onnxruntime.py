"""Inner tensors of an ONNX Runtime engine: its file is the optimised graph, which runs as it is, so nothing is fused anew."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import onnx_ir as ir

from segship.backends.onnxruntime import MODEL
from segship.core.backend import Array, Feeds
from segship.core.engine import Engine
from segship.core.graph import Graph
from segship.diff.inner import Held
from segship.diff.segment import run_graph, values_of
from segship.graph.observe import tensors_graph
from segship.graph.passes.edit import constant_of

_OUTPUT_SCALE = {"QLinearConv": 6, "QLinearMatMul": 6, "QLinearConcat": 0, "QLinearAdd": 6}
"""Which input of an integer kernel is its output's scale; the zero point follows."""

_TO_LAST, _TO_FIRST = {(0, 2, 1), (0, 2, 3, 1)}, {(0, 2, 1), (0, 3, 1, 2)}
_KEEP_LAYOUT = {
    "QLinearAdd",
    "QLinearConcat",
    "NhwcMaxPool",
    "QuantizeLinear",
    "DequantizeLinear",
    "Add",
    "Mul",
    "Concat",
    "Relu",
    "Clip",
}
"""Kernels that the runtime moves its transposes across: what reads channels last gives channels last."""


class OnnxRuntimeInner:
    """See :class:`segship.diff.inner.Inner`."""

    def __init__(self, optimised: Graph, held: dict[str, Held]) -> None:
        self._optimised, self.held = optimised, held

    def run(self, feeds: Feeds, names: Sequence[str]) -> dict[str, Array]:
        """The values ``names``."""
        cut = tensors_graph(self._optimised, list(dict.fromkeys(self.held[name].tensor for name in names)))
        found = run_graph(cut, feeds)
        return {name: self.held[name].read(found[self.held[name].tensor]) for name in names}

    def effect(self, feeds: Feeds) -> float:
        """None: the optimised graph is run as it is, without any further optimisation."""
        return 0.0


def open_inner(engine: Engine, graph: Graph) -> OnnxRuntimeInner:
    """The tensors of the optimised graph that go by a name of ``graph``, or that an integer kernel of its nodes gives."""
    model = ir.load(engine.network / MODEL)
    manifest = engine.manifest
    known = values_of(graph.ir.graph)
    origins = {node.name: node for node in graph.ir.graph}
    last = _channels_last(model.graph, known)
    held = {name: found for node in model.graph for name, found in _held_by(node, known, origins, last)}
    order = {name: index for index, name in enumerate(known)}
    return OnnxRuntimeInner(
        Graph(model, manifest.spec, manifest.signature), dict(sorted(held.items(), key=lambda item: order[item[0]]))
    )


def _channels_last(graph: ir.Graph, known: Mapping[str, ir.Value]) -> set[ir.Value]:
    """Values that the engine holds as (n, h, w, c) where the graph has (n, c, h, w).

    Their shape does not tell: 64 channels of 64 x 64 look alike. Transposes of the graph itself (``known``) move its own values.
    """
    found: set[ir.Value] = set()
    for node in graph:
        if node.op_type == "Transpose":
            turned = tuple(node.attributes.get_ints("perm", ()) or ())
            inserted = node.outputs[0].name not in known
            last = turned not in _TO_FIRST if node.inputs[0] in found else inserted and turned in _TO_LAST
        else:
            moved = node.op_type in _KEEP_LAYOUT and any(value in found for value in node.inputs)
            integer = node.op_type.startswith("QLinear")  # the float kernel ReorderOutput stands for the graph's own Transpose
            last = moved or (integer and bool(node.attributes.get_int("channels_last", 0)))
        if last:
            found.update(node.outputs)
    return found


def _held_by(
    node: ir.Node, known: Mapping[str, ir.Value], origins: Mapping[str | None, ir.Node], last: set[ir.Value]
) -> Iterator[tuple[str, Held]]:
    """The graph's values that a node of the engine gives, by name; ``last``: those that it holds channels last."""
    for value in node.outputs:
        name = value.name or ""
        if node.op_type == "QuantizeLinear" and name.endswith("/quantised/out") and (base := name[:-14]) in known:
            yield base, _quantised(value, node, 1, last)
        elif name in known and (name not in _quantised_names(node)):
            yield name, Held(name, channels_last=value in last)
    if node.op_type in _OUTPUT_SCALE and (result := _result_of(node, origins)) is not None:
        node.outputs[0].dtype = ir.DataType.UINT8 if node.outputs[0].dtype is None else node.outputs[0].dtype
        yield result.name or "", _quantised(node.outputs[0], node, _OUTPUT_SCALE[node.op_type], last)


def _quantised_names(node: ir.Node) -> set[str]:
    """Values whose quantised form is what their readers take: that form is the value to walk by."""
    return {
        value.name or ""
        for value in node.outputs
        if any(
            use.node.op_type == "QuantizeLinear" and use.node.outputs[0].name == f"{value.name}/quantised/out"
            for use in value.uses()
        )
    }


def _quantised(value: ir.Value, node: ir.Node, index: int, last: set[ir.Value]) -> Held:
    scale, zero_point = constant_of(node.inputs[index]), constant_of(node.inputs[index + 1])
    return Held(
        value.name or "",
        float(scale) if scale is not None else None,
        int(zero_point) if zero_point is not None else 0,
        channels_last=value in last,
    )


def _result_of(node: ir.Node, origins: Mapping[str | None, ir.Node]) -> ir.Value | None:
    """What an integer kernel gives: the result of the graph's node of its name, behind the ReLU that became a part of it."""
    origin = origins.get((node.name or "").partition("_token_")[0])
    if origin is None:
        return None
    readers = origin.outputs[0].consumers()
    alone = len(readers) == 1 and readers[0].op_type == "Relu" and not origin.outputs[0].is_graph_output()
    return readers[0].outputs[0] if alone else origin.outputs[0]
