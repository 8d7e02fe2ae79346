"""Put the decision into the graph: logits become a label map in the original image's frame, and never leave the engine."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import msgspec
import numpy as np
import onnx_ir as ir

from segship.core.errors import BuildFailed
from segship.core.graph import Graph, PassRecord
from segship.core.image import frame
from segship.core.spec import SemanticDecode, Signature, Size, TensorSpec
from segship.graph.passes.edit import constant, new_node

NAME = "label_map"
_PREFIX = "segship.labels"
_MAX_UINT8_CLASSES = 255
"""255 stays free for "ignore", as in the label files of Cityscapes and ADE20K."""


def label_map(graph: Graph, image_size: Size | None) -> Graph:
    """The graph with the logits' resizes and the decision at its end.

    The output becomes ``labels`` (batch, height, width), uint8 (uint16 above 255 classes), of the original image's
    size. ``image_size`` (height, width) fixes that size; with None the graph gets another input, ``image_size`` int64
    (2,), and where padding is to be cut off ``content_size`` int64 (2,). The resizes are those of
    ``graph.spec.decode.resize_to``, bilinear with half-pixel centres, in order.
    Raises :class:`BuildFailed` when the graph does not end in logits.
    """
    if graph.signature.output != "logits":
        raise BuildFailed(f"the graph gives {graph.signature.output}: a label map can only be made from logits")
    model = graph.ir.clone()
    tail = _Tail(graph, model, image_size)
    labels = tail.write()
    model.graph.outputs.clear()
    model.graph.outputs.append(labels)
    size = "free" if image_size is None else f"{image_size[0]}x{image_size[1]}"
    record = PassRecord(NAME, "fuse", {"image_size": size}, changed=True)
    return graph.after(model, record, signature=_signature(graph.signature, model.graph.inputs, labels, image_size))


def _signature(before: Signature, inputs: Sequence[ir.Value], labels: ir.Value, image_size: Size | None) -> Signature:
    assert labels.dtype is not None
    sides: tuple[int | str, int | str] = image_size or ("image_height", "image_width")
    known = {spec.name for spec in before.inputs}
    added = tuple(TensorSpec(value.name or "", "int64", (2,)) for value in inputs if value.name not in known)
    output = TensorSpec("labels", labels.dtype.numpy().name, ("batch", *sides))
    return msgspec.structs.replace(
        before, inputs=(*before.inputs, *added), outputs=(output,), output="labels", image_size=image_size
    )


@dataclass
class _Tail:
    """The nodes behind the logits, appended one by one to the end of ``model``."""

    source: Graph
    model: ir.Model
    image_size: Size | None

    def write(self) -> ir.Value:
        """Append all nodes; gives the label map."""
        logits = self.model.graph.outputs[0]
        classes = logits.shape[1] if logits.shape is not None else None
        if not isinstance(classes, int):
            raise BuildFailed("the graph does not say how many channels its logits have: export it with a fixed channel count")
        # Two classes need only the sign of their difference, and the difference resizes at half the cost. It is the same
        # real number; in floating point a pixel may flip only where both logits agree to rounding.
        scores = self._margin(logits) if classes == 2 else logits
        for step in self._steps():
            scores = self._cut(scores) if step == "content" else self._resized(scores, step)
        kind = ir.DataType.UINT8 if classes <= _MAX_UINT8_CLASSES else ir.DataType.UINT16
        labels = self._append("Cast", [self._decided(scores, classes)], "labels", kind, {"to": kind.value})
        labels.name = "labels"
        labels.shape = ir.Shape(["batch", *(self.image_size or ("image_height", "image_width"))])
        return labels

    def _steps(self) -> list[str]:
        """The steps that change the size, as far as sizes are known now: one to the size that is already there is none."""
        shape = self.model.graph.outputs[0].shape
        here = tuple(shape[2:]) if shape is not None else None
        steps: list[str] = []
        for step in self._decode.resize_to:
            known = self._known(step)
            if known is None or known != here:
                steps.append(step)
            here = known
        return steps

    @property
    def _decode(self) -> SemanticDecode:
        decode = self.source.spec.decode
        assert isinstance(decode, SemanticDecode)  # only such models give logits
        return decode

    def _known(self, step: str) -> Size | None:
        """The size after a step, where it does not depend on the image to come."""
        if step == "input":
            return self.source.signature.input_size
        if step == "content" and self.image_size is not None:
            return frame(self.source.spec.image, self.image_size).content
        return self.image_size

    def _margin(self, logits: ir.Value) -> ir.Value:
        return self._append("Sub", [self._channel(logits, 1), self._channel(logits, 0)], "margin", logits.dtype)

    def _channel(self, logits: ir.Value, index: int) -> ir.Value:
        begin, end = self._ints(f"index_{index}", [index]), self._ints(f"index_{index + 1}", [index + 1])
        return self._append("Slice", [logits, begin, end, self._ints("index_1", [1])], f"class_{index}", logits.dtype)

    def _cut(self, scores: ir.Value) -> ir.Value:
        """Without the padding at the right and bottom."""
        begin, axes = self._ints("cut.begin", [0, 0]), self._ints("cut.axes", [2, 3])
        return self._append("Slice", [scores, begin, self._size("content"), axes], "content.cut", scores.dtype)

    def _resized(self, scores: ir.Value, step: str) -> ir.Value:
        leading = self._append("Shape", [scores], f"{step}.leading", ir.DataType.INT64, {"start": 0, "end": 2})
        sizes = self._append("Concat", [leading, self._size(step)], f"{step}.sizes", ir.DataType.INT64, {"axis": 0})
        how = {"mode": "linear", "coordinate_transformation_mode": "half_pixel"}
        return self._append("Resize", [scores, None, None, sizes], f"{step}.resize", scores.dtype, how)

    def _size(self, step: str) -> ir.Value:
        """(height, width) to resize to: a constant where it is known, else read from an input."""
        known = self._known(step)
        if known is not None:
            return self._ints(f"{step}.size", list(known))
        if step == "input":
            return self._append("Shape", [self.model.graph.inputs[0]], "input.size", ir.DataType.INT64, {"start": 2, "end": 4})
        return self._size_input(f"{step}_size")

    def _size_input(self, name: str) -> ir.Value:
        """The graph's input of that name, made if it is not there."""
        inputs = self.model.graph.inputs
        if name not in [value.name for value in inputs]:
            inputs.append(ir.Value(name=name, shape=ir.Shape([2]), type=ir.TensorType(ir.DataType.INT64)))
        return next(value for value in inputs if value.name == name)

    def _decided(self, scores: ir.Value, classes: int) -> ir.Value:
        """Class ids (batch, height, width), int64 or bool; the lowest class wins a tie, as in numpy."""
        if classes > 2:
            return self._append("ArgMax", [scores], "argmax", ir.DataType.INT64, {"axis": 1, "keepdims": 0})
        limit = 0.0 if classes == 2 else _logit(self._decode.threshold)
        threshold = constant(self.model.graph, f"{_PREFIX}.limit", np.array(limit, np.float32))
        above = self._append("Greater", [scores, threshold], "above", ir.DataType.BOOL)
        return self._append("Squeeze", [above, self._ints("index_1", [1])], "decision", ir.DataType.BOOL)

    def _ints(self, name: str, content: list[int]) -> ir.Value:
        return constant(self.model.graph, f"{_PREFIX}.{name}", np.array(content, np.int64))

    def _append(
        self,
        kind: str,
        inputs: list[ir.Value | None],
        name: str,
        dtype: ir.DataType | None,
        attributes: Mapping[str, int | str] | None = None,
    ) -> ir.Value:
        node = new_node(kind, inputs, f"{_PREFIX}.{name}", dtype=dtype, attributes=attributes)
        self.model.graph.append(node)
        return node.outputs[0]


def _logit(threshold: float | None) -> float:
    """Inverse of the sigmoid: comparing logits with it spares the exponential of every pixel."""
    limit = 0.5 if threshold is None else threshold
    return math.log(limit / (1 - limit))
