"""The SegFormer network (Xie et al., 2021, https://arxiv.org/abs/2105.15203).

Parameter names are those of the official code (https://github.com/NVlabs/SegFormer, revision 65fa8cf), so its
checkpoints load as they are; so is the order of operations and memory layouts, since this is the baseline of every
speed-up. Faster orders are the graph passes' business. Tokens are (n, h*w, c), maps are (n, c, h, w).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional


class PatchEmbed(nn.Module):
    """Overlapping patches: a strided convolution, then LayerNorm over channels."""

    def __init__(self, c_in: int, c_out: int, kernel: int, stride: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(c_in, c_out, kernel, stride, padding=kernel // 2)
        self.norm = nn.LayerNorm(c_out)  # eps 1e-5: the official code leaves PyTorch's default here

    def forward(self, x: Tensor) -> tuple[Tensor, int, int]:
        x = self.proj(x)  # (n, c, h, w)
        h, w = x.shape[2], x.shape[3]
        return self.norm(_tokens(x)), h, w


class Attention(nn.Module):
    """Self-attention whose keys and values are taken from a map reduced ``sr_ratio`` times."""

    def __init__(self, dim: int, heads: int, sr_ratio: int) -> None:
        super().__init__()
        self.heads, self.scale = heads, (dim // heads) ** -0.5
        self.q = nn.Linear(dim, dim)
        self.kv = nn.Linear(dim, dim * 2)
        self.proj = nn.Linear(dim, dim)
        self.reduced = sr_ratio > 1
        if self.reduced:
            self.sr = nn.Conv2d(dim, dim, kernel_size=sr_ratio, stride=sr_ratio)
            self.norm = nn.LayerNorm(dim)  # eps 1e-5, as in PatchEmbed

    def forward(self, x: Tensor, h: int, w: int) -> Tensor:
        n, _, c = x.shape
        q = self.q(x).reshape(n, h * w, self.heads, c // self.heads).permute(0, 2, 1, 3)  # (n, heads, tokens, c/heads)
        if self.reduced:
            x = self.norm(_tokens(self.sr(_map(x, h, w))))
        kv = self.kv(x).reshape(n, x.shape[1], 2, self.heads, c // self.heads).permute(2, 0, 3, 1, 4)
        attention = torch.softmax((q @ kv[0].transpose(-2, -1)) * self.scale, dim=-1)
        y: Tensor = self.proj((attention @ kv[1]).transpose(1, 2).reshape(n, h * w, c))
        return y


class DepthwiseConv(nn.Module):
    """3x3 depthwise convolution on tokens: gives the network its sense of position."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.dwconv = nn.Conv2d(dim, dim, 3, padding=1, groups=dim)

    def forward(self, x: Tensor, h: int, w: int) -> Tensor:
        return _tokens(self.dwconv(_map(x, h, w)))


class MixFFN(nn.Module):
    """Linear, depthwise convolution, exact GELU, linear."""

    def __init__(self, dim: int, hidden: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(dim, hidden)
        self.dwconv = DepthwiseConv(hidden)
        self.fc2 = nn.Linear(hidden, dim)

    def forward(self, x: Tensor, h: int, w: int) -> Tensor:
        y: Tensor = self.fc2(functional.gelu(self.dwconv(self.fc1(x), h, w)))
        return y


class Block(nn.Module):
    """Pre-norm transformer block."""

    def __init__(self, dim: int, heads: int, hidden: int, sr_ratio: int, eps: float) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(dim, eps=eps)
        self.attn = Attention(dim, heads, sr_ratio)
        self.norm2 = nn.LayerNorm(dim, eps=eps)
        self.mlp = MixFFN(dim, hidden)

    def forward(self, x: Tensor, h: int, w: int) -> Tensor:
        x = x + self.attn(self.norm1(x), h, w)
        y: Tensor = x + self.mlp(self.norm2(x), h, w)
        return y


class MixTransformer(nn.Module):
    """The encoder: (n, 3, h, w) to four maps at strides 4, 8, 16, 32."""

    def __init__(
        self,
        dims: Sequence[int],
        depths: Sequence[int],
        heads: Sequence[int],
        hidden: Sequence[int],
        sr_ratios: Sequence[int],
        eps: float,
    ) -> None:
        super().__init__()
        self.depths = tuple(depths)
        for stage in range(4):
            c_in = dims[stage - 1] if stage else 3
            patch = PatchEmbed(c_in, dims[stage], kernel=3 if stage else 7, stride=2 if stage else 4)
            blocks = [Block(dims[stage], heads[stage], hidden[stage], sr_ratios[stage], eps) for _ in range(depths[stage])]
            self.add_module(f"patch_embed{stage + 1}", patch)
            self.add_module(f"block{stage + 1}", nn.ModuleList(blocks))
            self.add_module(f"norm{stage + 1}", nn.LayerNorm(dims[stage], eps=eps))

    def forward(self, x: Tensor) -> list[Tensor]:
        maps = []
        for stage in range(1, 5):
            x, h, w = self.get_submodule(f"patch_embed{stage}")(x)
            for index in range(self.depths[stage - 1]):
                x = self.get_submodule(f"block{stage}.{index}")(x, h, w)
            x = self.get_submodule(f"norm{stage}")(x).reshape(x.shape[0], h, w, -1).permute(0, 3, 1, 2).contiguous()
            maps.append(x)
        return maps


class Projection(nn.Module):
    """The head's per-stage linear layer, on maps."""

    def __init__(self, c_in: int, c_out: int) -> None:
        super().__init__()
        self.proj = nn.Linear(c_in, c_out)

    def forward(self, x: Tensor) -> Tensor:
        return _map(self.proj(_tokens(x)), x.shape[2], x.shape[3])


class Fuse(nn.Module):
    """1x1 convolution without bias, BatchNorm, ReLU."""

    def __init__(self, c_in: int, c_out: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(c_in, c_out, 1, bias=False)
        self.bn = nn.BatchNorm2d(c_out)

    def forward(self, x: Tensor) -> Tensor:
        return functional.relu(self.bn(self.conv(x)))


class Head(nn.Module):
    """Project the four maps to one width, resize to stride 4, concatenate from deep to shallow, fuse, predict."""

    def __init__(self, dims: Sequence[int], width: int, n_classes: int) -> None:
        super().__init__()
        self.linear_c4, self.linear_c3 = Projection(dims[3], width), Projection(dims[2], width)
        self.linear_c2, self.linear_c1 = Projection(dims[1], width), Projection(dims[0], width)
        self.linear_fuse = Fuse(4 * width, width)
        self.linear_pred = nn.Conv2d(width, n_classes, 1)

    def forward(self, maps: list[Tensor]) -> Tensor:
        c1, c2, c3, c4 = maps
        size = c1.shape[2:]
        parts = [_resized(self.linear_c4(c4), size), _resized(self.linear_c3(c3), size), _resized(self.linear_c2(c2), size)]
        logits: Tensor = self.linear_pred(self.linear_fuse(torch.cat([*parts, self.linear_c1(c1)], dim=1)))
        return logits


class SegFormer(nn.Module):
    """(n, 3, h, w) float32 to logits (n, n_classes, ceil(h/4), ceil(w/4)).

    ``hidden``: the Mix-FFN's inner width at each stage. ``layer_norm_eps`` is that of the blocks' and the stages' norms:
    1e-6 in the official code, 1e-5 in Hugging Face transformers; the other norms have 1e-5 in both.
    """

    def __init__(
        self,
        n_classes: int,
        dims: Sequence[int],
        depths: Sequence[int],
        heads: Sequence[int],
        hidden: Sequence[int],
        sr_ratios: Sequence[int],
        head_width: int,
        layer_norm_eps: float,
    ) -> None:
        super().__init__()
        self.backbone = MixTransformer(dims, depths, heads, hidden, sr_ratios, layer_norm_eps)
        self.decode_head = Head(dims, head_width, n_classes)

    def forward(self, image: Tensor) -> Tensor:
        logits: Tensor = self.decode_head(self.backbone(image))
        return logits


def _tokens(x: Tensor) -> Tensor:
    return x.flatten(2).transpose(1, 2)


def _map(x: Tensor, h: int, w: int) -> Tensor:
    return x.transpose(1, 2).reshape(x.shape[0], x.shape[2], h, w)


def _resized(x: Tensor, size: torch.Size) -> Tensor:
    return functional.interpolate(x, size=size, mode="bilinear", align_corners=False)
