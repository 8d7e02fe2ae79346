"""The PointRend network for semantic segmentation (Kirillov et al., 2020, https://arxiv.org/abs/1912.08193).

Parameter names are those of detectron2's ``SemanticSegmentor`` with ``PointRendSemSegHead`` (projects/PointRend, revision
02b5c4e), so its checkpoints load as they are.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from segship.models.parts.fpn import ResNetFPN
from segship.models.parts.layers import ConvNorm
from segship.models.parts.resnet import ResNet, ResNetShape
from segship.models.parts.semantic_fpn import SemanticFPN


class PointRend(nn.Module):
    """(n, 3, h, w), multiples of 32, to logits (n, n_classes, h, w).

    That is with two ``subdivision_steps``, as published; each of them doubles the coarse logits, (n, n_classes, h/4, w/4).

    ``fc``: channels of the point head's layers. ``stride_in_1x1``: see :class:`ResNet`.
    """

    def __init__(
        self,
        shape: ResNetShape,
        *,
        n_classes: int,
        fpn_channels: int,
        head_channels: int,
        fc: Sequence[int],
        coarse_pred_each_layer: bool,
        stride_in_1x1: bool,
        subdivision_steps: int,
        subdivision_points: int,
    ) -> None:
        super().__init__()
        self.backbone = ResNetFPN(ResNet(shape, stride_in_1x1=stride_in_1x1), shape.widths, fpn_channels, "none")
        coarse = CoarseHead(fpn_channels, head_channels, n_classes)
        point_head = PointHead(fpn_channels, n_classes, fc, coarse_pred_each_layer=coarse_pred_each_layer)
        self.sem_seg_head = PointRendHead(coarse, point_head, Subdivision(subdivision_points), subdivision_steps)

    def forward(self, image: Tensor) -> Tensor:
        logits: Tensor = self.sem_seg_head(self.backbone(image))
        return logits


class PointRendHead(nn.Module):
    """P2 ... P5 to logits at twice P2's size in every step."""

    def __init__(self, coarse: CoarseHead, point_head: PointHead, subdivision: Subdivision, steps: int) -> None:
        super().__init__()
        self.coarse_sem_seg_head, self.point_head = coarse, point_head
        self.subdivision, self.steps = subdivision, steps

    def forward(self, levels: Sequence[Tensor]) -> Tensor:
        coarse = self.coarse_sem_seg_head(levels)
        logits: Tensor = coarse
        for _ in range(self.steps):
            logits = self.subdivision(logits, coarse, levels[0], self.point_head)
        return logits


class CoarseHead(SemanticFPN):
    """P2 ... P5 to logits (n, n_classes, h / 4, w / 4)."""

    def __init__(self, c_in: int, channels: int, n_classes: int) -> None:
        super().__init__(c_in, channels)
        self.predictor = ConvNorm(channels, n_classes, 1)

    def forward(self, levels: Sequence[Tensor]) -> Tensor:
        logits: Tensor = self.predictor(super().forward(levels))
        return logits


class PointHead(nn.Module):
    """Fine features (n, c, points) and coarse logits (n, n_classes, points) to logits (n, n_classes, points).

    ``coarse_pred_each_layer``: every layer sees the coarse logits, not only the first.
    """

    def __init__(self, c_in: int, n_classes: int, fc: Sequence[int], *, coarse_pred_each_layer: bool) -> None:
        super().__init__()
        self.n_fc, self.coarse_pred_each_layer = len(fc), coarse_pred_each_layer
        again = n_classes if coarse_pred_each_layer else 0
        c_in += n_classes
        for index, width in enumerate(fc, 1):
            self.add_module(f"fc{index}", nn.Conv1d(c_in, width, 1))
            c_in = width + again
        self.predictor = nn.Conv1d(c_in, n_classes, 1)

    def forward(self, fine: Tensor, coarse: Tensor) -> Tensor:
        x = torch.cat([fine, coarse], dim=1)
        for index in range(1, self.n_fc + 1):
            x = functional.relu(self.get_submodule(f"fc{index}")(x))
            if self.coarse_pred_each_layer:
                x = torch.cat([x, coarse], dim=1)
        logits: Tensor = self.predictor(x)
        return logits


class Subdivision(nn.Module):
    """Logits at twice the size, the point head's own where they were most uncertain.

    ``logits`` (n, c, h, w), ``coarse`` (n, c, h0, w0) and ``fine`` (n, c_fine, h0, w0), both the original ones in every step,
    to (n, c, 2 h, 2 w). At most ``n_points`` points of each image are replaced.
    """

    def __init__(self, n_points: int) -> None:
        super().__init__()
        self.n_points = n_points

    def forward(self, logits: Tensor, coarse: Tensor, fine: Tensor, point_head: nn.Module) -> Tensor:
        logits = functional.interpolate(logits, scale_factor=2.0, mode="bilinear", align_corners=False)
        n, c, h, w = logits.shape
        logits = logits.flatten(2)  # before classes are taken apart: in rows of pixels that copies nothing
        n_points: int = torch.sym_min(self.n_points, h * w)  # type: ignore[no-untyped-call]  # sizes are symbols in an export
        points = torch.topk(uncertainty(logits).flatten(1), n_points, dim=1, sorted=False).indices  # their order plays no part
        where = grid_centres(points, h, w)
        refined = point_head(point_sample(fine, where), point_sample(coarse, where))
        index = points[:, None].expand(-1, c, -1)
        return logits.scatter(2, index, refined).view(n, c, h, w)


def uncertainty(logits: Tensor) -> Tensor:
    """(n, c, ...) to (n, 1, ...): second-best minus best logit, at most 0 and 0 at a tie (``calculate_uncertainty``).

    One pass over the classes with two running maxima gives exactly what ``topk(2, dim=1)`` does, which runtimes implement
    with strided reads and a heap for each pixel; this is a chain of elementwise operators that they fuse.
    """
    first, other, *others = logits.chunk(logits.shape[1], dim=1)
    best, second = torch.maximum(first, other), torch.minimum(first, other)
    for each in others:
        second = torch.maximum(second, torch.minimum(best, each))
        best = torch.maximum(best, each)
    return second - best


def grid_centres(points: Tensor, h: int, w: int) -> Tensor:
    """Flat indices (n, points) of an (h, w) grid to their pixels' centres, x and y in -1 ... 1: (n, points, 1, 2)."""
    width, height = points.new_full((), w), points.new_full((), h)  # the exporter knows no remainder by a symbolic number
    x = points % width
    y = (points - x) / width  # exact, and no rounding division of integers, which the exporter spells out in nine nodes
    return torch.stack([(2 * x + 1) / width - 1, (2 * y + 1) / height - 1], dim=2)[:, :, None]


def point_sample(features: Tensor, where: Tensor) -> Tensor:
    """(n, c, h, w) at (n, points, 1, 2), bilinear with zeros beyond the edge, to (n, c, points)."""
    return functional.grid_sample(features, where, mode="bilinear", padding_mode="zeros", align_corners=False).squeeze(3)
