"""Paste the masks inside the graph: detections leave the engine with masks of the whole image.

An option, for devices that are fast at it; the default, small masks that the task pastes, takes far less memory.

Bilinear interpolation is separable: a pasted mask is ``rows @ mask @ columns^T`` with hat-shaped weights, by both official
rules.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import msgspec
import numpy as np
import onnx_ir as ir

from segship.core.errors import BuildFailed
from segship.core.graph import Graph, PassRecord
from segship.core.image import frame
from segship.core.spec import InstanceDecode, Size, TensorSpec
from segship.graph.passes.edit import constant, new_node

NAME = "full_masks"
_PREFIX = "segship.masks"
_FLOAT, _INT, _BOOL = ir.DataType.FLOAT, ir.DataType.INT64, ir.DataType.BOOL


def full_masks(graph: Graph, image_size: Size | None) -> Graph:
    """The graph with its ``masks`` (batch, n, height, width) uint8, 0 or 1, in the original image's frame.

    ``image_size`` (height, width) fixes that size; with None the graph gets ``image_size`` int64 (2,) as another input.
    Other outputs stay as they are, boxes in network pixels. Raises :class:`BuildFailed` for a graph without detections.
    """
    if graph.signature.output != "detections" or not isinstance(graph.spec.decode, InstanceDecode):
        raise BuildFailed(f"the graph gives {graph.signature.output}: only the small masks of detections can be pasted")
    model = graph.ir.clone()
    masks = _Paste(model, graph, graph.spec.decode, image_size).write()
    index = [output.name for output in graph.signature.outputs].index("masks")
    model.graph.outputs[index] = masks
    sides: tuple[int | str, int | str] = image_size or ("image_height", "image_width")
    outputs = list(graph.signature.outputs)
    outputs[index] = TensorSpec("masks", "uint8", ("batch", outputs[index].shape[1], *sides))
    known = {spec.name for spec in graph.signature.inputs}
    added = [TensorSpec(value.name or "", "int64", (2,)) for value in model.graph.inputs if value.name not in known]
    signature = msgspec.structs.replace(
        graph.signature,
        inputs=(*graph.signature.inputs, *added),
        outputs=tuple(outputs),
        output="instances",
        image_size=image_size,
    )
    size = "free" if image_size is None else f"{image_size[0]}x{image_size[1]}"
    return graph.after(model, PassRecord(NAME, "fuse", {"image_size": size}, changed=True), signature=signature)


@dataclass
class _Paste:
    """The nodes behind boxes and masks, appended to the end of ``model``."""

    model: ir.Model
    source: Graph
    decode: InstanceDecode
    image_size: Size | None

    def write(self) -> ir.Value:
        """Append all nodes; gives the pasted masks."""
        outputs = {value.name: value for value in self.model.graph.outputs}
        boxes, masks = outputs["boxes"], outputs["masks"]
        masks.name = f"{_PREFIX}.small"
        side = int(masks.shape[-1]) if masks.shape is not None and isinstance(masks.shape[-1], int) else 28
        if self.decode.paste == "whole_pixels":  # torchvision pads the mask by a cell of nothing
            pads = self._ints("pads", [0, 0, 1, 1, 0, 0, 1, 1])
            masks, side = self._add("Pad", [masks, pads], "padded"), side + 2
        image, content = (self._add("Cast", [self._size(each)], each, attributes={"to": _FLOAT.value}) for each in _SIZES)
        wide = self._ints("wide", [1, 0, 1, 0])
        limit, inner = (self._add("Gather", [each, wide], f"sides_{i}") for i, each in enumerate((image, content)))
        scaled = self._add("Mul", [boxes, self._add("Div", [limit, inner], "factor")], "scaled")
        clipped = self._add("Min", [self._add("Max", [scaled, self._float("zero", 0.0)], "above"), limit], "clipped")
        rows, columns = (self._weights(clipped, axis, side) for axis in ("y", "x"))
        across = self._add("Transpose", [columns], "across", attributes={"perm": [0, 1, 3, 2]})
        pasted = self._add("MatMul", [self._add("MatMul", [rows, masks], "down"), across], "probability")
        above = self._add("GreaterOrEqual", [pasted, self._float("threshold", self.decode.threshold)], "on", _BOOL)
        full = self._add("Cast", [above], "full", ir.DataType.UINT8, {"to": ir.DataType.UINT8.value})
        full.name = "masks"
        return full

    def _weights(self, boxes: ir.Value, axis: str, side: int) -> ir.Value:
        """(batch, n, pixels, side): the share of each of the mask's cells in each pixel of one axis."""
        first, size_index = (1, 0) if axis == "y" else (0, 1)
        low, high = (
            self._add("Gather", [boxes, self._ints(f"edge_{edge}", [edge])], f"{axis}.edge_{edge}", attributes={"axis": 2})
            for edge in (first, first + 2)
        )
        length = self._add(
            "Gather", [self._size("image_size"), self._scalar(f"axis_{size_index}", size_index)], f"{axis}.n", _INT
        )
        pixels = self._add("Range", [self._scalar("start", 0), length, self._scalar("step", 1)], f"{axis}.range", _INT)
        index = self._add("Cast", [pixels], f"{axis}.index", attributes={"to": _FLOAT.value})
        place = self._on_grid if self.decode.paste == "grid" else self._on_whole_pixels
        at, inside = place(axis, low, high, index, side)
        cells = constant(self.model.graph, f"{_PREFIX}.cells", np.arange(side, dtype=np.float32))
        apart = self._add("Sub", [self._add("Unsqueeze", [at, self._ints("last", [-1])], f"{axis}.at"), cells], f"{axis}.apart")
        hat = self._add("Sub", [self._float("one", 1.0), self._add("Abs", [apart], f"{axis}.distance")], f"{axis}.hat")
        weights = self._add("Relu", [hat], f"{axis}.positive")
        known = self._add("Cast", [inside], f"{axis}.inside", attributes={"to": _FLOAT.value})
        return self._add(
            "Mul", [weights, self._add("Unsqueeze", [known, self._ints("last", [-1])], f"{axis}.mask")], f"{axis}.weights"
        )

    def _on_grid(self, axis: str, low: ir.Value, high: ir.Value, index: ir.Value, side: int) -> tuple[ir.Value, ir.Value]:
        """Where each pixel's centre lies in the mask, in cells, and whether the box has an area at all."""
        real = self._add("Greater", [high, low], f"{axis}.real", _BOOL)
        extent = self._add(
            "Where", [real, self._add("Sub", [high, low], f"{axis}.long"), self._float("one", 1.0)], f"{axis}.extent"
        )
        centres = self._add("Add", [index, self._float("half", 0.5)], f"{axis}.centres")
        share = self._add("Div", [self._add("Sub", [centres, low], f"{axis}.from"), extent], f"{axis}.share")
        cells = self._add("Mul", [share, self._float("side", float(side))], f"{axis}.in_cells")
        at = self._add("Sub", [cells, self._float("half", 0.5)], f"{axis}.place")
        everywhere = self._add("GreaterOrEqual", [index, self._float("zero", 0.0)], f"{axis}.everywhere", _BOOL)
        return at, self._add("And", [real, everywhere], f"{axis}.both", _BOOL)

    def _on_whole_pixels(self, axis: str, low: ir.Value, high: ir.Value, index: ir.Value, side: int) -> tuple[ir.Value, ir.Value]:
        """The same for a padded mask resized to the expanded box, cut off to whole pixels toward zero."""
        grown = self._float("grown", 0.5 * side / (side - 2))
        half = self._add("Mul", [self._add("Sub", [high, low], f"{axis}.long"), grown], f"{axis}.half")
        centre = self._add("Mul", [self._add("Add", [high, low], f"{axis}.sum"), self._float("half", 0.5)], f"{axis}.centre")
        first = self._whole(self._add("Sub", [centre, half], f"{axis}.low"), f"{axis}.first")
        last = self._whole(self._add("Add", [centre, half], f"{axis}.high"), f"{axis}.last")
        one, zero = self._float("one", 1.0), self._float("zero", 0.0)
        span = self._add("Sub", [last, first], f"{axis}.span")
        count = self._add("Max", [self._add("Add", [span, one], f"{axis}.span_1"), one], f"{axis}.count")
        offset = self._add("Sub", [index, first], f"{axis}.offset")
        centres = self._add("Add", [offset, self._float("half", 0.5)], f"{axis}.centres")
        scale = self._add("Div", [self._float("side", float(side)), count], f"{axis}.scale")
        cells = self._add(
            "Sub", [self._add("Mul", [centres, scale], f"{axis}.scaled"), self._float("half", 0.5)], f"{axis}.in_cells"
        )
        at = self._add("Clip", [cells, zero, self._float("last_cell", side - 1.0)], f"{axis}.place")
        after = self._add("GreaterOrEqual", [offset, zero], f"{axis}.after", _BOOL)
        before = self._add("Less", [offset, count], f"{axis}.before", _BOOL)
        return at, self._add("And", [after, before], f"{axis}.both", _BOOL)

    def _whole(self, value: ir.Value, name: str) -> ir.Value:
        whole = self._add("Cast", [value], f"{name}.int", _INT, {"to": _INT.value})
        return self._add("Cast", [whole], name, attributes={"to": _FLOAT.value})

    def _size(self, name: str) -> ir.Value:
        """(height, width) int64: a constant where it is known, else an input of that name."""
        if self.image_size is not None:
            sizes = frame(self.source.spec.image, self.image_size)
            return self._ints(name, list(sizes.image if name == "image_size" else sizes.content))
        inputs = self.model.graph.inputs
        if name not in [value.name for value in inputs]:
            inputs.append(ir.Value(name=name, shape=ir.Shape([2]), type=ir.TensorType(_INT)))
        return next(value for value in inputs if value.name == name)

    def _ints(self, name: str, content: list[int]) -> ir.Value:
        return constant(self.model.graph, f"{_PREFIX}.{name}", np.array(content, np.int64))

    def _scalar(self, name: str, content: int) -> ir.Value:
        return constant(self.model.graph, f"{_PREFIX}.{name}", np.array(content, np.int64))

    def _float(self, name: str, content: float) -> ir.Value:
        return constant(self.model.graph, f"{_PREFIX}.float.{name}", np.array(content, np.float32))

    def _add(
        self,
        kind: str,
        inputs: list[ir.Value | None],
        name: str,
        dtype: ir.DataType = _FLOAT,
        attributes: Mapping[str, int | list[int]] | None = None,
    ) -> ir.Value:
        node = new_node(kind, inputs, f"{_PREFIX}.{name}", dtype=dtype, attributes=attributes)
        self.model.graph.append(node)
        return node.outputs[0]


_SIZES = ("image_size", "content_size")
