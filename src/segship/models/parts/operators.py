"""Operators that PyTorch itself lacks, registered so that an exporter sees one node for each.

``graph/translations.py`` says what they are in ONNX: it finds them by the names given here.
"""

from __future__ import annotations

import torch
from torch import Tensor

from segship.models.parts import nms, roi_align


@torch.library.custom_op("segship::nms_keep", mutates_args=())
def nms_keep(boxes: Tensor, scores: Tensor, iou_threshold: float, score_threshold: float) -> Tensor:
    """See :func:`segship.models.parts.nms.nms_keep`."""
    return nms.nms_keep(boxes, scores, iou_threshold, score_threshold)


@nms_keep.register_fake
def _(_boxes: Tensor, scores: Tensor, _iou_threshold: float, _score_threshold: float) -> Tensor:
    return torch.empty_like(scores, dtype=torch.bool)


@torch.library.custom_op("segship::pyramid_roi_align", mutates_args=())
def pyramid_roi_align(
    levels: list[Tensor],
    boxes: Tensor,
    images: Tensor,
    level_of: Tensor,
    scales: list[float],
    size: int,
    sampling_ratio: int,
    aligned: bool,  # noqa: FBT001  (an operator's schema)
) -> Tensor:
    """See :func:`segship.models.parts.roi_align.pyramid_roi_align`; without gradients."""
    return roi_align.pyramid_roi_align(
        levels, boxes, images, level_of, scales=scales, size=size, sampling_ratio=sampling_ratio, aligned=aligned
    )


@pyramid_roi_align.register_fake
def _(
    levels: list[Tensor],
    boxes: Tensor,
    _images: Tensor,
    _level_of: Tensor,
    _scales: list[float],
    size: int,
    _sampling_ratio: int,
    _aligned: bool,  # noqa: FBT001
) -> Tensor:
    return levels[0].new_empty(boxes.shape[0], levels[0].shape[1], size, size)
