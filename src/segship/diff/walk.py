"""Walk an engine's tensors in the graph's order: which step goes wrong by itself, which only carries an error on."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import msgspec
import numpy as np
import onnx_ir as ir

from segship.core.backend import Array, Feeds
from segship.core.graph import Graph
from segship.core.precision import Precision
from segship.core.progress import Progress, silent
from segship.diff.inner import Inner
from segship.diff.measure import LIMITS, ROUNDING, SHARE_LIMIT, relative_error
from segship.diff.segment import Segment, forced_feeds, forced_graph, nodes_between, run_graph, values_of
from segship.graph.observe import shapes_graph, tensors_graph
from segship.graph.passes.edit import module_path

MEMORY = 1 << 28
"""Bytes of the engine's tensors that are held at a time; the graph's take as much again, twice."""

_AMPLIFIED = 3
"""So many times what noise of the size of rounding makes of a step, the step's own error is taken to be rounding, too: beside the
inputs weights and results are rounded."""

State = Literal["agrees", "carries", "amplifies", "diverges"]


class Step(msgspec.Struct, frozen=True):
    """One compared tensor.

    ``error``: relative error beside the same tensor of the graph from the same image; ``own``: beside what the graph gives
    for the engine's own inputs of this step. ``state``: ``carries`` is an error that an earlier step made, ``amplifies`` one
    that the step makes of rounding, as any engine of this precision would.
    """

    path: str
    op: str
    tensor: str
    shape: tuple[int, ...]
    error: float
    own: float
    state: State


@dataclass
class Walk:
    """What a walk has found: all steps up to the end of the part where the first one diverged; ``first`` is that step."""

    steps: list[Step] = field(default_factory=list)
    first: Segment | None = None
    hidden: int = 0
    """Tensors that the engine holds in a form of its own, which cannot be compared."""


def walk(graph: Graph, inner: Inner, feeds: Feeds, *, precision: Precision, progress: Progress = silent) -> Walk:
    """Compare part by part, each as large as the memory allows, and stop behind the first part with a step that makes a larger
    error than ``precision`` explains."""
    result = Walk()
    shapes = _shapes(graph, list(inner.held), feeds) if inner.held else {}
    results = {value.name for value in graph.ir.graph.outputs}
    shapes = {name: shape for name, shape in shapes.items() if len(shape) > 1 or name in results}  # no arithmetic of sizes
    done = 0
    for names in _parts(shapes):
        progress("compare tensors", done, len(shapes))
        _compare(result, graph, inner, feeds, names, shapes, precision)
        done += len(names)
        if result.first is not None:
            break
    progress("compare tensors", done, len(shapes))
    return result


def _shapes(graph: Graph, names: Sequence[str], feeds: Feeds) -> dict[str, tuple[int, ...]]:
    found = run_graph(shapes_graph(graph, names), feeds)
    return {name: tuple(int(side) for side in found[f"{index}/shape"]) for index, name in enumerate(names)}


def _parts(shapes: Mapping[str, tuple[int, ...]]) -> Iterator[list[str]]:
    part: list[str] = []
    held = 0
    for name, shape in shapes.items():
        size = 4 * math.prod(shape)
        if part and held + size > MEMORY:
            yield part
            part, held = [], 0
        part.append(name)
        held += size
    if part:
        yield part


def _compare(
    result: Walk,
    graph: Graph,
    inner: Inner,
    feeds: Feeds,
    names: Sequence[str],
    shapes: Mapping[str, tuple[int, ...]],
    precision: Precision,
) -> None:
    limit = LIMITS[precision]
    values = values_of(graph.ir.graph)
    reads = {name: nodes_between(graph.ir.graph, values[name], shapes)[1] for name in names}
    needed = list(dict.fromkeys([*(each for name in names for each in reads[name]), *names]))
    engine = {name: np.ascontiguousarray(array) for name, array in inner.run(feeds, needed).items()}
    foreign = {name for name in needed if engine[name].shape != shapes[name]}
    usable = {name: array for name, array in engine.items() if name not in foreign}
    reads = {name: nodes_between(graph.ir.graph, values[name], usable)[1] for name in names}
    computed = [name for name in names if values[name].producer() is not None]
    clean = run_graph(tensors_graph(graph, computed), feeds)
    forced = {name: usable[name] for name in dict.fromkeys(each for name in names for each in reads[name])}
    ranked = {name: source for name in computed if (source := _ranked(values[name])) is not None and source not in _inputs(graph)}
    asked = list(dict.fromkeys([*computed, *ranked.values()]))
    own = run_graph(tensors_graph(forced_graph(graph, forced), asked), forced_feeds(feeds, forced))
    for name in names:
        expected = own[name] if name in own else feeds[name]
        if name in foreign and inner.held[name].scale is not None:
            result.hidden += 1  # blocks of a transposed convolution, say
            continue
        if name in ranked and engine[name].shape == expected.shape:
            step = _rank_step(graph, name, engine[name], expected, forced.get(ranked[name], own[ranked[name]]), limit)
        else:
            step = _step(graph, name, engine[name], clean.get(name, expected), expected, limit)
        if step.state == "diverges" and result.first is None:
            segment = Segment(graph, name, feeds, {each: forced[each] for each in reads[name]}, engine[name], expected)
            if step.own <= _AMPLIFIED * segment.amplified(ROUNDING[precision]):
                step = msgspec.structs.replace(step, state="amplifies")
            else:
                result.first = segment
        result.steps.append(step)


def _inputs(graph: Graph) -> set[str]:
    """Names of what is fed."""
    return {spec.name for spec in graph.signature.inputs}


def _ranked(value: ir.Value) -> str | None:
    """The value that a TopK ranks, where ``value`` is its places; None for other values."""
    node = value.producer()
    if node is None or node.op_type != "TopK" or value is not node.outputs[1] or node.inputs[0] is None:
        return None
    return node.inputs[0].name


def _rank_step(graph: Graph, name: str, found: Array, expected: Array, ranked: Array, limit: float) -> Step:
    """Places are compared by what lies there: at a tie (scores of minus infinity, say) any of them is right."""
    node = values_of(graph.ir.graph)[name].producer()
    assert node is not None
    axis = node.attributes.get_int("axis", -1)
    there = [np.take_along_axis(ranked, np.clip(places, 0, ranked.shape[axis] - 1), axis) for places in (found, expected)]
    return _step(graph, name, there[0], there[1], there[1], limit)


def _step(graph: Graph, name: str, found: Array, clean: Array, expected: Array, limit: float) -> Step:
    node = values_of(graph.ir.graph)[name].producer()
    limit = limit if np.issubdtype(expected.dtype, np.floating) else SHARE_LIMIT
    if node is not None and node.op_type == "TopK" and not node.attributes.get_int("sorted", 1):  # in any order, then
        found, clean, expected = (np.sort(array) for array in (found, clean, expected))
    error, own = relative_error(found, clean), relative_error(found, expected)
    state: State = "diverges" if not own <= limit else "agrees" if error <= limit else "carries"
    path, op = (module_path(node), node.op_type) if node is not None else ("", "input")
    return Step(path or name, op, name, found.shape, error, own, state)
