"""RoIAlign over a feature pyramid as one weighted sum of rows, on any device and with gradients.

Every output cell is a mean of bilinear samples, so a sum of feature vectors with known weights: ``embedding_bag``.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
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
    h, w = torch.tensor([level.shape[2:] for level in levels], device=boxes.device)[level_of].unbind(1)
    scale = torch.tensor(scales, dtype=boxes.dtype, device=boxes.device)[level_of]
    x0, y0, x1, y1 = (boxes * scale[:, None] - (0.5 if aligned else 0.0)).unbind(1)
    smallest = 0.0 if aligned else 1.0
    y, x = _Span(y0, (y1 - y0).clamp(min=smallest), h), _Span(x0, (x1 - x0).clamp(min=smallest), w)
    table = torch.cat([level.permute(0, 2, 3, 1).flatten(0, 2) for level in levels])
    first_row = _first_rows(levels).to(boxes.device)[level_of] + images * h * w
    orders, sums = [boxes.new_zeros(0, dtype=torch.int64)], [table.new_zeros(1, size * size * table.shape[1])]
    for own, n_y, n_x in _by_samples(y, x, size, sampling_ratio):
        orders.append(own)
        cells = _weighted_sums(table, first_row[own], w[own], y.of(own).cells(size, n_y), x.of(own).cells(size, n_x))
        sums.append(cells.reshape(len(own), -1))
    order = torch.cat(orders)
    places = torch.zeros_like(level_of)  # of RoIs without any sample: the row of zeros before all groups
    places[order] = torch.arange(1, len(order) + 1, device=order.device)
    pooled = torch.cat(sums)[places].reshape(len(boxes), size * size, -1)
    return pooled.permute(0, 2, 1).reshape(len(boxes), -1, size, size)


class _Span(NamedTuple):
    """Where boxes lie along one axis of their maps: ``low``, ``extent`` and the map's ``length``, in cells, all (r,)."""

    low: Tensor
    extent: Tensor
    length: Tensor

    def of(self, own: Tensor) -> _Span:
        return _Span(self.low[own], self.extent[own], self.length[own])

    def cells(self, size: int, n: int) -> tuple[Tensor, Tensor]:
        """Which cells of the map each output cell is made of, and their shares, for ``n`` samples: (r, size, 2 * n) each.

        A sample outside (-1, length) counts, but as zero; one beyond the last centre is the last cell.
        """
        step, kind = self.extent[:, None, None] / size, {"device": self.low.device, "dtype": self.low.dtype}
        cell, sample = torch.arange(size, **kind)[:, None], torch.arange(n, **kind)  # type: ignore[call-overload]
        at = self.low[:, None, None] + cell * step + (sample + 0.5) * step / n
        length = self.length[:, None, None]
        inside = (at >= -1) & (at <= length)
        at = torch.minimum(at.clamp(min=0.0), (length - 1).to(at.dtype))
        below = at.long()
        share = at - below
        weights = torch.stack([1 - share, share], dim=-1) * (inside / n)[..., None]
        return torch.stack([below, torch.minimum(below + 1, length - 1)], dim=-1).flatten(2), weights.flatten(2)


def _by_samples(y: _Span, x: _Span, size: int, sampling_ratio: int) -> Iterator[tuple[Tensor, int, int]]:
    """RoIs in groups that have the same number of samples along each axis; empty ones are left out."""
    if sampling_ratio > 0:
        yield torch.arange(len(y.low), device=y.low.device), sampling_ratio, sampling_ratio
        return
    samples = torch.stack([(span.extent / size).ceil().long() for span in (y, x)], dim=1)
    kinds, kind_of = torch.unique(samples, dim=0, return_inverse=True)
    for index, (n_y, n_x) in enumerate(kinds.tolist()):
        if n_y > 0 and n_x > 0:
            yield (kind_of == index).nonzero()[:, 0], n_y, n_x


def _weighted_sums(table: Tensor, first_row: Tensor, width: Tensor, y: tuple[Tensor, Tensor], x: tuple[Tensor, Tensor]) -> Tensor:
    """(r * size * size, c) from the rows (cells) of ``table``."""
    starts = first_row[:, None, None] + y[0] * width[:, None, None]
    rows = starts[:, :, None, :, None] + x[0][:, None, :, None]
    weights = (y[1][:, :, None, :, None] * x[1][:, None, :, None]).to(table.dtype)
    return functional.embedding_bag(
        rows.flatten(0, 2).flatten(1), table, mode="sum", per_sample_weights=weights.flatten(0, 2).flatten(1)
    )


def _first_rows(levels: Sequence[Tensor]) -> Tensor:
    """(levels,) int64: where each map begins when the cells of all maps and images are rows of one table."""
    rows = torch.tensor([level.shape[0] * level.shape[2] * level.shape[3] for level in levels])
    return rows.cumsum(0) - rows
