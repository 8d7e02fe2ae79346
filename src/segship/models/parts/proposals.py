"""The region proposal network (Ren et al. 2015) over a feature pyramid. Parameter names are detectron2's."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from segship.models.parts.anchors import Anchors
from segship.models.parts.boxes import apply_deltas, clip, larger_than
from segship.models.parts.layers import ConvNorm
from segship.models.parts.operators import nms_keep

NONE = -1.0
"""Score of a row that holds no box: below every probability."""


@dataclass(frozen=True)
class ProposalRules:
    """``per_level``: best anchors of each level that are decoded; ``total``: proposals at most; ``nms``: IoU above which the
    lower score goes, within a level; ``min_size``: sides must be above it, pixels; the rest as in ``apply_deltas``."""

    per_level: int
    total: int
    nms: float
    min_size: float
    stds: tuple[float, ...]
    clamp_below: bool


class RPNHead(nn.Module):
    """A level (b, c, h, w) to logits (b, h * w * per_cell) and deltas (b, h * w * per_cell, 4), cells row by row."""

    def __init__(self, channels: int, hidden: int, per_cell: int) -> None:
        super().__init__()
        self.conv = ConvNorm(channels, hidden, 3, relu=True)
        self.objectness_logits = nn.Conv2d(hidden, per_cell, 1)
        self.anchor_deltas = nn.Conv2d(hidden, per_cell * 4, 1)

    def forward(self, level: Tensor) -> tuple[Tensor, Tensor]:
        hidden = self.conv(level)
        logits = self.objectness_logits(hidden).permute(0, 2, 3, 1).flatten(1)
        deltas = self.anchor_deltas(hidden).permute(0, 2, 3, 1)
        return logits, deltas.reshape(deltas.shape[0], -1, 4)  # len() would fix the batch while exporting


class ProposalGenerator(nn.Module):
    """Levels and content size to proposals (b, total, 4) in network-input pixels and scores (b, total), best first.

    Rows without a proposal are zeros and have the score :data:`NONE`.
    """

    def __init__(self, head: RPNHead, anchors: Anchors, rules: ProposalRules) -> None:
        super().__init__()
        self.rpn_head, self.anchors, self.rules = head, anchors, rules

    def forward(self, levels: Sequence[Tensor], content_size: Tensor, input_size: tuple[int, int]) -> tuple[Tensor, Tensor]:
        dense = [self.rpn_head(level) for level in levels]
        return self.choose(self.anchors(levels, input_size), dense, content_size)

    def choose(
        self, anchors: Sequence[Tensor], dense: Sequence[tuple[Tensor, Tensor]], content_size: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Proposals from the anchors and the head's logits and deltas of each level."""
        found = [self._best(level, logits, deltas, content_size) for level, (logits, deltas) in zip(anchors, dense, strict=True)]
        boxes, scores = (torch.stack(part, dim=1) for part in zip(*found, strict=True))  # (b, level, per_level)
        return self._merged(boxes, scores)

    def _merged(self, boxes: Tensor, scores: Tensor) -> tuple[Tensor, Tensor]:
        """From each level's best, (b, level, k, 4) and (b, level, k), to the best survivors of all levels."""
        n, n_levels, k = scores.shape
        keep = nms_keep(boxes.reshape(n * n_levels, k, 4), scores.reshape(n * n_levels, k), self.rules.nms, NONE / 2)
        left = torch.where(keep.reshape(n, n_levels * k), scores.reshape(n, n_levels * k), NONE)
        best, index = left.topk(min(self.rules.total, n_levels * k))
        chosen = boxes.reshape(n, n_levels * k, 4).gather(1, index[..., None].expand(-1, -1, 4))
        return torch.where((best > NONE)[..., None], chosen, 0.0), best

    def _best(self, anchors: Tensor, logits: Tensor, deltas: Tensor, content_size: Tensor) -> tuple[Tensor, Tensor]:
        """One level's ``per_level`` best anchors, decoded: boxes and scores; small levels are filled up with :data:`NONE`."""
        rules, missing = self.rules, self.rules.per_level - logits.shape[1]
        if not (isinstance(missing, int) and missing <= 0):  # symbolic while exporting with free sizes: always filled up
            fill = max(missing, 0) if isinstance(missing, int) else rules.per_level
            logits = functional.pad(logits, (0, fill), value=-torch.inf)
            deltas, anchors = functional.pad(deltas, (0, 0, 0, fill)), functional.pad(anchors, (0, 0, 0, fill))
        top, index = logits.topk(rules.per_level)
        near = deltas.gather(1, index[..., None].expand(-1, -1, 4))
        boxes = clip(apply_deltas(anchors[index], near, rules.stds, clamp_below=rules.clamp_below), content_size)
        real = larger_than(boxes, rules.min_size) & (top > -torch.inf)
        return boxes, torch.where(real, top.sigmoid(), NONE)


def build_proposals(facts: Mapping[str, Any], channels: int) -> ProposalGenerator:
    """From :attr:`ModelSpec.hyperparameters` (the names that start with ``anchor_`` and ``rpn_``)."""
    per_cell = len(facts["anchor_ratios"]) * len(facts["anchor_sizes"]) // 5
    anchors = Anchors(
        facts["anchor_sizes"],
        facts["anchor_ratios"],
        rounded=facts["anchor_rounded"],
        offset=facts["anchor_offset"],
        measured_strides=facts["anchor_measured_strides"],
    )
    rules = ProposalRules(
        per_level=facts["rpn_per_level"],
        total=facts["rpn_total"],
        nms=facts["rpn_nms"],
        min_size=facts["rpn_min_size"],
        stds=tuple(facts["rpn_stds"]),
        clamp_below=facts["clamp_below"],
    )
    return ProposalGenerator(RPNHead(channels, facts["rpn_width"], per_cell), anchors, rules)
