"""References that really round: what a typed graph computes on a machine with kernels for its types.

ONNX Runtime on the CPU has next to no half-precision kernels. It runs such nodes in float32 between casts of its own and
takes those casts away where they meet, so that neither rounding nor overflow between two nodes can be seen. Hence two
references of our own:

* :class:`RoundedSession` runs every node in float32 and rounds its result to the type that the graph gives it. That is
  what tensor cores do: half-precision operands, float32 sums, a half-precision result. Fast enough for whole networks.
* :class:`NumpySession` is ONNX's reference evaluator: numpy in the types of the graph, sums inside a node included. It is
  slow, so for tiny networks only.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import ml_dtypes
import numpy as np
import onnx
import onnx_ir as ir
from onnx.reference import ReferenceEvaluator

from segship.core.backend import Feeds
from segship.core.graph import Graph
from segship.graph.histogram import Range
from segship.graph.passes.edit import constant, drop_unused_constants, new_node
from unit.graph.networks import PlainSession

HALF = (ir.DataType.FLOAT16, ir.DataType.BFLOAT16)


class RoundedSession(PlainSession):
    """Float32 kernels, every result rounded to its type in ``graph``."""

    def __init__(self, graph: Graph) -> None:
        super().__init__(rounded(graph))


class NumpySession:
    """ONNX's reference evaluator."""

    def __init__(self, graph: Graph) -> None:
        self._evaluator = ReferenceEvaluator(onnx.load_from_string(graph.to_bytes()))
        self._names = [output.name for output in graph.signature.outputs]

    def run(self, feeds: Feeds) -> dict[str, np.ndarray]:
        with np.errstate(over="ignore", invalid="ignore"):
            return dict(zip(self._names, self._evaluator.run(self._names, dict(feeds)), strict=True))


def rounded(graph: Graph) -> Graph:
    """The same graph in float32, with each half-precision result rounded right behind its node."""
    model = graph.ir.clone()
    model.graph.opset_imports[""] = 20  # in float32 opset 22 means the same, and ONNX Runtime lacks some of its operators
    for value in list(model.graph.initializers.values()):
        if value.dtype in HALF:
            _replace(value, constant(model.graph, f"{value.name}/float32", value.const_value.numpy().astype(np.float32)))
    for node in list(model.graph):
        for value in node.outputs:
            if value.dtype in HALF:
                _round(model.graph, node, value)
    drop_unused_constants(model.graph)
    return Graph(model, graph.spec, graph.signature)


def _round(graph: ir.Graph, node: ir.Node, value: ir.Value) -> None:
    half, uses = value.dtype, value.uses()
    value.type = ir.TensorType(ir.DataType.FLOAT)
    if node.op_type == "Cast":
        node.attributes["to"] = ir.AttrInt64("to", ir.DataType.FLOAT.value)
    elif node.op_type == "ConstantOfShape":
        content = node.attributes["value"].as_tensor().numpy().astype(np.float32)
        node.attributes["value"] = ir.AttrTensor("value", ir.tensor(content))
    down = new_node("Cast", [value], f"{value.name}/down", dtype=half, attributes={"to": half.value})
    up = new_node("Cast", down.outputs, f"{value.name}/up", dtype=ir.DataType.FLOAT, attributes={"to": 1})
    graph.insert_after(node, [down, up])
    for user, index in uses:
        user.replace_input_with(index, up.outputs[0])


def _replace(old: ir.Value, new: ir.Value) -> None:
    for user, index in old.uses():
        user.replace_input_with(index, new)


def check_types(graph: Graph) -> None:
    """Every type is what ONNX infers, the graph passes the strict checker, and ONNX Runtime opens it."""
    proto = onnx.load_from_string(graph.to_bytes())
    onnx.checker.check_model(proto, full_check=True)
    bare = onnx.load_from_string(graph.to_bytes())
    del bare.graph.value_info[:]
    inferred = onnx.shape_inference.infer_shapes(bare, check_type=True, strict_mode=True)
    found = {value.name: value.type.tensor_type.elem_type for value in [*inferred.graph.value_info, *inferred.graph.output]}
    stated = {value.name: value.dtype for node in graph.ir.graph for value in node.outputs if value.uses()}
    wrong = {name: (kind, found[name]) for name, kind in stated.items() if name in found and found[name] != kind.value}
    assert not wrong
    assert {output.name: output.dtype.numpy().name for output in graph.ir.graph.outputs} == {
        spec.name: spec.dtype for spec in graph.signature.outputs
    }


def bfloat16(array: np.ndarray) -> np.ndarray:
    """``array`` (float32) rounded to bfloat16, as float32."""
    return array.astype(ml_dtypes.bfloat16).astype(np.float32)


def extremes(graph: Graph, tensors: Sequence[str], inputs: Iterable[np.ndarray]) -> dict[str, Range]:
    """The range of each of ``tensors`` over ``inputs`` (the network's input, one image each)."""
    model = graph.ir.clone()
    known = {value.name: value for node in model.graph for value in node.outputs}
    model.graph.outputs.extend(known[name] for name in tensors if name in known and not known[name].is_graph_output())
    session = PlainSession(Graph(model, graph.spec, graph.signature))._session
    found: dict[str, Range] = {}
    for image in inputs:
        computed = [name for name in tensors if name in known]
        values = dict(zip(computed, session.run(computed, {"image": image}), strict=True)) | {"image": image}
        for name in tensors:
            value = values[name]
            before = found.get(name, Range(0.0, 0.0))
            found[name] = Range(min(before.low, float(value.min())), max(before.high, float(value.max())))
    return found
