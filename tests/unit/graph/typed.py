"""References that really round: what a typed graph computes on a machine with kernels for its types.

* :class:`RoundedSession` runs every node in float32 and rounds its result to the type that the graph gives it
  (``segship.graph.typed``). Fast enough for whole networks.
* :class:`NumpySession` is ONNX's reference evaluator: numpy in the types of the graph, sums inside a node included. It is
  slow, so for tiny networks only.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import ml_dtypes
import numpy as np
import onnx
from onnx.reference import ReferenceEvaluator

from segship.core.backend import Feeds
from segship.core.graph import Graph
from segship.graph.histogram import Range
from segship.graph.typed import rounded
from unit.graph.networks import PlainSession


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
