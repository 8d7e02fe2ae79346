"""torchvision ``maskrcnn_resnet50_fpn`` (weights COCO_V1), with the key names of today or of the published files of 2019."""

from __future__ import annotations

import torch

from segship.core.spec import Normalise, ShortestEdgeResize
from segship.models.checkpoint import Tensors
from segship.models.maskrcnn.layout import ANCHOR_RATIOS, ANCHOR_SIZES, Layout, Rule, named, numbered, rename
from segship.models.parts.resnet import rename_torchvision

_RULES: tuple[Rule, ...] = (
    (r"backbone\.body\.(.*)", lambda match: f"backbone.bottom_up.{rename_torchvision(match[1])}"),
    # today's names have one ".0" more: a Conv2dNormActivation around each convolution
    numbered(r"backbone\.fpn\.inner_blocks\.(\d)(?:\.0)?", "backbone.fpn_lateral{}", 2),
    numbered(r"backbone\.fpn\.layer_blocks\.(\d)(?:\.0)?", "backbone.fpn_output{}", 2),
    named(r"rpn\.head\.conv(?:\.0\.0)?", "proposal_generator.rpn_head.conv"),
    named(r"rpn\.head\.cls_logits", "proposal_generator.rpn_head.objectness_logits"),
    named(r"rpn\.head\.bbox_pred", "proposal_generator.rpn_head.anchor_deltas"),
    numbered(r"roi_heads\.box_head\.fc(\d)", "roi_heads.box_head.fc{}", -5),
    named(r"roi_heads\.box_predictor\.cls_score", "roi_heads.box_predictor.cls_score"),
    named(r"roi_heads\.box_predictor\.bbox_pred", "roi_heads.box_predictor.bbox_pred"),
    numbered(r"roi_heads\.mask_head\.(\d+)\.0", "roi_heads.mask_head.mask_fcn{}", 1),
    numbered(r"roi_heads\.mask_head\.mask_fcn(\d+)", "roi_heads.mask_head.mask_fcn{}"),
    named(r"roi_heads\.mask_predictor\.conv5_mask", "roi_heads.mask_head.deconv"),
    named(r"roi_heads\.mask_predictor\.mask_fcn_logits", "roi_heads.mask_head.predictor"),
)


def to_ours(tensors: Tensors) -> Tensors:
    """torchvision's keys to ours. Its class 0 is the background: its scores move to the end, its boxes and masks go."""
    ours = rename(tensors, _RULES)
    for kind in ("weight", "bias"):
        cls, box, mask = (f"roi_heads.{layer}.{kind}" for layer in _BY_CLASS)
        if cls in ours:
            ours[cls] = torch.roll(ours[cls], -1, dims=0)
        if box in ours:
            ours[box] = ours[box][4:]
        if mask in ours:
            ours[mask] = ours[mask][1:]
    return ours


_BY_CLASS = ("box_predictor.cls_score", "box_predictor.bbox_pred", "mask_head.predictor")

LAYOUT = Layout(
    name="torchvision",
    marker="rpn.head.cls_logits.weight",
    source="torchvision 0.28 models/detection/mask_rcnn.py, maskrcnn_resnet50_fpn with weights COCO_V1",
    rules={
        "stride_in_1x1": False,
        "norm_eps": 0.0,  # overwrite_eps(model, 0.0) in the builder
        "anchor_sizes": ANCHOR_SIZES,
        "anchor_ratios": ANCHOR_RATIOS,
        "anchor_rounded": True,
        "anchor_offset": 0.0,
        "anchor_measured_strides": True,
        "rpn_per_level": 1000,
        "rpn_total": 1000,
        "rpn_nms": 0.7,
        "rpn_min_size": 1e-3,
        "rpn_stds": [1.0, 1.0, 1.0, 1.0],
        "clamp_below": False,
        "sampling_ratio": 2,
        "aligned": False,
        "level_edges": [56 * 2 ** (level - 1e-6) for level in (1, 2, 3)],
        "mask_size": 14,
        "box_stds": [0.1, 0.1, 0.2, 0.2],
        "box_min_size": 1e-2,
        "score_threshold": 0.05,
        "nms": 0.5,
        "detections": 100,
    },
    resize=ShortestEdgeResize(short=800, long=1333, kernel="float_linear", rounding="torchvision"),
    channels="rgb",
    normalise=Normalise(1 / 255, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    exif_orientation=False,  # PIL.Image.open
    paste="whole_pixels",
    to_ours=to_ours,
)
