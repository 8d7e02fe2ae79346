"""ResNet without its classifier (He et al. 2015), as detectron2, mmdetection and torchvision run it for inference.

Parameter names are detectron2's (``stem.conv1``, ``res2.0.conv1``, ``.norm``); :data:`FROM_TORCHVISION` renames the others'.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from torch import Tensor, nn
from torch.nn import functional

from segship.models.checkpoint import shape_of
from segship.models.parts.layers import ConvNorm, MakeNorm

FROM_TORCHVISION = (
    (r"^layer(\d)\.", lambda match: f"res{int(match[1]) + 1}."),
    (r"^(conv1|bn1)\.", lambda match: f"stem.{match[1]}."),
    (r"\bbn(\d)\.", r"conv\1.norm."),
    (r"\bdownsample\.0\.", "shortcut."),
    (r"\bdownsample\.1\.", "shortcut.norm."),
)
"""Patterns and replacements, in order, from torchvision's and mmdetection's keys (below the backbone) to ours."""


@dataclass(frozen=True)
class ResNetShape:
    """What the weights tell of a ResNet: blocks of each of the four stages, channels of the stem and behind each stage,
    inner channels of each stage's blocks, and whether blocks are bottlenecks (three convolutions) or basic (two)."""

    blocks: tuple[int, ...]
    stem: int
    inner: tuple[int, ...]
    widths: tuple[int, ...]
    bottleneck: bool

    @property
    def depth(self) -> int:
        """Number of weighted layers with the classifier: the number in the name."""
        return sum(self.blocks) * (3 if self.bottleneck else 2) + 2

    def as_facts(self) -> dict[str, Any]:
        """Plain values for :attr:`ModelSpec.hyperparameters`."""
        return {
            "blocks": list(self.blocks),
            "stem": self.stem,
            "inner": list(self.inner),
            "widths": list(self.widths),
            "bottleneck": self.bottleneck,
        }

    @classmethod
    def from_facts(cls, facts: Mapping[str, Any]) -> ResNetShape:
        """The inverse of :meth:`as_facts`; other entries are ignored."""
        return cls(
            tuple(facts["blocks"]), facts["stem"], tuple(facts["inner"]), tuple(facts["widths"]), bottleneck=facts["bottleneck"]
        )


def rename_torchvision(key: str) -> str:
    """Our name of a torchvision or mmdetection backbone key (without the prefix of the backbone itself)."""
    for pattern, replacement in FROM_TORCHVISION:
        key = re.sub(pattern, replacement, key)
    return key


def resnet_shape(tensors: Mapping[str, Tensor], prefix: str) -> ResNetShape:
    """Read the shape from tensors under our names.

    Raises :class:`segship.core.errors.BadCheckpoint` when a part is missing or no kernel.
    """

    def channels(key: str) -> int:
        return shape_of(tensors, f"{prefix}{key}", 4)[0]

    stages = (2, 3, 4, 5)
    bottleneck = f"{prefix}res2.0.conv3.weight" in tensors
    last = "conv3" if bottleneck else "conv2"
    return ResNetShape(
        blocks=tuple(_n_blocks(tensors.keys(), f"{prefix}res{stage}.") for stage in stages),
        stem=channels("stem.conv1.weight"),
        inner=tuple(channels(f"res{stage}.0.conv1.weight") for stage in stages),
        widths=tuple(channels(f"res{stage}.0.{last}.weight") for stage in stages),
        bottleneck=bottleneck,
    )


def _n_blocks(keys: Collection[str], prefix: str) -> int:
    numbers = {int(match[1]) for key in keys if (match := re.match(re.escape(prefix) + r"(\d+)\.", key))}
    return max(numbers, default=-1) + 1


class ResNet(nn.Module):
    """(n, 3, h, w) to the outputs of the four stages, at strides 4, 8, 16 and 32.

    ``stride_in_1x1``: a bottleneck halves the size in its first convolution (MSRA weights, detectron2's default) or in the
    3x3 one (torchvision, mmdetection ``style="pytorch"``). ``eps`` of the batch normalisations.
    """

    def __init__(self, shape: ResNetShape, *, stride_in_1x1: bool, eps: float = 1e-5) -> None:
        super().__init__()
        norm = partial(nn.BatchNorm2d, eps=eps)
        self.stem = Stem(shape.stem, norm)
        c_in = shape.stem
        for index, n_blocks in enumerate(shape.blocks):
            blocks: list[nn.Module] = []
            for block in range(n_blocks):
                stride = 2 if index > 0 and block == 0 else 1
                inner, width = shape.inner[index], shape.widths[index]
                if shape.bottleneck:
                    blocks.append(Bottleneck(c_in, inner, width, stride=stride, stride_in_1x1=stride_in_1x1, norm=norm))
                else:
                    blocks.append(Basic(c_in, width, stride=stride, norm=norm))
                c_in = width
            self.add_module(f"res{index + 2}", nn.Sequential(*blocks))

    def forward(self, image: Tensor) -> list[Tensor]:
        x = self.stem(image)
        stages = []
        for stage in (2, 3, 4, 5):
            x = self.get_submodule(f"res{stage}")(x)
            stages.append(x)
        return stages


class Stem(nn.Module):
    """7x7 convolution and 3x3 max pooling, both of stride 2: (n, 3, h, w) to (n, c_out, h / 4, w / 4)."""

    def __init__(self, c_out: int, norm: MakeNorm) -> None:
        super().__init__()
        self.conv1 = ConvNorm(3, c_out, 7, stride=2, norm=norm, relu=True)

    def forward(self, image: Tensor) -> Tensor:
        return functional.max_pool2d(self.conv1(image), kernel_size=3, stride=2, padding=1)


class Bottleneck(nn.Module):
    """1x1, 3x3, 1x1 with a shortcut."""

    def __init__(self, c_in: int, inner: int, c_out: int, *, stride: int, stride_in_1x1: bool, norm: MakeNorm) -> None:
        super().__init__()
        first, second = (stride, 1) if stride_in_1x1 else (1, stride)
        self.conv1 = ConvNorm(c_in, inner, 1, stride=first, norm=norm, relu=True)
        self.conv2 = ConvNorm(inner, inner, 3, stride=second, norm=norm, relu=True)
        self.conv3 = ConvNorm(inner, c_out, 1, norm=norm)
        self.shortcut = _shortcut(c_in, c_out, stride, norm)

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv3(self.conv2(self.conv1(x)))
        return functional.relu(y + (x if self.shortcut is None else self.shortcut(x)))


class Basic(nn.Module):
    """3x3, 3x3 with a shortcut (ResNet-18 and -34)."""

    def __init__(self, c_in: int, c_out: int, *, stride: int, norm: MakeNorm) -> None:
        super().__init__()
        self.conv1 = ConvNorm(c_in, c_out, 3, stride=stride, norm=norm, relu=True)
        self.conv2 = ConvNorm(c_out, c_out, 3, norm=norm)
        self.shortcut = _shortcut(c_in, c_out, stride, norm)

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv2(self.conv1(x))
        return functional.relu(y + (x if self.shortcut is None else self.shortcut(x)))


def _shortcut(c_in: int, c_out: int, stride: int, norm: MakeNorm) -> nn.Module | None:
    return ConvNorm(c_in, c_out, 1, stride=stride, norm=norm) if stride != 1 or c_in != c_out else None
