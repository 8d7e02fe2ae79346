"""mmdetection 2.x, ``configs/mask_rcnn/mask_rcnn_r50_fpn_2x_coco.py`` and its kin (mmdet 2.28.2, mmcv-full 1.7.2)."""

from __future__ import annotations

from segship.core.spec import FitResize, Normalise
from segship.models.checkpoint import Tensors
from segship.models.maskrcnn.layout import ANCHOR_RATIOS, ANCHOR_SIZES, Layout, Rule, named, numbered, rename
from segship.models.parts.resnet import rename_torchvision

_RULES: tuple[Rule, ...] = (
    (r"backbone\.(.*)", lambda match: f"backbone.bottom_up.{rename_torchvision(match[1])}"),
    numbered(r"neck\.lateral_convs\.(\d)\.conv", "backbone.fpn_lateral{}", 2),
    numbered(r"neck\.fpn_convs\.(\d)\.conv", "backbone.fpn_output{}", 2),
    named(r"rpn_head\.rpn_conv", "proposal_generator.rpn_head.conv"),
    named(r"rpn_head\.rpn_cls", "proposal_generator.rpn_head.objectness_logits"),
    named(r"rpn_head\.rpn_reg", "proposal_generator.rpn_head.anchor_deltas"),
    numbered(r"roi_head\.bbox_head\.shared_fcs\.(\d)", "roi_heads.box_head.fc{}", 1),
    named(r"roi_head\.bbox_head\.fc_cls", "roi_heads.box_predictor.cls_score"),
    named(r"roi_head\.bbox_head\.fc_reg", "roi_heads.box_predictor.bbox_pred"),
    numbered(r"roi_head\.mask_head\.convs\.(\d+)\.conv", "roi_heads.mask_head.mask_fcn{}", 1),
    named(r"roi_head\.mask_head\.upsample", "roi_heads.mask_head.deconv"),
    named(r"roi_head\.mask_head\.conv_logits", "roi_heads.mask_head.predictor"),
)


def to_ours(tensors: Tensors) -> Tensors:
    """mmdetection's keys to ours; its background is the last class, as ours."""
    return rename(tensors, _RULES)


LAYOUT = Layout(
    name="mmdetection",
    marker="rpn_head.rpn_cls.weight",
    source="mmdetection 2.x configs/_base_/models/mask_rcnn_r50_fpn.py, configs/_base_/datasets/coco_instance.py",
    rules={
        "stride_in_1x1": False,
        "norm_eps": 1e-5,
        "anchor_sizes": ANCHOR_SIZES,
        "anchor_ratios": ANCHOR_RATIOS,
        "anchor_rounded": False,
        "anchor_offset": 0.0,
        "anchor_measured_strides": False,
        "rpn_per_level": 1000,
        "rpn_total": 1000,
        "rpn_nms": 0.7,
        "rpn_min_size": 0.0,
        "rpn_stds": [1.0, 1.0, 1.0, 1.0],
        "clamp_below": True,
        "sampling_ratio": 0,
        "aligned": True,
        "level_edges": [56 * (2 - 1e-6), 56 * (4 - 1e-6), 56 * (8 - 1e-6)],
        "mask_size": 14,
        "box_stds": [0.1, 0.1, 0.2, 0.2],
        "box_min_size": -1.0,
        "score_threshold": 0.05,
        "nms": 0.5,
        "detections": 100,
    },
    resize=FitResize(long=1333, short=800, kernel="cv2_linear"),
    channels="rgb",
    normalise=Normalise(1.0, (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)),
    exif_orientation=True,  # mmcv.imread decodes with OpenCV, which turns
    paste="grid",
    to_ours=to_ours,
)
