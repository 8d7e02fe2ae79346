"""The first divergence between the PyTorch modules and the exported graph.

Modules and graph values are matched by what they hold: a graph value within a module's scope, of its output's shape, that
has its values. Only evenly spaced samples of all tensors are held; the tensors themselves, of one step.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from segship.core.backend import Array, Feeds
from segship.core.graph import Graph
from segship.core.spec import Frame
from segship.diff.explain import explain
from segship.diff.kinds import Finding
from segship.diff.measure import LIMITS, relative_error
from segship.diff.modules import ModuleOutput, module_outputs
from segship.diff.outputs import output_error
from segship.diff.segment import Segment, nodes_between, run_graph, values_of
from segship.graph.observe import observing_graph, sampling_step, shapes_graph, tensors_graph
from segship.graph.passes.edit import module_path
from segship.pipeline import ModelPredictor

_RESULT_LIMIT = 1e-3
"""As :data:`segship.pipeline.EXPORT_LIMIT`: rounding reaches 1e-5, the mildest structural error seen 4e-3."""

_OBJECT_LIMIT = 0.02


@dataclass(frozen=True)
class _Sampled:
    shape: tuple[int, ...]
    values: Array


def diverging_graph(model: ModelPredictor, graph: Graph, feeds: Feeds, frame: Frame) -> Finding | None:
    """None where the raw outputs agree; else the first module whose output no value of its scope holds.

    ``graph`` is the export, before any pass, with the raw outputs.
    """
    expected, found = model.session.run(feeds), run_graph(graph, feeds)
    error = output_error(model.spec, expected, found, frame)
    if error <= (_RESULT_LIMIT if model.spec.task == "semantic" else _OBJECT_LIMIT):
        return None
    samples = _graph_samples(graph, feeds)
    right, outputs = _matched(model, samples, feeds)
    for index, output in enumerate(outputs):
        candidates = [name for name in _in_scope(graph, output.path) if samples[name].shape == output.tensor.shape]
        if candidates and not any(name in right for name in candidates):
            return _finding(model, graph, feeds, right, output, _folded_into(graph, outputs[index:]), candidates[-1])
    name = model.spec.outputs[0].name
    return Finding(
        between=("PyTorch", "graph"),
        path=name,
        op="output",
        kind="unexplained",
        evidence="every module agrees, the result not",
        error=error,
    )


def _graph_samples(graph: Graph, feeds: Feeds) -> dict[str, _Sampled]:
    names = [
        value.name
        for node in graph.ir.graph
        for value in node.outputs
        if value.name and value.dtype is not None and value.dtype.name == "FLOAT"
    ]
    found = run_graph(shapes_graph(graph, names), feeds)
    shapes = {name: tuple(int(side) for side in found[f"{index}/shape"]) for index, name in enumerate(names)}
    filled = [name for name in names if 0 not in shapes[name]]
    samples = run_graph(observing_graph(graph, filled, shapes), feeds)
    return {name: _Sampled(shapes[name], samples[f"{index}/sample"]) for index, name in enumerate(filled)}


def _folded_into(graph: Graph, outputs: Sequence[ModuleOutput]) -> ModuleOutput:
    """The last of the modules that the first one's nodes stand for: a BatchNorm behind a convolution has none of its own."""
    last = outputs[0]
    for output in outputs[1:]:
        if output.tensor.shape != last.tensor.shape or _in_scope(graph, output.path):
            break
        last = output
    return last


def _matched(model: ModelPredictor, samples: Mapping[str, _Sampled], feeds: Feeds) -> tuple[set[str], list[ModuleOutput]]:
    """The graph values that hold some module's output; and all floating-point module outputs (samples of them), in order."""
    outputs: list[ModuleOutput] = []
    right: set[str] = set()

    def visit(output: ModuleOutput) -> None:
        if output.tensor.dtype != np.float32 or not output.tensor.size:
            return
        shape = output.tensor.shape
        sample = np.ascontiguousarray(output.tensor).reshape(-1)[:: sampling_step(shape)]
        right.update(
            name
            for name, each in samples.items()
            if each.shape == shape and relative_error(each.values, sample) <= LIMITS["fp32"]
        )
        light = np.broadcast_to(np.float32(0), shape)  # the shape alone
        outputs.append(ModuleOutput(output.path, output.kind, output.call, output.index, light))

    module_outputs(model, feeds, visit)
    return right, outputs


def _in_scope(graph: Graph, path: str) -> list[str]:
    """Values that nodes of a module, or of modules inside, give, in graph order."""
    return [
        value.name
        for node in graph.ir.graph
        for value in node.outputs
        if value.name and _inside(module_path(node), path) and value.dtype is not None and value.dtype.name == "FLOAT"
    ]


def _inside(path: str, scope: str) -> bool:
    return not scope or path == scope or path.startswith(f"{scope}.")


def _finding(
    model: ModelPredictor,
    graph: Graph,
    feeds: Feeds,
    right: set[str],
    output: ModuleOutput,
    truth: ModuleOutput,
    name: str,
) -> Finding:
    """Explain why the graph's value ``name`` is not what ``truth`` gave, from the last right values before it."""
    kept: list[Array] = []

    def visit(each: ModuleOutput) -> None:
        if (each.path, each.call, each.index) == (truth.path, truth.call, truth.index):
            kept.append(each.tensor)

    module_outputs(model, feeds, visit)
    value: ir.Value = values_of(graph.ir.graph)[name]
    _, read = nodes_between(graph.ir.graph, value, right)
    arrays = run_graph(tensors_graph(graph, [*read, name]), feeds)
    segment = Segment(graph, name, feeds, {each: arrays[each] for each in read}, arrays[name], kept[0], candidate="graph")
    cause = explain(segment)
    node = value.producer()
    return Finding(
        between=("PyTorch", "graph"),
        path=cause.path or output.path,
        op=cause.op or (node.op_type if node is not None else output.kind),
        kind=cause.kind,
        evidence=cause.evidence,
        error=relative_error(segment.found, segment.expected),
    )
