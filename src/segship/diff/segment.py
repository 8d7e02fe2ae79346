"""A part of the graph, computed from tensors of the engine: what a step should give *there*, whatever went wrong before."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Literal

import msgspec
import numpy as np
import onnx_ir as ir

from segship.backends.onnxruntime import OnnxRuntimeSession
from segship.core.backend import Array, Feeds
from segship.core.environment import available_threads
from segship.core.graph import WEIGHTED_OPS, Graph
from segship.core.spec import TensorSpec
from segship.diff.measure import relative_error, spread
from segship.graph.observe import tensors_graph
from segship.graph.passes.edit import place

Edit = Callable[[ir.Node], None]

_DRAWS = 4
"""Of noise: where a step has few values, one draw may happen to do little."""


def run_graph(graph: Graph, feeds: Feeds) -> dict[str, Array]:
    """What the graph says, node by node: ONNX Runtime without any optimisation. ``feeds`` may hold more than it takes."""
    session = OnnxRuntimeSession(graph.to_bytes(), graph.signature, available_threads(), optimised=True)
    try:
        return session.run({spec.name: feeds[spec.name] for spec in session.inputs})
    finally:
        session.close()


def forced_graph(graph: Graph, tensors: Mapping[str, Array]) -> Graph:
    """The graph with every reader of these tensors fed from outside, through the input ``NAME@engine``.

    Every value is still computed, from the inputs before it: so a forced tensor can be compared with what its own inputs
    give, without the errors of earlier steps.
    """
    model = graph.ir.clone()
    known = values_of(model.graph)
    inputs = list(graph.signature.inputs)
    for name, array in tensors.items():
        value = known[name]
        fed = ir.Value(name=f"{name}@engine", shape=ir.Shape(array.shape), type=value.type)
        for node, index in value.uses():
            node.replace_input_with(index, fed)
        model.graph.inputs.append(fed)
        inputs.append(TensorSpec(fed.name or "", array.dtype.name, array.shape))
    return Graph(model, graph.spec, msgspec.structs.replace(graph.signature, inputs=tuple(inputs)))


def forced_feeds(feeds: Feeds, tensors: Mapping[str, Array]) -> dict[str, Array]:
    """What :func:`forced_graph` takes."""
    return {**feeds, **{f"{name}@engine": array for name, array in tensors.items()}}


def values_of(graph: ir.Graph) -> dict[str, ir.Value]:
    """Inputs and computed values by name, in graph order."""
    values = [*graph.inputs, *(value for node in graph for value in node.outputs)]
    return {value.name: value for value in values if value.name}


def nodes_between(graph: ir.Graph, value: ir.Value, ends: Iterable[str]) -> tuple[list[ir.Node], list[str]]:
    """The nodes that compute ``value`` from the named values ``ends`` (and from inputs of the graph), first to last; and
    which of the names they read."""
    stop = set(ends)
    nodes: set[ir.Node] = set()
    read: dict[str, None] = {}
    waiting = [value.producer()]
    while waiting:
        node = waiting.pop()
        if node is None or node in nodes:
            continue
        nodes.add(node)
        for each in node.inputs:
            if each is not None and each.name in stop:
                read[each.name] = None
            elif each is not None:
                waiting.append(each.producer())
    return [node for node in graph if node in nodes], list(read)


@dataclass(frozen=True)
class Segment:
    """One step of a walk: the nodes of ``graph`` from the tensors ``inputs`` to the value ``name``.

    ``found`` is what the candidate has there, ``expected`` what it should have. Where the candidate is an engine, the graph
    is right and ``expected`` is what it gives for the engine's own ``inputs``; where the candidate is the graph itself,
    ``expected`` is PyTorch's.
    """

    graph: Graph
    name: str
    feeds: Feeds = field(repr=False)
    inputs: Mapping[str, Array] = field(repr=False)
    found: Array = field(repr=False)
    expected: Array = field(repr=False)
    candidate: Literal["engine", "graph"] = "engine"

    @property
    def other(self) -> Array:
        """What a changed graph would have to give, if that change were the error: what the graph does not say now."""
        return self.found if self.candidate == "engine" else self.expected

    @cached_property
    def value(self) -> ir.Value:
        """The value in the graph."""
        return values_of(self.graph.ir.graph)[self.name]

    @cached_property
    def nodes(self) -> list[ir.Node]:
        """The nodes of the step, first to last."""
        return nodes_between(self.graph.ir.graph, self.value, self.inputs)[0]

    @property
    def weighted(self) -> list[ir.Node]:
        """The nodes with weights among them."""
        return [node for node in self.nodes if node.op_type in WEIGHTED_OPS]

    @property
    def place(self) -> tuple[str, str]:
        """Module path and operator to name the step by: its last node with weights, which a precision plan speaks of, or
        its last node."""
        node = next(reversed(self.weighted or self.nodes), None)
        return (place(node), node.op_type) if node is not None else (self.name, "input")

    def run(self, edits: Mapping[str, Edit] | None = None, inputs: Mapping[str, Array] | None = None) -> Array:
        """What the step would give with nodes edited (by name), or from other inputs."""
        used = {**self.inputs, **(inputs or {})}
        forced = forced_graph(self.graph, used)
        for node in forced.ir.graph:
            if edits and (edit := edits.get(node.name or "")) is not None:
                edit(node)
        return run_graph(tensors_graph(forced, [self.name]), forced_feeds(self.feeds, used))[self.name]

    def amplified(self, rounding: float) -> float:
        """Relative error (root mean square of a few draws) that the step makes of noise on its inputs, ``rounding`` of their
        standard deviations: large where it is ill-conditioned, as a norm over two nearly equal values is.

        A draw that gives no finite values (the root of a number near zero) says nothing, and 0 is all that it counts.
        """
        errors = [relative_error(self.run(inputs=_noisy(self.inputs, rounding, seed)), self.expected) for seed in range(_DRAWS)]
        return float(np.sqrt(np.mean(np.square([error if np.isfinite(error) else 0.0 for error in errors]))))

    def inner(self) -> dict[str, Array]:
        """Every value that is computed on the way, by name."""
        names = [value.name for node in self.nodes for value in node.outputs if value.name]
        forced = tensors_graph(forced_graph(self.graph, self.inputs), names)
        return run_graph(forced, forced_feeds(self.feeds, self.inputs))


def _noisy(inputs: Mapping[str, Array], rounding: float, seed: int) -> dict[str, Array]:
    random = np.random.default_rng(seed)
    return {
        name: array + (rounding * spread(array) * random.standard_normal(array.shape)).astype(array.dtype)
        for name, array in inputs.items()
        if np.issubdtype(array.dtype, np.floating)
    }
