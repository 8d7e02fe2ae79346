"""What Panoptic FCN is taught, for a whole batch at once (dvlab-research/PanopticFCN, ``gt_generate.py``, ``loss.py``).

Object centres are Gaussian spots on the levels that an object's size belongs to; stuff regions are the down-sampled label
map; both by focal loss. Kernels are taught through the masks that they draw, by a Dice loss: an object's by those of its
few best positions, weighted by their centre scores.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from segship.models.panopticfcn.kernels import Level
from segship.models.panopticfcn.network import PanopticFCN

SCALES = ((1, 64), (32, 128), (64, 256), (128, 512), (256, 2048))
"""Sizes, the root of the box in pixels of the network input, that each level P3 ... P7 learns: KERNEL_HEAD.INSTANCE_SCALES."""

POSITIONS = 3  # POSITION_HEAD.THING.POS_NUM of the configurations for small images
MIN_OVERLAP, SIGMA_FACTOR = 0.7, 3.0
ALPHA, GAMMA = 0.25, 2.0
SEGMENT_WEIGHT = 3.0
STRIDE = 4


@dataclass(frozen=True)
class Truth:
    """A batch's truth at a quarter of the network input's size: ``masks`` (b, n, h, w) shares of each object, ``classes`` (b, n)
    of the objects, ``centres`` (b, n, 2) and ``boxes`` (b, n, 2) as x, y in cells, ``real`` (b, n) which objects are there,
    and ``stuff`` (b, n_stuff, h, w) shares, class 0 being all things."""

    masks: Tensor
    classes: Tensor
    centres: Tensor
    boxes: Tensor
    real: Tensor
    stuff: Tensor


def truth_of(objects: Tensor, things: Tensor, stuff: Tensor, n_stuff: int) -> Truth:
    """From maps (b, 2 h, 2 w) int64 at half the network input's size: ``objects`` 0 where there is none, ``things`` the class
    of the object there, ``stuff`` its class, ``n_stuff`` where unknown."""
    masks = _shares(objects, int(objects.max()) + 1)[:, 1:]
    classes = torch.zeros((len(objects), masks.shape[1] + 1), dtype=torch.int64, device=objects.device)
    classes.scatter_(1, objects.flatten(1), things.flatten(1))
    inside = masks > 0
    n_cells = inside.sum((2, 3))
    rows, columns = inside.any(3), inside.any(2)
    boxes = torch.stack([_extent(columns), _extent(rows)], dim=-1)
    x = torch.arange(masks.shape[3], device=masks.device, dtype=masks.dtype)
    y = torch.arange(masks.shape[2], device=masks.device, dtype=masks.dtype)
    total = torch.stack([(inside.sum(2) * x).sum(-1), (inside.sum(3) * y).sum(-1)], dim=-1)
    centres = total / n_cells.clamp(min=1)[..., None]
    return Truth(masks, classes[:, 1:], centres, boxes, masks.sum((2, 3)) >= 2, _shares(stuff, n_stuff + 1)[:, :n_stuff])


def _shares(labels: Tensor, n: int) -> Tensor:
    """(b, 2 h, 2 w) to (b, n, h, w): the share of each label in 2 x 2 pixels."""
    b, height, width = labels.shape
    cells = torch.arange(height // 2 * (width // 2), device=labels.device).reshape(height // 2, width // 2)
    cells = cells.repeat_interleave(2, 0).repeat_interleave(2, 1)
    counts = torch.zeros((b, n * cells.numel() // 4), device=labels.device)
    index = (labels * (cells.numel() // 4) + cells).flatten(1)
    counts.scatter_add_(1, index, torch.full_like(index, 0.25, dtype=torch.float32))
    return counts.reshape(b, n, height // 2, width // 2)


def _extent(occupied: Tensor) -> Tensor:
    """Length from the first to the last True of the last axis."""
    n = occupied.shape[-1]
    first, last = occupied.int().argmax(-1), n - 1 - occupied.flip(-1).int().argmax(-1)
    return torch.where(occupied.any(-1), last - first + 1, 0).float()


def losses(net: PanopticFCN, features: Tensor, levels: Sequence[Level], truth: Truth) -> dict[str, Tensor]:
    """The four official losses: positions and masks, of things and of stuff."""
    features = features.float()
    sums = {"centres": features.new_zeros(()), "things": features.new_zeros(()), "regions": features.new_zeros(())}
    stuff_loss, n_things, n_stuff = features.new_zeros(()), features.new_zeros(()), features.new_zeros(())
    for (centres, regions, kernels), scale in zip(levels, SCALES, strict=True):
        centres, regions, kernels = centres.float(), regions.float(), kernels.float()
        taught = truth.real & _between(truth.boxes.prod(-1).sqrt() * STRIDE, scale)
        sums["centres"] = sums["centres"] + focal(centres, _spots(truth, taught, centres)).sum()
        sums["things"] = sums["things"] + _thing_loss(net, features, centres, kernels, truth, taught)
        n_things = n_things + taught.sum()
        target = functional.interpolate(truth.stuff, size=regions.shape[2:], mode="bilinear", align_corners=False)
        target = torch.where(target < 0.5, 0.0, target)
        sums["regions"] = sums["regions"] + focal(regions, target).mean((2, 3)).sum() / len(regions)
        loss, count = _stuff_loss(net, features, kernels, truth, target)
        stuff_loss, n_stuff = stuff_loss + loss, n_stuff + count
    return {
        "centres": sums["centres"] / n_things.clamp(min=1),
        "regions": sums["regions"],
        "things": SEGMENT_WEIGHT * sums["things"] / n_things.clamp(min=1),
        "stuff": SEGMENT_WEIGHT * stuff_loss / n_stuff.clamp(min=1),
    }


def _between(sizes: Tensor, scale: tuple[int, int]) -> Tensor:
    return (sizes >= scale[0]) & (sizes <= scale[1])


def focal(logits: Tensor, target: Tensor) -> Tensor:
    """Focal loss of each value, for targets from 0 to 1."""
    share = torch.sigmoid(logits)
    right = share * target + (1 - share) * (1 - target)
    weight = ALPHA * target + (1 - ALPHA) * (1 - target)
    return weight * (1 - right) ** GAMMA * functional.binary_cross_entropy_with_logits(logits, target, reduction="none")


def _spots(truth: Truth, taught: Tensor, like: Tensor) -> Tensor:
    """Gaussian spots (b, n_things, h, w) at the centres of mass of the objects that a level is taught."""
    n_things, h, w = like.shape[1:]
    scale = torch.tensor([w / truth.masks.shape[3], h / truth.masks.shape[2]], device=like.device)
    x, y = (truth.centres * scale).floor().unbind(-1)
    radius = _radius(*(truth.boxes * scale).unbind(-1)).clamp(min=0).floor()
    dx = torch.arange(w, device=like.device) - x[..., None]
    dy = torch.arange(h, device=like.device) - y[..., None]
    sigma, reach = (2 * radius + 1) / SIGMA_FACTOR, radius[..., None]
    across = torch.where(dx.abs() <= reach, torch.exp(-(dx**2) / (2 * sigma[..., None] ** 2)), 0.0)
    down = torch.where(dy.abs() <= reach, torch.exp(-(dy**2) / (2 * sigma[..., None] ** 2)), 0.0)
    spots = down[..., :, None] * across[..., None, :] * taught[..., None, None]
    of_class = [(spots * (truth.classes == index)[..., None, None]).amax(1) for index in range(n_things)]
    return torch.stack(of_class, dim=1)


def _radius(width: Tensor, height: Tensor) -> Tensor:
    """How far a box may move and still overlap by :data:`MIN_OVERLAP`, as CornerNet's code has it (its roots are not divided
    by the leading coefficient)."""
    b, area, overlap = width + height, width * height, MIN_OVERLAP
    first = (b + (b**2 - 4 * area * (1 - overlap) / (1 + overlap)).clamp(min=0).sqrt()) / 2
    second = (2 * b + (4 * b**2 - 16 * (1 - overlap) * area).clamp(min=0).sqrt()) / 2
    third = (-2 * overlap * b + (4 * overlap**2 * b**2 + 16 * overlap * (1 - overlap) * area).sqrt()) / 2
    return torch.minimum(first, torch.minimum(second, third))


def _thing_loss(net: PanopticFCN, features: Tensor, centres: Tensor, kernels: Tensor, truth: Truth, taught: Tensor) -> Tensor:
    """Dice loss of the masks from each object's best positions, summed over the objects of one level."""
    most = int(taught.sum(1).max())
    if most == 0:
        return features.new_zeros(())
    order = taught.int().argsort(1, descending=True)[:, :most]  # the objects of this level first
    real = taught.gather(1, order)
    masks = truth.masks.gather(1, order[..., None, None].expand(-1, -1, *truth.masks.shape[2:]))
    classes = truth.classes.gather(1, order)
    small = functional.interpolate(masks, size=centres.shape[2:], mode="bilinear", align_corners=False).flatten(2)
    scores = torch.sigmoid(centres).flatten(2)
    scores = scores.gather(1, classes[..., None].expand(-1, -1, scores.shape[2])) * (small > 0.1)
    weights, index = scores.topk(min(POSITIONS, scores.shape[2]), dim=2)
    picked = kernels.flatten(2).gather(2, index.flatten(1)[:, None].expand(-1, kernels.shape[1], -1))
    embedded = net.thing_generator.embed_extractor(picked[..., None])[..., 0].transpose(1, 2)
    drawn = torch.sigmoid(embedded @ features.flatten(2)).unflatten(1, (most, -1))
    weights = weights / weights.sum(2, keepdim=True).clamp(min=1e-8)
    return (dice(drawn, masks.flatten(2)[:, :, None]) * weights * real[..., None]).sum()


def _stuff_loss(net: PanopticFCN, features: Tensor, kernels: Tensor, truth: Truth, target: Tensor) -> tuple[Tensor, Tensor]:
    """Dice loss of each stuff class that one level sees, summed, and their number."""
    mine = (target > 0).to(kernels.dtype).flatten(2)
    mean = kernels.flatten(2) @ mine.transpose(1, 2) / mine.shape[2]
    embedded = net.stuff_generator.embed_extractor(mean[..., None])[..., 0].transpose(1, 2)
    seen = mine.sum(2) > 0
    drawn = torch.sigmoid(embedded @ features.flatten(2))
    return (dice(drawn, truth.stuff.flatten(2)) * seen).sum(), seen.sum()


def dice(drawn: Tensor, target: Tensor) -> Tensor:
    """1 minus twice the overlap over the sum of squares, along the last axis."""
    squares = (drawn**2).sum(-1) + (target**2).sum(-1)
    return 1 - 2 * (drawn * target).sum(-1) / squares.clamp(min=1e-8)
