"""Boxes (..., 4) float32: x0, y0, x1, y1 in pixels of the network input."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

LARGEST_STEP = math.log(1000 / 16)
"""Of ``dw`` and ``dh``, so that a box grows at most 62.5 times: detectron2, torchvision, and mmdetection (ratio 0.016)."""


def apply_deltas(boxes: Tensor, deltas: Tensor, stds: Sequence[float], *, clamp_below: bool) -> Tensor:
    """Move and scale ``boxes`` by ``deltas`` (..., 4) dx, dy, dw, dh, which are in units of ``stds``.

    ``clamp_below``: shrinking has the limit of growing, too (mmdetection only).
    """
    deltas = deltas * torch.tensor(stds, dtype=deltas.dtype, device=deltas.device)
    size = boxes[..., 2:] - boxes[..., :2]
    centre = boxes[..., :2] + size * 0.5
    steps = deltas[..., 2:].clamp(min=-LARGEST_STEP if clamp_below else None, max=LARGEST_STEP)
    centre, half = centre + deltas[..., :2] * size, size * steps.exp() * 0.5
    return torch.cat([centre - half, centre + half], dim=-1)


def clip(boxes: Tensor, content_size: Tensor) -> Tensor:
    """Into the content, ``content_size`` (2,) = height, width."""
    limits = content_size.to(boxes.dtype).flip(0).repeat(2)
    return torch.minimum(boxes.clamp(min=0.0), limits)


def larger_than(boxes: Tensor, smallest: float) -> Tensor:
    """(...) bool: both sides above ``smallest`` pixels."""
    return ((boxes[..., 2:] - boxes[..., :2]) > smallest).all(dim=-1)


def encode(boxes: Tensor, targets: Tensor, stds: Sequence[float]) -> Tensor:
    """The deltas (..., 4) that turn ``boxes`` into ``targets``: the inverse of :func:`apply_deltas`, for training."""
    size, wanted = (each[..., 2:] - each[..., :2] for each in (boxes, targets))
    shift = (targets[..., :2] + 0.5 * wanted - boxes[..., :2] - 0.5 * size) / size
    return torch.cat([shift, (wanted / size).log()], dim=-1) / torch.tensor(stds, dtype=boxes.dtype, device=boxes.device)


def iou(first: Tensor, second: Tensor) -> Tensor:
    """Intersection over union of every pair: (..., n, 4) and (..., m, 4) to (..., n, m); NaN for two boxes without area."""
    low = torch.maximum(first[..., :, None, :2], second[..., None, :, :2])
    high = torch.minimum(first[..., :, None, 2:], second[..., None, :, 2:])
    sides = (high - low).clamp(min=0)
    both = sides[..., 0] * sides[..., 1]
    return both / (area(first)[..., :, None] + area(second)[..., None, :] - both)


def area(boxes: Tensor) -> Tensor:
    """(...) square pixels."""
    return (boxes[..., 2] - boxes[..., 0]) * (boxes[..., 3] - boxes[..., 1])
