"""The convolution that detectron2 builds everything from, and resizing as its heads do it."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor, nn
from torch.nn import functional

MakeNorm = Callable[[int], nn.Module]
"""From a number of channels to a normalisation layer."""


MAX_GROUPS = 32
"""Groups of detectron2 ``get_norm("GN")``."""


def group_norm(channels: int) -> nn.Module:
    """:data:`MAX_GROUPS` groups, or as many as there are channels in a narrow network."""
    return nn.GroupNorm(min(MAX_GROUPS, channels), channels)


class ConvNorm(nn.Conv2d):
    """A convolution, then its normalisation, then ReLU, each of the latter optional: (n, c_in, h, w) to (n, c_out, h', w').

    Parameter names ``weight``, ``bias``, ``norm.*`` are those of detectron2 ``layers.Conv2d``. Padding keeps the size at
    stride 1. Without normalisation there is a bias.
    """

    def __init__(
        self,
        c_in: int,
        c_out: int,
        kernel: int,
        *,
        stride: int = 1,
        norm: MakeNorm | None = None,
        relu: bool = False,
    ) -> None:
        super().__init__(c_in, c_out, kernel, stride=stride, padding=kernel // 2, bias=norm is None)
        self.norm = norm(c_out) if norm is not None else None
        self.relu = relu

    def forward(self, x: Tensor) -> Tensor:
        x = super().forward(x)
        if self.norm is not None:
            x = self.norm(x)
        return functional.relu(x) if self.relu else x


class Upsample2(nn.Module):
    """Twice the size, bilinear with half-pixel centres."""

    def forward(self, x: Tensor) -> Tensor:
        return functional.interpolate(x, scale_factor=2.0, mode="bilinear", align_corners=False)
