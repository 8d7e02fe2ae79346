"""GroupNormalization from the means of channels, for runtimes that keep maps channels last.

Exported, it is ``Reshape`` to (n, groups, rest), ``InstanceNormalization``, ``Reshape`` back, ``Mul``, ``Add``. The first
Reshape needs the channels first in memory, so where they come last the whole map is copied twice: on OpenVINO that was more
than half of an INT8 Panoptic FCN (docs/decisions/0015). A group's mean and variance follow from those of its channels, in
any order: the variance is the mean of the channels' variances plus the variance of their means.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from segship.graph.passes.edit import constant, constant_of, module_path, new_node

_KINDS = ("Reshape", "InstanceNormalization", "Reshape", "Mul", "Add")


class _Norm(NamedTuple):
    """A group normalisation that was found: what it reads, its nodes in order, and ``scale`` and ``shift`` (channels,)."""

    source: ir.Value
    nodes: tuple[ir.Node, ...]
    groups: int
    scale: NDArray[np.generic]
    shift: NDArray[np.generic]


def group_norm_by_channels(graph: ir.Graph) -> int:
    """Write every group normalisation of maps in ``graph`` as means over their sides; gives their number."""
    found = [norm for node in graph if node.op_type == "InstanceNormalization" and (norm := _matched(node)) is not None]
    for norm in found:
        result = _written(graph, norm)
        result.shape = norm.nodes[-1].outputs[0].shape
        norm.nodes[-1].outputs[0].replace_all_uses_with(result, replace_graph_outputs=True)
        shape = norm.nodes[2].inputs[1]
        graph.remove(norm.nodes, safe=True)
        measured = shape.producer() if shape is not None and not shape.uses() else None
        if measured is not None:
            graph.remove(measured, safe=True)
    return len(found)


def _matched(inner: ir.Node) -> _Norm | None:
    """The group normalisation around an InstanceNormalization; None where it is another thing."""
    split = inner.inputs[0].producer() if inner.inputs[0] is not None else None
    nodes = (split, inner, *_only_readers(inner, 3)) if split is not None and len(split.outputs[0].uses()) == 1 else ()
    if tuple(node.op_type for node in nodes) != _KINDS:
        return None
    source, target = nodes[0].inputs[0], constant_of(nodes[0].inputs[1])
    scale, shift = constant_of(nodes[3].inputs[1]), constant_of(nodes[4].inputs[1])
    if source is None or source.shape is None or target is None or scale is None or shift is None:
        return None
    one, zero = constant_of(inner.inputs[1]), constant_of(inner.inputs[2])
    per_channel = scale.shape == shift.shape == (source.shape[1], 1, 1)
    if len(source.shape) != 4 or len(target) != 3 or not per_channel or np.any(one != 1) or np.any(zero != 0):
        return None
    return _Norm(source, nodes, int(target[1]), scale.reshape(-1), shift.reshape(-1))


def _only_readers(node: ir.Node, steps: int) -> list[ir.Node]:
    """The next ``steps`` nodes behind ``node``; fewer where a result has several readers, of which one may need its shape."""
    found: list[ir.Node] = []
    while len(found) < steps and len(readers := node.outputs[0].consumers()) == 1:
        node = readers[0]
        found.append(node)
    return found


def _written(graph: ir.Graph, norm: _Norm) -> ir.Value:
    """The nodes in front of the old ones; gives their result."""
    source, inner = norm.source, norm.nodes[1]
    path = module_path(inner)

    def add(kind: str, first: ir.Value, second: ir.Value | None, name: str) -> ir.Value:
        node = new_node(kind, [first, *([second] if second else [])], f"{inner.name}/{name}", dtype=source.dtype, path=path)
        graph.insert_before(norm.nodes[0], node)
        return node.outputs[0]

    def number(name: str, content: NDArray[np.generic]) -> ir.Value:
        return constant(graph, f"{inner.name}/{name}", content)

    kind = norm.scale.dtype
    sides, members = number("sides", np.array([2, 3], np.int64)), number("members", np.array([2], np.int64))
    by_group = number("by_group", np.array([0, norm.groups, -1], np.int64))
    by_channel = number("by_channel", np.array([0, len(norm.scale), 1, 1], np.int64))
    scale, shift = (number(*each) for each in (("scale", _grouped(norm.scale, norm)), ("shift", _grouped(norm.shift, norm))))
    epsilon = number("epsilon", np.array(inner.attributes.get_float("epsilon", 1e-5), kind))
    mean = add("ReduceMean", source, sides, "mean")
    apart = add("Sub", source, mean, "apart")
    variance = add("ReduceMean", add("Mul", apart, apart, "apart_2"), sides, "variance")
    means = add("Reshape", mean, by_group, "means")
    middle = add("ReduceMean", means, members, "group_mean")
    off = add("Sub", means, middle, "off")
    both = add("Add", add("Reshape", variance, by_group, "variances"), add("Mul", off, off, "off_2"), "both")
    guarded = add("Add", add("ReduceMean", both, members, "group_variance"), epsilon, "guarded")
    factor = add("Div", scale, add("Sqrt", guarded, None, "deviation"), "factor")
    offset = add("Sub", shift, add("Mul", middle, factor, "moved"), "offset")
    scaled = add("Mul", source, add("Reshape", factor, by_channel, "factors"), "scaled")
    return add("Add", scaled, add("Reshape", offset, by_channel, "offsets"), "result")


def _grouped(per_channel: NDArray[np.generic], norm: _Norm) -> NDArray[np.generic]:
    return per_channel.reshape(1, norm.groups, -1)
