"""The losses of Mask R-CNN, for whole batches on the GPU.

Every image has room for the same number of objects; rows without one have class -1. Boxes (x0, y0, x1, y1) are in pixels of
the network input.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from segship.models.maskrcnn.network import MaskRCNN
from segship.models.parts.boxes import encode, iou


@dataclass(frozen=True)
class Objects:
    """Truth of a batch: `boxes` (b, m, 4) float32, `classes` (b, m) int64 or -1, and `ids` (b, h, w) int64: 0, or which
    object (from 1) a pixel belongs to."""

    boxes: Tensor
    classes: Tensor
    ids: Tensor

    @property
    def real(self) -> Tensor:
        """(b, m) bool."""
        return self.classes >= 0


@dataclass(frozen=True)
class Sampling:
    """How many anchors and RoIs of an image are learned from, and how many of them at most hold an object."""

    anchors: int = 256
    anchors_with: int = 128
    rois: int = 128
    rois_with: int = 48


def objects_of(ids: Tensor, classes: Tensor, smallest: int) -> Objects:
    """Boxes around the pixels of `ids` (b, h, w), objects of fewer than `smallest` pixels left out; `classes` (b, m)."""
    b, h, w = ids.shape
    flat, slots = ids.flatten(1), classes.shape[1] + 1
    y = torch.arange(h, device=ids.device)[:, None].expand(h, w).reshape(1, -1).expand(b, -1)
    x = torch.arange(w, device=ids.device)[None].expand(h, w).reshape(1, -1).expand(b, -1)

    def edge(values: Tensor, start: int, reduce: str) -> Tensor:
        blank = torch.full((b, slots), start, device=ids.device)
        return blank.scatter_reduce(1, flat, values, reduce)[:, 1:]

    low = [edge(each, max(h, w), "amin") for each in (x, y)]
    high = [edge(each, -1, "amax") + 1 for each in (x, y)]
    pixels = torch.zeros(b, slots, dtype=torch.int64, device=ids.device).scatter_add(1, flat, torch.ones_like(flat))[:, 1:]
    there = (pixels >= smallest) & (classes >= 0)
    boxes = torch.where(there[..., None], torch.stack([*low, *high], dim=-1).float(), 0.0)
    return Objects(boxes, torch.where(there, classes, -1), ids)


def losses(net: MaskRCNN, images: Tensor, truth: Objects, sampling: Sampling) -> dict[str, Tensor]:
    """The five losses of a batch (b, 3, h, w): proposals (objectness, boxes), classes, boxes, masks."""
    with torch.autocast(images.device.type, torch.bfloat16, enabled=images.is_cuda):
        levels = net.backbone(images)
        dense = [net.proposal_generator.rpn_head(level) for level in levels]
    levels, dense = [level.float() for level in levels], [(logits.float(), deltas.float()) for logits, deltas in dense]
    size = (images.shape[2], images.shape[3])
    anchors = net.proposal_generator.anchors(levels, size)
    logits, deltas = (torch.cat(part, dim=1) for part in zip(*dense, strict=True))
    found = proposal_losses(net, torch.cat(anchors), logits, deltas, truth, sampling)
    with torch.no_grad():
        proposals, _ = net.proposal_generator.choose(anchors, dense, torch.tensor(size, device=images.device))
    return found | roi_losses(net, levels, proposals, truth, sampling)


def proposal_losses(
    net: MaskRCNN, anchors: Tensor, logits: Tensor, deltas: Tensor, truth: Objects, sampling: Sampling
) -> dict[str, Tensor]:
    """Objectness of sampled anchors, and boxes of those that hold an object."""
    with torch.no_grad():
        overlap = _overlap(anchors.expand(len(logits), -1, -1), truth)
        best, which = overlap.max(dim=2)
        favourite = overlap.max(dim=1, keepdim=True).values.clamp(min=0.2)  # every object has its nearest anchor
        positive = (best >= 0.7) | (overlap >= favourite).any(dim=2)
        which = torch.where((overlap >= favourite).any(dim=2), (overlap >= favourite).float().argmax(dim=2), which)
        chosen = _drawn(positive, sampling.anchors_with)
        others = _drawn(~positive & (best < 0.3), sampling.anchors) & _room(chosen, sampling.anchors)
        targets = encode(anchors.expand(len(logits), -1, -1), _gathered(truth.boxes, which), net.proposal_generator.rules.stds)
    sampled = chosen | others
    objectness = functional.binary_cross_entropy_with_logits(logits[sampled], chosen[sampled].float())
    boxes = functional.smooth_l1_loss(deltas[chosen], targets[chosen], reduction="sum", beta=1 / 9) / sampled.sum().clamp(min=1)
    return {"objectness": objectness, "proposals": boxes}


def roi_losses(net: MaskRCNN, levels: list[Tensor], proposals: Tensor, truth: Objects, sampling: Sampling) -> dict[str, Tensor]:
    """Classes of sampled RoIs; boxes and masks of those that hold an object."""
    heads = net.roi_heads
    with torch.no_grad():
        rois = torch.cat([truth.boxes, proposals], dim=1)
        best, which = _overlap(rois, truth).max(dim=2)
        usable = (rois[..., 2:] > rois[..., :2]).all(dim=-1)
        chosen = _drawn(usable & (best >= 0.5), sampling.rois_with)
        sampled = chosen | (_drawn(usable & (best < 0.5), sampling.rois) & _room(chosen, sampling.rois))
        images = torch.arange(len(rois), device=rois.device)[:, None].expand(sampled.shape)[sampled]
        boxes, which, chosen = rois[sampled], which[sampled], chosen[sampled]
        n_classes = heads.box_predictor.bbox_pred.out_features // 4
        classes = torch.where(chosen, truth.classes[images, which], n_classes)
    with torch.autocast(boxes.device.type, torch.bfloat16, enabled=boxes.is_cuda):
        logits, deltas = heads.box_predictor(heads.box_head(heads.box_pooler(levels, boxes, images)))
        mask_logits = heads.mask_head(heads.mask_pooler(levels, boxes[chosen], images[chosen]))
    own = classes[chosen]
    targets = encode(boxes[chosen], truth.boxes[images, which][chosen], heads.rules.stds)
    rows = torch.arange(len(own), device=own.device)
    n = max(len(classes), 1)
    masks = _cut_masks(truth.ids, boxes[chosen], images[chosen], which[chosen] + 1, mask_logits.shape[-1])
    return {
        "classes": functional.cross_entropy(logits.float(), classes),
        "boxes": functional.smooth_l1_loss(deltas.float()[chosen][rows, own], targets, reduction="sum", beta=1.0) / n,
        "masks": functional.binary_cross_entropy_with_logits(mask_logits.float()[rows, own], masks, reduction="sum")
        / max(masks.numel(), 1),
    }


def _overlap(boxes: Tensor, truth: Objects) -> Tensor:
    """(b, n, m) IoU with every object, 0 where there is none."""
    return torch.where(truth.real[:, None], iou(boxes, truth.boxes), 0.0)


def _drawn(candidates: Tensor, n: int) -> Tensor:
    """At most `n` of each row's candidates (b, k) bool, at random."""
    keys = torch.where(candidates, torch.rand(candidates.shape, device=candidates.device), -1.0)
    least = keys.topk(min(n, keys.shape[1]), dim=1).values[:, -1:]
    return candidates & (keys >= least)


def _room(chosen: Tensor, total: int) -> Tensor:
    """(b, k) bool: a random share of all, as many as are left of `total` after the chosen ones."""
    share = 1 - chosen.sum(dim=1, keepdim=True) / total
    return torch.rand(chosen.shape, device=chosen.device) < share


def _gathered(boxes: Tensor, which: Tensor) -> Tensor:
    return boxes.gather(1, which[..., None].expand(-1, -1, 4))


def _cut_masks(ids: Tensor, boxes: Tensor, images: Tensor, own: Tensor, side: int) -> Tensor:
    """(r, side, side) 0 or 1: the object `own` (r,) of each RoI, seen through its box."""
    h, w = ids.shape[1:]
    scale = torch.tensor([w, h], device=boxes.device)
    low, high = boxes[:, :2] / scale, boxes[:, 2:] / scale
    steps = (torch.arange(side, device=boxes.device) + 0.5) / side
    x, y = (low[:, axis, None] + (high - low)[:, axis, None] * steps for axis in (0, 1))
    grid = torch.stack([x[:, None].expand(-1, side, -1), y[:, :, None].expand(-1, -1, side)], dim=-1) * 2 - 1
    whole = (ids[images] == own[:, None, None]).float()
    soft = functional.grid_sample(whole[:, None], grid, align_corners=False)[:, 0]
    return (soft >= 0.5).float()
