"""Adapt a graph to what one backend does well, known only by its traits: the last pass before the build."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from segship.core.backend import Traits
from segship.core.errors import BuildFailed
from segship.core.graph import WEIGHTED_OPS, Graph, PassRecord
from segship.graph.passes.channels_last_resize import channels_last_resize
from segship.graph.passes.edit import constant, constant_of, drop_unused_constants, new_node
from segship.graph.passes.fold_stride import fold_stride
from segship.graph.passes.group_norm import group_norm_by_channels
from segship.graph.passes.insert_qdq import SAME_VALUES
from segship.graph.passes.integer_bias import integer_biases
from segship.graph.passes.integer_maps import measure_integers, products_of_integers, repeat_integers
from segship.graph.passes.joined_sides import join_sides_channels_last, sample_from_planes
from segship.graph.passes.upsample_as_conv import makes_blocks, upsample_as_conv

NAME = "legalise"

_SIGNED_LIMIT = 127


def legalise(graph: Graph, traits: Traits) -> Graph:
    """The graph as the backend of ``traits`` runs it best, with the same meaning.

    Raises :class:`BuildFailed` when the graph asks INT8 of an operator that the backend has no INT8 kernel for: that is
    the plan's to decide (:func:`segship.graph.plan.int8_plan`), not a thing to undo silently.
    """
    _check_kernels(graph, traits)
    model = graph.ir.clone()
    done = {
        # first: a convolution that it makes a product needs no pair on its result
        "resized_channels_last": channels_last_resize(model.graph) if traits.channels_last_resize else 0,
        "pairs_dropped": _drop_useless_pairs(model.graph, traits),
        "made_symmetric": _make_symmetric(model.graph) if traits.activations == "symmetric" else 0,
        "upsampled_by_conv": _upsample_by_conv(model.graph, traits),
        "norms_by_channels": group_norm_by_channels(model.graph) if traits.channels_last else 0,
        "sides_joined_last": join_sides_channels_last(model.graph) if traits.channels_last else 0,
        "sampled_from_planes": sample_from_planes(model.graph) if traits.channels_last else 0,
        "repeated_integers": repeat_integers(model.graph) if traits.integers_channels_last else 0,
        "products_of_integers": products_of_integers(model.graph) if traits.integers_channels_last else 0,
        "biases_in_integers": integer_biases(model.graph) if traits.integer_bias else 0,
        "strides_folded": fold_stride(model.graph) if traits.integers_channels_last else 0,
        "measured_integers": measure_integers(model.graph) if traits.integers_channels_last else 0,
        "argmax_as_topk": _argmax_as_topk(model.graph) if traits.argmax == "TopK" else 0,
    }
    drop_unused_constants(model.graph)
    options = {name: str(count) for name, count in done.items()}
    return graph.after(model, PassRecord(NAME, "legalise", options, changed=any(done.values())))


def runs_int8(node: ir.Node, traits: Traits) -> bool:
    """Whether a backend of these traits can run the weighted node in INT8, itself or in a form that ``legalise`` gives it."""
    replaceable = "Conv" in traits.int8_ops and makes_blocks(node)
    return "int8" in traits.precisions and (node.op_type in traits.int8_ops or replaceable)


def _check_kernels(graph: Graph, traits: Traits) -> None:
    for node in graph.ir.graph:
        if _is_int8(node) and not runs_int8(node, traits):
            raise BuildFailed(
                f"{node.name} shall run in INT8, but the backend has no INT8 kernel for {node.op_type}: "
                f"add an exception for op:{node.op_type} to the precision plan"
            )


def _is_int8(node: ir.Node) -> bool:
    """A weighted node whose weight is INT8 behind a DequantizeLinear."""
    if node.op_type not in WEIGHTED_OPS or node.inputs[1] is None:
        return False
    producer = node.inputs[1].producer()
    return producer is not None and producer.op_type == "DequantizeLinear"


def _pairs(graph: ir.Graph) -> list[tuple[ir.Node, ir.Node]]:
    """(QuantizeLinear, DequantizeLinear) of each activation."""
    found = []
    for down in graph:
        readers = down.outputs[0].consumers() if down.op_type == "QuantizeLinear" else ()
        if [reader.op_type for reader in readers] == ["DequantizeLinear"]:
            found.append((down, readers[0]))
    return found


def _drop_useless_pairs(graph: ir.Graph, traits: Traits) -> int:
    """Remove pairs that no integer kernel reads or writes: they cost time and exactness. Gives their number."""
    dropped = 0
    while useless := [pair for pair in _pairs(graph) if not _is_useful(pair, traits)]:
        for down, up in useless:
            up.outputs[0].replace_all_uses_with(_in_type_of(graph, down, up))
            graph.remove([up, down], safe=True)
        dropped += len(useless)
    return dropped


def _in_type_of(graph: ir.Graph, down: ir.Node, up: ir.Node) -> ir.Value:
    """What ``down`` quantises, in the floating-point type that ``up`` gives: a pair may also stand between two types."""
    source, kind = down.inputs[0], up.outputs[0].dtype
    assert source is not None
    if source.dtype == kind or kind is None:
        return source
    cast = new_node("Cast", [source], f"{up.name}/type", dtype=kind, shape=source.shape, attributes={"to": kind.value})
    graph.insert_before(down, cast)
    return cast.outputs[0]


def _is_useful(pair: tuple[ir.Node, ir.Node], traits: Traits) -> bool:
    """Read by an INT8 node or by a Concat that is quantised itself; or written by a Conv that needs it for its kernel."""
    if any(_reads_int8(use.node, traits) for use in pair[1].outputs[0].uses()):
        return True
    return traits.quantised_conv_output and _comes_from_int8_conv(pair[0].inputs[0])


def _reads_int8(node: ir.Node, traits: Traits) -> bool:
    if _is_int8(node):
        return True
    readers = [use.node for use in node.outputs[0].uses()]
    if node.op_type == "Concat":
        return "Concat" in traits.int8_ops and any(reader.op_type == "QuantizeLinear" for reader in readers)
    return node.op_type in SAME_VALUES and any(_reads_int8(reader, traits) for reader in readers)


def _comes_from_int8_conv(value: ir.Value | None) -> bool:
    producer = value.producer() if value is not None else None
    if producer is not None and producer.op_type == "Relu" and producer.inputs[0] is not None:
        producer = producer.inputs[0].producer()
    return producer is not None and producer.op_type in ("Conv", "ConvTranspose") and _is_int8(producer)


def _make_symmetric(graph: ir.Graph) -> int:
    """Turn uint8 with a zero point into int8 without one, over the larger side of the range; gives the number of pairs."""
    pairs = _pairs(graph)
    for down, up in pairs:
        scale, zero_point = constant_of(down.inputs[1]), constant_of(down.inputs[2])
        assert scale is not None
        assert zero_point is not None
        largest = max(int(zero_point), 255 - int(zero_point)) * float(scale)
        name = down.name or ""
        halves = [each for each in (scale.dtype, _content(up.inputs[1]).dtype) if each != np.float32]
        rounded = np.array(largest / _SIGNED_LIMIT, *halves[:1])
        zero = constant(graph, f"{name}/symmetric_zero_point", np.array(0, np.int8))
        for node in (down, up):
            kind = _content(node.inputs[1]).dtype
            node.replace_input_with(1, constant(graph, f"{name}/symmetric_scale/{kind.name}", rounded.astype(kind)))
            node.replace_input_with(2, zero)
        down.outputs[0].type = ir.TensorType(ir.DataType.INT8)  # a new one: clones share their type objects
    return len(pairs)


def _content(value: ir.Value | None) -> NDArray[np.generic]:
    content = constant_of(value)
    assert content is not None
    return content


def _upsample_by_conv(graph: ir.Graph, traits: Traits) -> int:
    if "ConvTranspose" in traits.int8_ops:
        return 0
    found = [node for node in graph if node.op_type == "ConvTranspose" and _is_int8(node)]
    for node in found:
        upsample_as_conv(graph, node)
    return len(found)


def _argmax_as_topk(graph: ir.Graph) -> int:
    """ArgMax over one axis as TopK of one: the same index, at a tie the lowest (ONNX states it for both)."""
    found = [node for node in graph if node.op_type == "ArgMax" and not node.attributes.get_int("keepdims", 1)]
    for node in found:
        axis, name = node.attributes.get_int("axis", 0), node.name or "argmax"
        one = constant(graph, f"{name}/one", np.array([1], np.int64))
        topk = ir.node("TopK", [node.inputs[0], one], attributes={"axis": axis, "sorted": 1}, num_outputs=2, name=f"{name}/topk")
        topk.outputs[0].name, topk.outputs[1].name = f"{name}/value", f"{name}/index"
        squeezed = new_node(
            "Squeeze",
            [topk.outputs[1], constant(graph, f"{name}/axis", np.array([axis], np.int64))],
            f"{name}/squeezed",
            dtype=ir.DataType.INT64,
            shape=node.outputs[0].shape,
        )
        graph.insert_before(node, [topk, squeezed])
        node.outputs[0].replace_all_uses_with(squeezed.outputs[0])
        graph.remove(node, safe=True)
    return len(found)
