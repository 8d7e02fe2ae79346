"""Mask R-CNN (He et al. 2017) on a ResNet with feature pyramid: one forward for training-free inference, any batch.

Parameter names are detectron2's. In every layer that has a channel for each class, the background comes last.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from segship.models.parts.boxes import apply_deltas, clip, larger_than
from segship.models.parts.fpn import ResNetFPN
from segship.models.parts.layers import ConvNorm
from segship.models.parts.operators import nms_keep
from segship.models.parts.pooler import Pooler
from segship.models.parts.proposals import ProposalGenerator, build_proposals
from segship.models.parts.resnet import ResNet, ResNetShape


@dataclass(frozen=True)
class BoxRules:
    """From class scores and deltas to detections: ``score``: the score must be above it; ``nms``: IoU above which the lower
    score of a class goes; ``detections``: at most so many of an image; the rest as in ``ProposalRules``."""

    score: float
    nms: float
    detections: int
    min_size: float
    stds: tuple[float, ...]
    clamp_below: bool


class BoxHead(nn.Module):
    """RoI features (r, c, s, s) to (r, widths[-1])."""

    def __init__(self, c_in: int, widths: Sequence[int]) -> None:
        super().__init__()
        self.n_layers = len(widths)
        for number, width in enumerate(widths, 1):
            self.add_module(f"fc{number}", nn.Linear(c_in, width))
            c_in = width

    def forward(self, rois: Tensor) -> Tensor:
        x = rois.flatten(1)
        for number in range(1, self.n_layers + 1):
            x = functional.relu(self.get_submodule(f"fc{number}")(x))
        return x


class BoxPredictor(nn.Module):
    """(r, width) to class logits (r, classes + 1) and deltas (r, classes, 4)."""

    def __init__(self, width: int, n_classes: int) -> None:
        super().__init__()
        self.cls_score = nn.Linear(width, n_classes + 1)
        self.bbox_pred = nn.Linear(width, n_classes * 4)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        deltas = self.bbox_pred(x)
        return self.cls_score(x), deltas.reshape(deltas.shape[0], -1, 4)


class MaskHead(nn.Module):
    """RoI features (r, c, s, s) to mask logits (r, classes, 2 * s, 2 * s)."""

    def __init__(self, c_in: int, widths: Sequence[int], n_classes: int) -> None:
        super().__init__()
        self.n_layers = len(widths) - 1
        for number, width in enumerate(widths[:-1], 1):
            self.add_module(f"mask_fcn{number}", ConvNorm(c_in, width, 3, relu=True))
            c_in = width
        self.deconv = nn.ConvTranspose2d(c_in, widths[-1], 2, stride=2)
        self.predictor = nn.Conv2d(widths[-1], n_classes, 1)

    def forward(self, rois: Tensor) -> Tensor:
        x = rois
        for number in range(1, self.n_layers + 1):
            x = self.get_submodule(f"mask_fcn{number}")(x)
        logits: Tensor = self.predictor(functional.relu(self.deconv(x)))
        return logits


class RoIHeads(nn.Module):
    """Proposals to detections with masks; see :class:`MaskRCNN` for the results."""

    def __init__(self, channels: int, facts: Mapping[str, Any]) -> None:
        super().__init__()
        pool = {"sampling_ratio": facts["sampling_ratio"], "aligned": facts["aligned"], "level_edges": facts["level_edges"]}
        self.box_pooler, self.mask_pooler = Pooler(facts["box_size"], **pool), Pooler(facts["mask_size"], **pool)
        self.box_head = BoxHead(channels * facts["box_size"] ** 2, facts["box_widths"])
        self.box_predictor = BoxPredictor(facts["box_widths"][-1], facts["n_classes"])
        self.mask_size = 2 * facts["mask_size"]
        self.mask_head = MaskHead(channels, facts["mask_widths"], facts["n_classes"])
        self.rules = BoxRules(
            score=facts["score_threshold"],
            nms=facts["nms"],
            detections=facts["detections"],
            min_size=facts["box_min_size"],
            stds=tuple(facts["box_stds"]),
            clamp_below=facts["clamp_below"],
        )

    def forward(self, levels: Sequence[Tensor], proposals: Tensor, real: Tensor, content_size: Tensor) -> tuple[Tensor, ...]:
        logits, deltas = self.box_predictor(self.box_head(self.box_pooler(levels, proposals.flatten(0, 1), rows_of(proposals))))
        boxes, scores, classes = self._detect(proposals, real, logits, deltas, content_size)
        valid = scores > 0
        return boxes, scores, classes, self.masks(levels, boxes, classes, valid), valid.sum(1)

    def _detect(
        self, proposals: Tensor, real: Tensor, logits: Tensor, deltas: Tensor, content_size: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Class-wise non-maximum suppression, then the best of all classes; rows that are none are zeros."""
        n, k = real.shape
        n_classes, rules = deltas.shape[1], self.rules
        scores = torch.where(real[..., None], logits.softmax(-1)[:, :-1].reshape(n, k, n_classes), 0.0)
        boxes = apply_deltas(proposals[:, :, None], deltas.reshape(n, k, n_classes, 4), rules.stds, clamp_below=rules.clamp_below)
        boxes = clip(boxes, content_size)
        scores = torch.where(larger_than(boxes, rules.min_size), scores, 0.0).transpose(1, 2).reshape(n * n_classes, k)
        boxes = boxes.transpose(1, 2).reshape(n * n_classes, k, 4)
        keep = nms_keep(boxes, scores, rules.nms, rules.score)
        left = torch.where(keep, scores, 0.0).reshape(n, n_classes * k)
        best, index = left.topk(min(rules.detections, n_classes * k))
        chosen = boxes.reshape(n, n_classes * k, 4).gather(1, index[..., None].expand(-1, -1, 4))
        valid = best > 0
        return torch.where(valid[..., None], chosen, 0.0), best, torch.where(valid, index // k, 0)

    def masks(self, levels: Sequence[Tensor], boxes: Tensor, classes: Tensor, valid: Tensor) -> Tensor:
        """(b, n, side, side) probabilities of each detection's own class; zeros where ``valid`` (b, n) is not.

        Only real detections pass through the head, whose arithmetic for a hundred is a fifth of the whole network's at 800 x
        1216. The first row always does, so that runtimes never meet a convolution of nothing.
        """
        real = torch.cat([torch.ones_like(valid[:1, :1]).flatten(), valid.flatten()[1:]])
        rows = real.nonzero()[:, 0]
        logits = self.mask_head(self.mask_pooler(levels, boxes.flatten(0, 1)[rows], rows_of(boxes)[rows]))
        own = logits.gather(1, classes.flatten()[rows][:, None, None, None].expand(-1, 1, *logits.shape[2:])).sigmoid()
        side = self.mask_size
        found = own.new_zeros(classes.numel(), side, side).index_copy(0, rows, own[:, 0])
        return torch.where(valid[..., None, None], found.reshape(*classes.shape, side, side), 0.0)


class MaskRCNN(nn.Module):
    """Images (b, 3, H, W) float32 and content size (2,) int64 (height, width) to detections, best first.

    boxes (b, n, 4) float32 in pixels of the network input, scores (b, n), classes (b, n) int64 from 0 without background,
    masks (b, n, side, side) float32 probabilities over the box, count (b,) int64; rows beyond the count are zeros.
    """

    def __init__(self, **facts: Any) -> None:
        super().__init__()
        shape = ResNetShape.from_facts(facts)
        resnet = ResNet(shape, stride_in_1x1=facts["stride_in_1x1"], eps=facts["norm_eps"])
        self.backbone = ResNetFPN(resnet, shape.widths, facts["channels"], "pool")
        self.proposal_generator: ProposalGenerator = build_proposals(facts, facts["channels"])
        self.roi_heads = RoIHeads(facts["channels"], facts)

    def forward(self, image: Tensor, content_size: Tensor) -> tuple[Tensor, ...]:
        levels = self.backbone(image)
        proposals, scores = self.proposal_generator(levels, content_size, (image.shape[2], image.shape[3]))
        found: tuple[Tensor, ...] = self.roi_heads(levels, proposals, scores >= 0, content_size)
        return found


def rows_of(boxes: Tensor) -> Tensor:
    """(b * n,) int64: the image of each of the boxes (b, n, 4)."""
    n, k = boxes.shape[:2]
    return torch.arange(n, device=boxes.device)[:, None].expand(n, k).reshape(-1)
