"""detectron2 ``COCO-InstanceSegmentation/mask_rcnn_R_50_FPN_3x`` and its kin. Our own names are detectron2's."""

from __future__ import annotations

import re

from segship.core.spec import Normalise, ShortestEdgeResize
from segship.models.checkpoint import Tensors
from segship.models.maskrcnn.layout import ANCHOR_RATIOS, ANCHOR_SIZES, Layout

_BUFFERS = re.compile(r"pixel_mean|pixel_std|proposal_generator\.anchor_generator\.cell_anchors\.\d+")
"""Constants of the configuration that some files hold beside the weights."""


def to_ours(tensors: Tensors) -> Tensors:
    """The weights alone."""
    return {key: value for key, value in tensors.items() if not _BUFFERS.fullmatch(key)}


LAYOUT = Layout(
    name="detectron2",
    marker="proposal_generator.rpn_head.objectness_logits.weight",
    source="detectron2 config/defaults.py, configs/Base-RCNN-FPN.yaml, configs/COCO-InstanceSegmentation",
    rules={
        "stride_in_1x1": True,  # MODEL.RESNETS.STRIDE_IN_1X1, for weights that began as MSRA's
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
        "clamp_below": False,
        "sampling_ratio": 0,
        "aligned": True,  # ROIAlignV2
        "level_edges": [112.0, 224.0, 448.0],
        "mask_size": 14,
        "box_stds": [0.1, 0.1, 0.2, 0.2],
        "box_min_size": 0.0,  # detector_postprocess drops empty boxes, though after choosing the best 100
        "score_threshold": 0.05,
        "nms": 0.5,
        "detections": 100,
    },
    resize=ShortestEdgeResize(short=800, long=1333, kernel="pil_bilinear", rounding="detectron2"),
    channels="bgr",
    normalise=Normalise(1.0, (103.53, 116.28, 123.675), (1.0, 1.0, 1.0)),
    exif_orientation=True,  # detection_utils.read_image
    paste="grid",
    to_ours=to_ours,
)
