"""From heat maps to masks: candidate objects, the fusion of their kernels, and one kernel for each class of stuff.

Everything has a fixed size: a candidate that is none has the score 0. Batches are the first axis throughout. Followed is
the official inference (dvlab-research/PanopticFCN f4141c3, ``panoptic_seg.py`` and ``head.py``), which takes one image.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from segship.models.parts.layers import ConvNorm

Level = tuple[Tensor, Tensor, Tensor]
"""Of one pyramid level: logits of object centres (n, n_things, h, w) and of stuff regions (n, n_stuff, h, w), and the kernel
of each position (n, c, h, w)."""


class Candidates(nn.Module):
    """The positions that may be objects, over all levels, best centre score first.

    From the levels to scores (n, levels * per_level), classes and kernels (n, c, levels * per_level). A score is above
    ``threshold``, or 0 where there is no candidate.
    """

    def __init__(self, per_level: int, threshold: float, pools: Sequence[int]) -> None:
        super().__init__()
        self.per_level, self.threshold, self.pools = per_level, threshold, tuple(pools)

    def forward(self, levels: Sequence[Level]) -> tuple[Tensor, Tensor, Tensor]:
        found = [self._of(*level, pool) for level, pool in zip(levels, self.pools, strict=True)]
        scores, classes, kernels = (torch.cat(parts, dim=-1) for parts in zip(*found, strict=True))
        scores, order = torch.topk(scores, scores.shape[1])
        return scores, classes.gather(1, order), _picked(kernels, order)

    def _of(self, centres: Tensor, _regions: Tensor, kernels: Tensor, pool: int) -> tuple[Tensor, Tensor, Tensor]:
        # a tensor, because the exporter knows no remainder by a free size
        n_positions = torch.full((1,), centres.shape[2] * centres.shape[3], device=centres.device)
        peaks = centre_peaks(centres, pool).flatten(1)
        # a tiny level has fewer values than are asked for; officially it gives at most one candidate for each position
        scores, indices = torch.topk(functional.pad(peaks, (0, self.per_level)), self.per_level)
        allowed = torch.arange(self.per_level, device=scores.device) < n_positions
        scores = torch.where((scores > self.threshold) & allowed, scores, 0.0)
        classes = (indices // n_positions).clamp(max=centres.shape[1] - 1)
        return scores, classes, _picked(kernels.flatten(2), indices % n_positions)


def centre_peaks(logits: Tensor, pool: int) -> Tensor:
    """Centre scores where they are the largest of their 3x3 neighbourhood, else 0; same shape.

    A score is the mean of a position's probability and the mean probability of the ``pool`` x ``pool`` around it, where
    positions outside the map count as 0.
    """
    share = torch.sigmoid(logits)
    scores = (share + functional.avg_pool2d(share, pool, stride=1, padding=pool // 2)) / 2
    return torch.where(functional.max_pool2d(scores, 3, stride=1, padding=1) == scores, scores, 0.0)


def _picked(kernels: Tensor, positions: Tensor) -> Tensor:
    """Columns of (n, c, many) at ``positions`` (n, some): (n, c, some)."""
    return kernels.gather(2, positions[:, None].expand(-1, kernels.shape[1], -1))


class ThingGenerator(nn.Module):
    """Embeds the candidates' kernels and fuses those that are alike.

    From scores (n, m) in falling order, classes (n, m) and kernels (n, c, m) to the fused kernels (n, m, d) and their scores
    (n, m): the best of each group of likes keeps its place and score, the others get 0.
    """

    def __init__(self, c_in: int, c_out: int, similarity: float, *, class_specific: bool) -> None:
        super().__init__()
        self.embed_extractor = ConvNorm(c_in, c_out, 1)
        self.similarity, self.class_specific = similarity, class_specific

    def forward(self, scores: Tensor, classes: Tensor, kernels: Tensor) -> tuple[Tensor, Tensor]:
        embedded = self.embed_extractor(kernels.unsqueeze(-1)).squeeze(-1).transpose(1, 2)
        alike = self._alike(scores > 0, classes, embedded)
        # row i says whom candidate i would absorb. A column is spent on its first two rows: the later ones take no part
        kept = (alike.sum(1) < 2) & (scores > 0)
        absorbed = alike * (alike.cumsum(1) < 2)
        fused = absorbed @ embedded / absorbed.sum(2, keepdim=True).clamp(min=1.0)
        return fused, torch.where(kept, scores, 0.0)

    def _alike(self, real: Tensor, classes: Tensor, embedded: Tensor) -> Tensor:
        """(n, m, m) float32, 1 where the real candidate of the column is like the real one of the row, or is itself, and
        comes later."""
        unit = embedded / torch.linalg.vector_norm(embedded, dim=2, keepdim=True).clamp(min=1e-8)
        alike: Tensor = unit @ unit.transpose(1, 2) >= self.similarity
        alike = alike & real[:, :, None] & real[:, None]
        if self.class_specific:
            alike = alike & (classes[:, :, None] == classes[:, None])
        rank = torch.arange(alike.shape[1], device=alike.device)
        return (alike & (rank[:, None] <= rank)).to(embedded.dtype)


class StuffGenerator(nn.Module):
    """One kernel for each class of stuff: the mean of the levels that see it.

    From the levels to kernels (n, n_stuff, d) and scores (n, n_stuff), 0 for a class that no level sees.
    """

    def __init__(self, c_in: int, c_out: int, threshold: float) -> None:
        super().__init__()
        self.embed_extractor = ConvNorm(c_in, c_out, 1)
        self.threshold = threshold

    def forward(self, levels: Sequence[Level]) -> tuple[Tensor, Tensor]:
        seen = [self._of(regions, kernels) for _, regions, kernels in levels]
        scores = torch.stack([score for score, _ in seen], dim=1)
        embedded = self.embed_extractor(torch.stack([kernels for _, kernels in seen], dim=2))
        counted = (scores > 0).to(embedded.dtype)
        n_levels = counted.sum(1).clamp(min=1.0)
        mean = (embedded * counted[:, None]).sum(2) / n_levels[:, None]
        return mean.transpose(1, 2), scores.sum(1) / n_levels

    def _of(self, regions: Tensor, kernels: Tensor) -> tuple[Tensor, Tensor]:
        """Scores (n, n_stuff), 0 where not above the threshold, and kernels (n, c, n_stuff) of one level."""
        share = torch.sigmoid(regions).flatten(2)
        classes = torch.arange(share.shape[1], device=share.device)[:, None]
        mine = (share.argmax(1, keepdim=True) == classes).to(share.dtype)
        scores = (share * mine).sum(2) / mine.sum(2).clamp(min=1.0)
        # divided by all positions, not by the region's: adaptive_avg_pool2d of the masked kernels in the official code
        return torch.where(scores > self.threshold, scores, 0.0), kernels.flatten(2) @ mine.transpose(1, 2) / share.shape[2]


class Masks(nn.Module):
    """Lays kernels over the features and scores the masks again.

    From features (n, d, h, w), fused kernels (n, m, d), their centre scores (n, m) and classes (n, m) to probabilities
    (n, k, h, w), scores and classes (n, k) of the best ``top`` = k, best first, and how many of them score ``least`` (n,).
    A score is the centre's times the mean probability inside the mask. Masks beyond that number mean nothing: only the rows
    that hold an object in some image of the batch are drawn, and the first, so that no runtime meets a product of nothing.
    """

    def __init__(self, top: int, inside: float, least: float) -> None:
        super().__init__()
        self.top, self.inside, self.least = top, inside, least

    def forward(self, features: Tensor, kernels: Tensor, scores: Tensor, classes: Tensor) -> tuple[Tensor, ...]:
        real = scores > 0
        drawn = torch.cat([torch.ones_like(real[0, :1]), real[:, 1:].any(0)])
        rows, place = drawn.nonzero()[:, 0], drawn.long().cumsum(0) - 1  # place: of every row among the drawn ones
        share = torch.sigmoid(kernels.index_select(1, rows) @ features.flatten(2))
        inside = (share > self.inside).to(share.dtype)
        quality = (share * inside).sum(2) / (inside.sum(2) + 1e-6)  # 1e-6: the official guard against empty masks
        scores, order = torch.topk(scores * quality.index_select(1, place), self.top)
        first = torch.arange(share.shape[0], device=order.device)[:, None] * share.shape[1]
        whole = (place[order] + first).flatten()  # whole rows: a copy, no index per pixel
        best = share.flatten(0, 1).index_select(0, whole).reshape(share.shape[0], self.top, *features.shape[2:])
        return best, scores, classes.gather(1, order), (scores >= self.least).sum(1)
