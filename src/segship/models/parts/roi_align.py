"""RoIAlign over a feature pyramid as one weighted sum of rows, on any device and with gradients.

Every output cell is a mean of bilinear samples, so a sum of feature vectors with known weights: ``embedding_bag``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional


def pyramid_roi_align(
    levels: Sequence[Tensor],
    boxes: Tensor,
    images: Tensor,
    level_of: Tensor,
    *,
    scales: Sequence[float],
    size: int,
    sampling_ratio: int,
    aligned: bool,
) -> Tensor:
    """(r, c, size, size): each box's features from its own level.

    ``levels``: maps (b, c, h, w); ``boxes`` (r, 4) in pixels of the network input; ``images``, ``level_of`` (r,) int64: which
    image of the batch and which map; ``scales``: map cells per pixel. ``sampling_ratio``: samples per axis and output cell,
    0: as many as an output cell is long. ``aligned``: pixel centres are half a cell in (detectron2 ``ROIAlignV2``, mmcv), and
    tiny boxes stay tiny; else the older rule (torchvision), where a box is at least one cell wide.
    Source: torchvision ``roi_align_kernel.cpp``, mmcv ``roi_align.cpp``.
    """
    sizes = torch.tensor([level.shape[2:] for level in levels], device=boxes.device)
    starts = _first_rows(levels).to(boxes.device)
    h, w = sizes[level_of].unbind(1)
    scale = torch.tensor(scales, dtype=boxes.dtype, device=boxes.device)[level_of]
    x0, y0, x1, y1 = (boxes * scale[:, None] - (0.5 if aligned else 0.0)).unbind(1)
    y = _axis(y0, y1, h, size, sampling_ratio, aligned=aligned)
    x = _axis(x0, x1, w, size, sampling_ratio, aligned=aligned)
    return _weighted_sums(levels, y, x, first_row=starts[level_of] + images * h * w, width=w, size=size)


class _Axis(NamedTuple):
    """Samples along one axis: ``samples`` (r,) per output cell; for each RoI, output cell and sample two cells of the map
    and their weights, flat, ``positions`` int64 and ``weights``; the RoI's first is at ``offsets`` (r,)."""

    samples: Tensor
    positions: Tensor
    weights: Tensor
    offsets: Tensor


def _axis(low: Tensor, high: Tensor, length: Tensor, size: int, sampling_ratio: int, *, aligned: bool) -> _Axis:
    extent = high - low if aligned else (high - low).clamp(min=1.0)
    adaptive = (extent / size).ceil().long().clamp(min=0)
    samples = adaptive if sampling_ratio == 0 else torch.full_like(length, sampling_ratio)
    counts = samples * size
    roi = torch.repeat_interleave(counts)
    offsets = counts.cumsum(0) - counts
    number = torch.arange(len(roi), device=low.device) - offsets[roi]
    per_cell = samples[roi]
    cell, sample = number // per_cell, number % per_cell
    step = extent[roi] / size
    at = low[roi] + cell * step + (sample + 0.5) * step / per_cell
    return _Axis(samples, *_two_cells(at, length[roi], per_cell), offsets * 2)


def _two_cells(at: Tensor, length: Tensor, per_cell: Tensor) -> tuple[Tensor, Tensor]:
    """The cells beside each sample and their shares of the mean; outside (-1, length) a sample counts, but as zero."""
    inside = (at >= -1) & (at <= length)
    at = torch.minimum(at.clamp(min=0.0), (length - 1).to(at.dtype))
    below = at.floor()
    share = at - below
    cells = torch.stack([below.long(), torch.minimum(below.long() + 1, length - 1)], dim=1).flatten()
    weights = torch.stack([1 - share, share], dim=1) * (inside / per_cell)[:, None]
    return cells, weights.flatten()


def _weighted_sums(levels: Sequence[Tensor], y: _Axis, x: _Axis, first_row: Tensor, width: Tensor, size: int) -> Tensor:
    n_rois, channels = len(first_row), levels[0].shape[1]
    per_bag = 4 * y.samples * x.samples
    bag = torch.repeat_interleave(per_bag.repeat_interleave(size * size))
    roi, cell = bag // (size * size), bag % (size * size)
    starts = (per_bag * size * size).cumsum(0) - per_bag * size * size
    ends = starts[:, None] + per_bag[:, None] * torch.arange(size * size, device=bag.device)
    number = torch.arange(len(bag), device=bag.device) - ends.flatten()[bag]
    wide = 2 * x.samples[roi]
    at_y = y.offsets[roi] + (cell // size) * 2 * y.samples[roi] + number // wide
    at_x = x.offsets[roi] + (cell % size) * wide + number % wide
    rows = first_row[roi] + y.positions[at_y] * width[roi] + x.positions[at_x]
    weights = (y.weights[at_y] * x.weights[at_x]).to(levels[0].dtype)
    table = torch.cat([level.permute(0, 2, 3, 1).reshape(-1, channels) for level in levels])
    sums = functional.embedding_bag(rows, table, ends.flatten(), mode="sum", per_sample_weights=weights)
    return sums.reshape(n_rois, size, size, channels).permute(0, 3, 1, 2).contiguous()


def _first_rows(levels: Sequence[Tensor]) -> Tensor:
    """(levels,) int64: where each map begins when the cells of all maps and images are rows of one table."""
    rows = torch.tensor([level.shape[0] * level.shape[2] * level.shape[3] for level in levels])
    return rows.cumsum(0) - rows
