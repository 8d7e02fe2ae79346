"""Feature pyramid over a ResNet (Lin et al. 2017). Parameter names are those of detectron2 ``FPN``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from torch import Tensor, nn
from torch.nn import functional

from segship.models.parts.layers import ConvNorm
from segship.models.parts.resnet import ResNet

Top = Literal["none", "pool", "convs"]
"""What comes above P5: nothing, P6 by picking every second pixel of P5, or P6 and P7 by convolutions of stride 2."""


class ResNetFPN(nn.Module):
    """(n, 3, h, w) to P2 ... P5 (and P6, P7), each with ``channels`` channels, at strides 4, 8, 16, 32 (64, 128).

    Any height and width: the coarser level is enlarged to the finer one's exact size.
    """

    def __init__(self, bottom_up: ResNet, widths: Sequence[int], channels: int, top: Top) -> None:
        super().__init__()
        self.bottom_up, self.top = bottom_up, top
        for level, width in enumerate(widths, 2):
            self.add_module(f"fpn_lateral{level}", ConvNorm(width, channels, 1))
            self.add_module(f"fpn_output{level}", ConvNorm(channels, channels, 3))
        if top == "convs":
            self.top_block = TopBlock(channels)

    def forward(self, image: Tensor) -> list[Tensor]:
        stages = self.bottom_up(image)
        inner = self.get_submodule("fpn_lateral5")(stages[-1])
        levels = [self.get_submodule("fpn_output5")(inner)]
        for level in (4, 3, 2):
            lateral = self.get_submodule(f"fpn_lateral{level}")(stages[level - 2])
            inner = lateral + functional.interpolate(inner, size=lateral.shape[2:], mode="nearest")
            levels.insert(0, self.get_submodule(f"fpn_output{level}")(inner))
        return levels + self._above(levels[-1])

    def _above(self, p5: Tensor) -> list[Tensor]:
        if self.top == "none":
            return []
        if self.top == "pool":
            return [functional.max_pool2d(p5, kernel_size=1, stride=2)]
        levels: list[Tensor] = self.top_block(p5)
        return levels


class TopBlock(nn.Module):
    """P5 to P6 and P7 (detectron2 ``LastLevelP6P7`` over P5)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.p6 = ConvNorm(channels, channels, 3, stride=2)
        self.p7 = ConvNorm(channels, channels, 3, stride=2)

    def forward(self, p5: Tensor) -> list[Tensor]:
        p6 = self.p6(p5)
        return [p6, self.p7(functional.relu(p6))]
