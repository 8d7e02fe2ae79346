"""Panoptic FCN (Li et al. 2021, https://arxiv.org/abs/2012.00720) as one forward of fixed sizes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from segship.models.panopticfcn.heads import FeatureEncoder, HeadShape, KernelHead, PositionHead
from segship.models.panopticfcn.kernels import Candidates, Level, Masks, StuffGenerator, ThingGenerator
from segship.models.parts.fpn import ResNetFPN
from segship.models.parts.resnet import ResNet, ResNetShape
from segship.models.parts.semantic_fpn import SemanticFPN

OUTPUTS = ("masks", "scores", "classes", "count", "stuff", "stuff_scores")
"""Names of the outputs, in order."""


class PanopticFCN(nn.Module):
    """(n, 3, h, w) float32, h and w multiples of 32, to the parts of a panoptic map at a quarter of the size:

    * ``masks`` (n, k, h / 4, w / 4) probabilities of the ``top_num`` = k best objects, ``scores`` (n, k) in falling order,
      ``classes`` (n, k) int64, and ``count`` (n,) int64: how many of the k are objects;
    * ``stuff`` (n, n_stuff, h / 4, w / 4) probabilities, 0 for classes that are not seen, whose ``stuff_scores``
      (n, n_stuff) are 0, too. Stuff class 0 is all things as one.
    """

    def __init__(self, facts: Mapping[str, Any]) -> None:
        super().__init__()
        resnet, channels = ResNetShape.from_facts(facts), facts["fpn_channels"]
        position, kernel, encoder = (HeadShape.from_facts(facts, name) for name in ("position", "kernel", "encoder"))
        bottom_up = ResNet(resnet, stride_in_1x1=facts["stride_in_1x1"])
        self.backbone = ResNetFPN(bottom_up, resnet.widths, channels, top="convs")
        self.semantic_fpn = SemanticFPN(channels, facts["semantic_channels"])
        self.feature_encoder = FeatureEncoder(facts["semantic_channels"], encoder)
        self.position_head = PositionHead(channels, position, facts["n_things"], facts["n_stuff"])
        self.kernel_head = KernelHead(channels, kernel)
        self.candidates = Candidates(facts["top_num"] // 2, facts["center_threshold"], facts["center_pools"])
        self.thing_generator = ThingGenerator(
            kernel.channels, encoder.channels, facts["similarity"], class_specific=facts["class_specific"]
        )
        self.stuff_generator = StuffGenerator(kernel.channels, encoder.channels, facts["region_threshold"])
        self.masks = Masks(facts["top_num"], facts["mask_threshold"], facts["least_score"])

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        features, levels = self.head_outputs(image)
        scores, classes, kernels = self.candidates(levels)
        fused, scores = self.thing_generator(scores, classes, kernels)
        stuff_kernels, stuff_scores = self.stuff_generator(levels)
        stuff = torch.sigmoid(stuff_kernels @ features.flatten(2)) * (stuff_scores > 0).to(features.dtype)[:, :, None]
        return *self.masks(features, fused, scores, classes), stuff.unflatten(2, features.shape[2:]), stuff_scores

    def head_outputs(self, image: Tensor) -> tuple[Tensor, list[Level]]:
        """All that is learnt: the encoded features (n, d, h / 4, w / 4), and what the heads say of P3 ... P7."""
        pyramid = self.backbone(image)
        features = self.feature_encoder(self.semantic_fpn(pyramid[:4]))
        return features, [(*self.position_head(level), self.kernel_head(level)) for level in pyramid[1:]]
