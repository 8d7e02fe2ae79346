"""The heads of Panoptic FCN: where objects and stuff are, their kernels, and the features that kernels are laid over.

Parameter names are the official ones (``panopticfcn/head.py``), but for two things that the reader changes: the kernel of
a first convolution that sees coordinates comes in two parts (see :class:`CoordConv`), that of a deformable convolution as a
1x1 kernel (see :class:`segship.models.parts.deform_conv.DeformConv`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from segship.models.parts.deform_conv import DeformConv
from segship.models.parts.layers import ConvNorm, group_norm


@dataclass(frozen=True)
class HeadShape:
    """What the weights tell of a head's convolutions: their number and channels, whether the first one sees the pixel
    coordinates, whether they are deformable, and whether each has a group normalisation (else a bias)."""

    convs: int
    channels: int
    coord: bool
    deform: bool
    norm: bool

    def as_facts(self, name: str) -> dict[str, Any]:
        """Plain values for :attr:`ModelSpec.hyperparameters`."""
        return {f"{name}_{fact}": value for fact, value in asdict(self).items()}

    @classmethod
    def from_facts(cls, facts: Mapping[str, Any], name: str) -> HeadShape:
        """The inverse of :meth:`as_facts`; other entries are ignored."""
        return cls(**{field.name: facts[f"{name}_{field.name}"] for field in fields(cls)})


class CoordConv(nn.Module):
    """A 3x3 convolution, normalisation and ReLU over the features and two channels of coordinates (Liu et al. 2018).

    The coordinates are the same for every image, so their part of the convolution is a map of its own, added to the
    features' part: nothing is concatenated, and a runtime that knows the size computes the map once.
    """

    def __init__(self, c_in: int, c_out: int, *, norm: bool) -> None:
        super().__init__()
        self.features = nn.Conv2d(c_in, c_out, 3, padding=1, bias=not norm)
        self.coordinates = nn.Conv2d(2, c_out, 3, padding=1, bias=False)
        self.norm = group_norm(c_out) if norm else None

    def forward(self, x: Tensor) -> Tensor:
        y = self.features(x) + self.coordinates(coordinates(x))
        return functional.relu(y if self.norm is None else self.norm(y))


def coordinates(like: Tensor) -> Tensor:
    """(1, 2, h, w): the row, then the column, of each pixel, from -1 at the first to 1 at the last."""
    h, w = like.shape[2:]
    rows, columns = _ramp(h, like).reshape(1, 1, h, 1), _ramp(w, like).reshape(1, 1, 1, w)
    return torch.cat([rows.expand(1, 1, h, w), columns.expand(1, 1, h, w)], dim=1)


def _ramp(n: int, like: Tensor) -> Tensor:
    """``linspace(-1, 1, n)``, which is -1 for n = 1."""
    steps = torch.arange(n, device=like.device, dtype=like.dtype)
    return steps * 2 / steps[-1].clamp(min=1.0) - 1  # the last step is n - 1: a free size stays out of Python arithmetic


class Head(nn.Module):
    """Some 3x3 convolutions with ReLU, named ``{name}_head_1``, ... : (n, c_in, h, w) to (n, shape.channels, h, w)."""

    def __init__(self, c_in: int, shape: HeadShape, name: str) -> None:
        super().__init__()
        self._joins = shape.coord and shape.deform  # samples of moved coordinates are no constant map
        for index in range(shape.convs):
            first = shape.channels if index else c_in + (2 if self._joins else 0)
            self.add_module(f"{name}_head_{index + 1}", _conv(first, shape, coord=shape.coord and index == 0))

    def forward(self, x: Tensor) -> Tensor:
        if self._joins:
            x = torch.cat([x, coordinates(x).expand(x.shape[0], -1, -1, -1)], dim=1)
        for conv in self.children():
            x = conv(x)
        return x


def _conv(c_in: int, shape: HeadShape, *, coord: bool) -> nn.Module:
    norm = group_norm if shape.norm else None
    if shape.deform:
        return DeformConv(c_in, shape.channels, norm=norm, relu=True)
    if coord:
        return CoordConv(c_in, shape.channels, norm=shape.norm)
    return ConvNorm(c_in, shape.channels, 3, norm=norm, relu=True)


class PositionHead(nn.Module):
    """(n, c_in, h, w) to logits of object centres (n, n_things, h, w) and of stuff regions (n, n_stuff, h, w)."""

    def __init__(self, c_in: int, shape: HeadShape, n_things: int, n_stuff: int) -> None:
        super().__init__()
        self.position_head = Head(c_in, shape, "position_head")
        self.out_inst = ConvNorm(shape.channels, n_things, 3)
        self.out_sem = ConvNorm(shape.channels, n_stuff, 3)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        x = self.position_head(x)
        return self.out_inst(x), self.out_sem(x)


class KernelHead(nn.Module):
    """(n, c_in, h, w) to the kernel of each position, (n, shape.channels, h, w)."""

    def __init__(self, c_in: int, shape: HeadShape) -> None:
        super().__init__()
        self.kernel_head = Head(c_in, shape, "kernel_head")
        self.out_conv = ConvNorm(shape.channels, shape.channels, 3)

    def forward(self, x: Tensor) -> Tensor:
        return cast(Tensor, self.out_conv(self.kernel_head(x)))


class FeatureEncoder(nn.Module):
    """(n, c_in, h, w) to the features that kernels are laid over, (n, shape.channels, h, w)."""

    def __init__(self, c_in: int, shape: HeadShape) -> None:
        super().__init__()
        self.encode_head = Head(c_in, shape, "encode_head")

    def forward(self, x: Tensor) -> Tensor:
        return cast(Tensor, self.encode_head(x))
