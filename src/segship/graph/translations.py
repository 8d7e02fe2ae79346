"""What segship's own PyTorch operators are in standard ONNX.

The operators are looked up by name: the model that is exported has registered those it uses.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import onnx_ir as ir
import torch
from onnxscript import opset20

op: Any = opset20  # its types are those of onnxscript's own language
Value = Any
"""A value of the graph in the making."""


def nms_keep(boxes: Value, scores: Value, iou_threshold: float, score_threshold: float) -> Any:
    """boxes (g, n, 4), scores (g, n) to (g, n) bool: survivors of each group."""
    shape = op.Shape(scores)
    selected = op.NonMaxSuppression(
        boxes,
        op.Unsqueeze(scores, op.Constant(value_ints=[1])),
        op.Slice(shape, op.Constant(value_ints=[1]), op.Constant(value_ints=[2])),
        op.Constant(value_floats=[iou_threshold]),
        op.Constant(value_floats=[score_threshold]),
    )
    places = op.Gather(selected, op.Constant(value_ints=[0, 2]), axis=1)
    ones = op.Expand(op.Constant(value_floats=[1.0]), op.Slice(op.Shape(places), [0], [1]))
    none = op.ConstantOfShape(shape, value=ir.tensor([0.0]))
    return op.Cast(op.ScatterND(none, places, ones), to=ir.DataType.BOOL)


def pyramid_roi_align(
    levels: Sequence[Value],
    boxes: Value,
    images: Value,
    level_of: Value,
    scales: Sequence[float],
    size: int,
    sampling_ratio: int,
    aligned: bool,  # noqa: FBT001  (an operator's schema)
) -> Any:
    """Each level's RoIs on their own, then all in their old order: (r, c, size, size)."""
    parts, orders = [], []
    for index, (level, scale) in enumerate(zip(levels, scales, strict=True)):
        own = op.Squeeze(op.NonZero(op.Equal(level_of, op.Constant(value_int=index))), [0])
        orders.append(own)
        parts.append(
            op.RoiAlign(
                level,
                op.Gather(boxes, own),
                op.Gather(images, own),
                coordinate_transformation_mode="half_pixel" if aligned else "output_half_pixel",
                mode="avg",
                output_height=size,
                output_width=size,
                sampling_ratio=sampling_ratio,
                spatial_scale=scale,
            )
        )
    order = op.Concat(*orders, axis=0)
    ranks = op.Range(op.Constant(value_int=0), op.Squeeze(op.Shape(order), [0]), op.Constant(value_int=1))
    places = op.ScatterElements(order, order, ranks, axis=0)
    return op.Gather(op.Concat(*parts, axis=0), places)


_TRANSLATIONS: dict[str, Callable[..., Any]] = {"nms_keep": nms_keep, "pyramid_roi_align": pyramid_roi_align}


def registered() -> dict[Callable[..., Any], Callable[..., Any]]:
    """The translation of each operator that is registered, for ``torch.onnx.export(custom_translation_table=...)``."""
    found: dict[Callable[..., Any], Callable[..., Any]] = {
        getattr(torch.ops.segship, name).default: translation
        for name, translation in _TRANSLATIONS.items()
        if hasattr(torch.ops.segship, name)
    }
    return found
