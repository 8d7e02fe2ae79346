"""A graph that tells about its tensors instead of giving its result: extremes and a sample of each, computed inside.

The tensors themselves never leave the runtime, so observing a network of 1024 x 2048 pixels needs hardly more memory than
running it, however many tensors are observed.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import msgspec
import numpy as np
import onnx_ir as ir

from segship.core.errors import BuildFailed
from segship.core.graph import Graph
from segship.core.spec import TensorSpec
from segship.graph.passes.edit import constant, drop_unused_constants, new_node

SAMPLES = 1 << 15
"""About how many values of each tensor and image are sampled; extremes are exact, whatever is sampled."""


def tensors_graph(graph: Graph, tensors: Sequence[str]) -> Graph:
    """A graph whose outputs are the tensors themselves, under their own names; only what they need is computed."""
    model = graph.ir.clone()
    return with_outputs(graph, model, _values(model, tensors))


def shapes_graph(graph: Graph, tensors: Sequence[str]) -> Graph:
    """A graph whose outputs ``0/shape``, ``1/shape``, ... are the tensors' shapes (int64), in the order of ``tensors``."""
    model = graph.ir.clone()
    outputs = []
    for index, value in enumerate(_values(model, tensors)):
        outputs.append(_append(model, "Shape", [value], f"{index}/shape", ir.DataType.INT64))
    return with_outputs(graph, model, outputs)


def observing_graph(graph: Graph, tensors: Sequence[str], shapes: Mapping[str, tuple[int, ...]]) -> Graph:
    """A graph with three outputs for each tensor: ``I/min`` and ``I/max`` (float32, shape ()), ``I/sample`` (float32, 1-D).

    ``shapes`` are those of a typical image; the sample then has about ``SAMPLES`` values, evenly spaced in memory.
    """
    model = graph.ir.clone()
    outputs = []
    for index, value in enumerate(_values(model, tensors)):
        outputs.append(_append(model, "ReduceMin", [value], f"{index}/min", ir.DataType.FLOAT, keepdims=0))
        outputs.append(_append(model, "ReduceMax", [value], f"{index}/max", ir.DataType.FLOAT, keepdims=0))
        outputs.append(_sample(model, value, index, sampling_step(shapes[value.name or ""])))
    return with_outputs(graph, model, outputs)


def channel_maxima_graph(graph: Graph, axes: Mapping[str, int]) -> Graph:
    """A graph whose outputs are each tensor's largest absolute value in every channel, shape (channels,), by the tensor's name.

    ``axes``: the axis of the channels of each tensor.
    """
    model = graph.ir.clone()
    outputs = []
    for value in _values(model, list(axes)):
        name, rank = value.name or "", len(value.shape or ())
        sizes = _append(model, "Abs", [value], f"{name}/sizes", value.dtype)
        outputs.append(reduced_to_channels(model, "ReduceMax", sizes, rank, axes[name], f"{name}{CHANNELS}"))
    return with_outputs(graph, model, outputs)


CHANNELS = "/channels"
"""What is appended to a tensor's name to name its numbers per channel."""


def reduced_to_channels(model: ir.Model, kind: str, value: ir.Value, rank: int, axis: int, name: str) -> ir.Value:
    """``value``, of ``rank`` axes, reduced by ``kind`` over all but ``axis``: shape (channels,); appended as ``name``."""
    others = np.array([index for index in range(rank) if index != axis % rank], np.int64)
    return _append(model, kind, [value, constant(model.graph, f"{name}/axes", others)], name, value.dtype, keepdims=0)


def sampling_step(shape: tuple[int, ...]) -> int:
    """Every how many values one is sampled: no divisor of any side, so that no channel, row or column is passed over."""
    size = math.prod(shape)
    step = max(1, size // SAMPLES)
    while math.gcd(step, size) != 1:
        step += 1
    return step


def _sample(model: ir.Model, value: ir.Value, index: int, step: int) -> ir.Value:
    numbers = {"all": [-1], "first": [0], "last": [np.iinfo(np.int64).max], "axis": [0], "step": [step]}
    named = {
        name: constant(model.graph, f"{index}/sample/{name}", np.array(number, np.int64)) for name, number in numbers.items()
    }
    flat = _append(model, "Reshape", [value, named["all"]], f"{index}/flat", ir.DataType.FLOAT)
    return _append(
        model, "Slice", [flat, *(named[name] for name in ("first", "last", "axis", "step"))], f"{index}/sample", flat.dtype
    )


def _values(model: ir.Model, tensors: Sequence[str]) -> list[ir.Value]:
    known = {value.name: value for value in [*model.graph.inputs, *(value for node in model.graph for value in node.outputs)]}
    missing = [name for name in tensors if name not in known]
    if missing:
        raise BuildFailed(f"the graph has no tensor {missing[0]}: ask for tensors of this graph")
    return [known[name] for name in tensors]


def _append(
    model: ir.Model, kind: str, inputs: list[ir.Value], name: str, dtype: ir.DataType | None, **attributes: int
) -> ir.Value:
    node = new_node(kind, inputs, name, dtype=dtype, attributes=attributes)
    node.outputs[0].name = name
    model.graph.append(node)
    return node.outputs[0]


def with_outputs(graph: Graph, model: ir.Model, outputs: list[ir.Value]) -> Graph:
    """Only the nodes and inputs that ``outputs`` need; what the network itself would give is not computed."""
    model.graph.outputs.clear()
    model.graph.outputs.extend(outputs)
    for node in reversed(list(model.graph)):
        if all(not value.uses() and not value.is_graph_output() for value in node.outputs):
            model.graph.remove(node, safe=True)
    drop_unused_constants(model.graph)
    for value in [value for value in model.graph.inputs if not value.uses()]:
        model.graph.inputs.remove(value)
    names = {value.name for value in model.graph.inputs}
    signature = msgspec.structs.replace(
        graph.signature,
        inputs=tuple(spec for spec in graph.signature.inputs if spec.name in names),
        outputs=tuple(TensorSpec(value.name or "", _dtype_of(value), ()) for value in outputs),
    )
    return Graph(model, graph.spec, signature)


def _dtype_of(value: ir.Value) -> str:
    return value.dtype.numpy().name if value.dtype is not None else "float32"
