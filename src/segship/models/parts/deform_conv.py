"""Modulated deformable convolution (Zhu et al. 2018, "Deformable ConvNets v2") from operators that every runtime has.

A 3x3 deformable convolution is: sample the input at nine moved positions around each pixel, weigh each sample, and mix
them. The sampling is :func:`torch.nn.functional.grid_sample` with zero padding, whose rule is that of the CUDA kernel in
detectron2 (``deform_conv_cuda_kernel.cu``, ``dmcn_im2col_bilinear``): a corner outside the map counts as 0. The mixing is a
1x1 convolution over nine times the channels, so quantisers and runtimes see an ordinary convolution.
"""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from segship.models.parts.layers import ConvNorm, MakeNorm

_TAPS = 9


class DeformConv(nn.Module):
    """(n, c_in, h, w) to (n, c_out, h, w): 3x3, stride 1, padding 1, one deformable group.

    Parameter names are those of Panoptic FCN's ``ModulatedDeformConvWithOff``; ``dcnv2.weight`` is (c_out, 9 * c_in, 1, 1),
    see :func:`as_pointwise`. Of the 27 channels of ``offset_mask_conv``, 18 are offsets in pixels (dy, dx of each tap in
    turn) and 9 the logits of the taps' weights.
    """

    def __init__(self, c_in: int, c_out: int, *, norm: MakeNorm | None = None, relu: bool = False) -> None:
        super().__init__()
        self.offset_mask_conv = nn.Conv2d(c_in, 3 * _TAPS, 3, padding=1)
        self.dcnv2 = ConvNorm(_TAPS * c_in, c_out, 1, norm=norm, relu=relu)

    def forward(self, x: Tensor) -> Tensor:
        moves = self.offset_mask_conv(x)
        taps = sampled(x, moves[:, : 2 * _TAPS], torch.sigmoid(moves[:, 2 * _TAPS :]))
        return cast(Tensor, self.dcnv2(taps))


def as_pointwise(weight: Tensor) -> Tensor:
    """A 3x3 kernel (c_out, c_in, 3, 3) as the 1x1 kernel (c_out, 9 * c_in, 1, 1) over the samples of :func:`sampled`."""
    return weight.reshape(weight.shape[0], -1, 1, 1)


def sampled(x: Tensor, offsets: Tensor, weights: Tensor) -> Tensor:
    """The nine samples around each pixel: x (n, c, h, w) to (n, c * 9, h, w), the taps of one channel side by side.

    ``offsets`` (n, 18, h, w) in pixels, dy and dx of each tap in turn, taps in reading order; ``weights`` (n, 9, h, w).
    """
    n, c, h, w = x.shape
    moves = offsets.reshape(n, _TAPS, 2, h * w)
    rows, columns = _positions(h, w, x)
    # align_corners=False: -1 and 1 are the outer edges, pixel centres lie half a pixel inside; works for a side of 1, too
    y = (rows + moves[:, :, 0] + 0.5) * (2.0 / h) - 1.0
    z = (columns + moves[:, :, 1] + 0.5) * (2.0 / w) - 1.0
    taps = functional.grid_sample(x, torch.stack([z, y], dim=-1), mode="bilinear", padding_mode="zeros", align_corners=False)
    return (taps * weights.reshape(n, 1, _TAPS, h * w)).reshape(n, c * _TAPS, h, w)


def _positions(h: int, w: int, like: Tensor) -> tuple[Tensor, Tensor]:
    """Where the taps of an ordinary convolution lie: rows and columns, each (9, h * w), in pixels."""
    steps = torch.arange(3, device=like.device, dtype=like.dtype) - 1
    rows = steps.reshape(3, 1, 1, 1) + torch.arange(h, device=like.device, dtype=like.dtype).reshape(1, 1, h, 1)
    columns = steps.reshape(1, 3, 1, 1) + torch.arange(w, device=like.device, dtype=like.dtype).reshape(1, 1, 1, w)
    whole = (3, 3, h, w)
    return rows.expand(whole).reshape(_TAPS, h * w), columns.expand(whole).reshape(_TAPS, h * w)
