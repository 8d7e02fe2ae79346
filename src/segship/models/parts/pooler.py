"""From boxes to features of one size: which level of the pyramid a box is read from, and reading it."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from segship.models.parts import operators, roi_align
from segship.models.parts.boxes import area

_SCALES = (1 / 4, 1 / 8, 1 / 16, 1 / 32)
_SMALLEST = 0.01
"""Pixels. OpenVINO divides by the number of samples, which is 0 for an empty box with adaptive sampling: NaN."""


class Pooler(nn.Module):
    """P2 ... P5 and boxes (r, 4) of the images (r,) to (r, c, size, size).

    ``level_edges``: the square roots of area, in pixels, from which on a box is read from P3, P4, P5. They are the official
    rules ``floor(4 + log2(sqrt(area) / 224 + eps))`` without the logarithm, whose rounding differs between runtimes.
    """

    def __init__(self, size: int, *, sampling_ratio: int, aligned: bool, level_edges: Sequence[float]) -> None:
        super().__init__()
        self.size, self.sampling_ratio, self.aligned, self.level_edges = size, sampling_ratio, aligned, tuple(level_edges)

    def forward(self, levels: Sequence[Tensor], boxes: Tensor, images: Tensor) -> Tensor:
        level_of = self.level_of(boxes)
        boxes = torch.cat([boxes[:, :2], torch.maximum(boxes[:, 2:], boxes[:, :2] + _SMALLEST)], dim=1)
        if self.training:
            return roi_align.pyramid_roi_align(
                levels[:4],
                boxes,
                images,
                level_of,
                scales=_SCALES,
                size=self.size,
                sampling_ratio=self.sampling_ratio,
                aligned=self.aligned,
            )
        pooled: Tensor = operators.pyramid_roi_align(
            list(levels[:4]), boxes, images, level_of, list(_SCALES), self.size, self.sampling_ratio, self.aligned
        )
        return pooled

    def level_of(self, boxes: Tensor) -> Tensor:
        """(r,) int64: 0 for P2 to 3 for P5."""
        scale = area(boxes).sqrt()
        return sum((scale >= edge).long() for edge in self.level_edges)  # type: ignore[return-value]
