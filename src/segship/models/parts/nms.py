"""Greedy non-maximum suppression without a loop over boxes, on any device."""

from __future__ import annotations

import torch
from torch import Tensor

PAIRS_AT_ONCE = {"cpu": 1 << 20, "cuda": 1 << 26}
"""Box pairs that are compared in one step: on a CPU their IoU matrix stays in the cache, on a GPU launches are few."""


def nms_keep(boxes: Tensor, scores: Tensor, iou_threshold: float, score_threshold: float) -> Tensor:
    """Which boxes survive: boxes (g, n, 4) and scores (g, n) to (g, n) bool; the g groups do not see one another.

    A box is dropped when its score is not above ``score_threshold``, or when a surviving box of higher score (at a tie: of
    lower index) overlaps it by an IoU above ``iou_threshold``. Boxes without area neither drop others nor are dropped.
    Source: torchvision ``nms_kernel.cpp``, mmcv ``nms.cpp`` with offset 0.
    """
    candidate = scores > score_threshold
    counts, groups = candidate.sum(1).sort(descending=True)
    keep = torch.zeros_like(candidate)
    sizes, at_once = counts.tolist(), PAIRS_AT_ONCE.get(boxes.device.type, 1 << 20)
    start, stop = 0, sum(size > 0 for size in sizes)
    while start < stop:
        longest = sizes[start]
        chunk = groups[start : start + max(1, at_once // longest**2)]
        keep[chunk] = _keep(boxes[chunk], scores[chunk], candidate[chunk], iou_threshold, longest)
        start += len(chunk)
    return keep & candidate


def _keep(boxes: Tensor, scores: Tensor, candidate: Tensor, iou_threshold: float, longest: int) -> Tensor:
    """(g, n) bool for groups of at most ``longest`` candidates each."""
    order = scores.masked_fill(~candidate, -torch.inf).sort(dim=1, descending=True, stable=True).indices[:, :longest]
    ordered = boxes.gather(1, order[..., None].expand(-1, -1, 4))
    survives = _survivors(_overlap(ordered, iou_threshold), candidate.gather(1, order))
    return torch.zeros_like(candidate).scatter(1, order, survives)


def _overlap(boxes: Tensor, iou_threshold: float) -> Tensor:
    """(g, k, k) float: 1 where box i overlaps the later box j by more than the threshold."""
    x0, y0, x1, y1 = boxes.unbind(-1)
    area = (x1 - x0) * (y1 - y0)
    w = torch.minimum(x1[:, :, None], x1[:, None]).sub_(torch.maximum(x0[:, :, None], x0[:, None])).clamp_(min=0)
    h = torch.minimum(y1[:, :, None], y1[:, None]).sub_(torch.maximum(y0[:, :, None], y0[:, None])).clamp_(min=0)
    both = w.mul_(h)
    union = (area[:, :, None] + area[:, None]).sub_(both)
    return both.div_(union).gt(iou_threshold).triu_(1).float()  # without area: 0 / 0 is NaN, which is not above


def _survivors(overlap: Tensor, candidate: Tensor) -> Tensor:
    """Repeat "a box survives if no survivor before it overlaps it" until nothing changes.

    After step i the first i boxes are settled for good, so this ends, with the greedy result; in practice after a few steps.
    """
    alive = candidate
    while True:
        after = candidate & (alive[:, None].float() @ overlap).squeeze(1).eq(0)
        if torch.equal(after, alive):
            return alive
        alive = after
