"""Anchor boxes of a feature pyramid, by the rules of mmdetection, detectron2 and torchvision.

Boxes are (x0, y0, x1, y1) float32 in pixels of the network input; nothing is clipped.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

NOMINAL_STRIDES = (4, 8, 16, 32, 64)
"""Of P2 ... P6."""


class Anchors(nn.Module):
    """Feature maps and the network input's size to the anchors of each level, (h * w * per_cell, 4): cells row by row.

    ``sizes``: square roots of the anchors' areas in pixels, equally many for each level, level by level; ``ratios``: height
    over width; the anchors of a cell go through the sizes of each ratio. ``rounded``: corners of a cell's anchors become
    whole pixels, half to even (torchvision). ``offset``: of the centre, in cells. ``measured_strides``: input size divided by
    map size, rounded down, instead of powers of two (torchvision: differs where a map's size was rounded up).
    """

    def __init__(
        self, sizes: Sequence[float], ratios: Sequence[float], *, rounded: bool, offset: float, measured_strides: bool
    ) -> None:
        super().__init__()
        self.n_levels = len(NOMINAL_STRIDES)
        self.offset, self.measured_strides = offset, measured_strides
        each = len(sizes) // self.n_levels
        for level in range(self.n_levels):
            cell = cell_anchors(sizes[level * each : (level + 1) * each], ratios)
            self.register_buffer(f"cell{level}", cell.round() if rounded else cell, persistent=False)

    def forward(self, levels: Sequence[Tensor], input_size: tuple[int, int]) -> list[Tensor]:
        anchors = []
        for index, level in enumerate(levels):
            centres = self._centres(level, index, input_size)
            anchors.append((centres[:, None] + self.get_buffer(f"cell{index}")).reshape(-1, 4))
        return anchors

    def _centres(self, level: Tensor, index: int, input_size: tuple[int, int]) -> Tensor:
        """(h * w, 4): the centre of each cell, twice."""
        h, w = level.shape[2:]
        if self.measured_strides:
            stride_y, stride_x = input_size[0] // h, input_size[1] // w
        else:
            stride_y = stride_x = NOMINAL_STRIDES[index]
        device = self.get_buffer(f"cell{index}").device
        x = (torch.arange(w, device=device).float() + self.offset) * stride_x
        y = (torch.arange(h, device=device).float() + self.offset) * stride_y
        grid = torch.stack([x[None].expand(h, w), y[:, None].expand(h, w)], dim=2).reshape(-1, 2)
        return torch.cat([grid, grid], dim=1)


def cell_anchors(sizes: Sequence[float], ratios: Sequence[float]) -> Tensor:
    """(ratios * sizes, 4) boxes around the origin."""
    roots = torch.tensor(ratios, dtype=torch.float32).sqrt()
    lengths = torch.tensor(sizes, dtype=torch.float32)
    half_w, half_h = ((1 / roots)[:, None] * lengths).flatten() / 2, (roots[:, None] * lengths).flatten() / 2
    return torch.stack([-half_w, -half_h, half_w, half_h], dim=1)
