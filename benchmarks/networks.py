"""What the benchmarks time: the published networks at their usual input sizes, and the demo's networks of objects.

The published ones have random weights: speed does not depend on them, and thresholds of 0 give as many objects as there can be.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from segship.core.spec import Size, Task
from segship.models.panopticfcn.layout import official as official_panoptic_fcn


@dataclass(frozen=True)
class Network:
    """A network. ``wrapper``: the key that its official file keeps the state dict under, if any; ``asset``: trained weights of
    the demo instead of random ones."""

    title: str
    family: str
    hyperparameters: dict[str, Any]
    facts: dict[str, Any]
    size: Size
    task: Task = "semantic"
    wrapper: str | None = None
    calibration: int = 16
    rounds: int = 9
    """Fewer where one run takes seconds."""
    asset: str | None = None
    official: Callable[[dict[str, Any]], dict[str, Any]] = dict
    """From the module's state dict to that of the official file."""


R50 = {
    "blocks": [3, 4, 6, 3],
    "stem": 64,
    "inner": [64, 128, 256, 512],
    "widths": [256, 512, 1024, 2048],
    "bottleneck": True,
    "stride_in_1x1": True,
}

NETWORKS = (
    Network(
        "UNet, 3 to 2 classes, 64 to 1024 channels, 256 x 256",
        "unet",
        {"n_channels": 3, "n_classes": 2, "widths": [64, 128, 256, 512, 1024], "bilinear": False},
        {"scale": 1.0},
        (256, 256),
    ),
    Network(
        "SegFormer-B1, 19 classes, 512 x 512",
        "segformer",
        {
            "n_classes": 19,
            "dims": [64, 128, 320, 512],
            "depths": [2, 2, 2, 2],
            "heads": [1, 2, 5, 8],
            "hidden": [256, 512, 1280, 2048],
            "sr_ratios": [8, 4, 2, 1],
            "head_width": 256,
            "layer_norm_eps": 1e-6,
        },
        {"test_mode": "whole", "resize": {"type": "fit", "long": 512, "short": 512, "kernel": "cv2_linear"}},
        (512, 512),
    ),
    Network(
        "PointRend, ResNet-101-FPN, 19 classes, 8192 points, 512 x 1024",
        "pointrend",
        {
            **R50,
            "blocks": [3, 4, 23, 3],
            "n_classes": 19,
            "fpn_channels": 256,
            "head_channels": 128,
            "fc": [256, 256, 256],
            "coarse_pred_each_layer": False,
            "subdivision_steps": 2,
            "subdivision_points": 8192,
        },
        {"resize": {"type": "keep"}},
        (512, 1024),
        wrapper="model",
        calibration=4,
        rounds=3,
    ),
    Network(
        "Mask R-CNN, ResNet-50-FPN, 80 classes, 800 x 1216, 100 detections",
        "maskrcnn",
        {
            **R50,
            "channels": 256,
            "rpn_width": 256,
            "n_classes": 80,
            "box_size": 7,
            "box_widths": [1024, 1024],
            "mask_widths": [256, 256, 256, 256],
            "norm_eps": 1e-05,
            "anchor_sizes": [32.0, 64.0, 128.0, 256.0, 512.0],
            "anchor_ratios": [0.5, 1.0, 2.0],
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
            "aligned": True,
            "level_edges": [112.0, 224.0, 448.0],
            "mask_size": 14,
            "box_stds": [0.1, 0.1, 0.2, 0.2],
            "box_min_size": 0.0,
            "score_threshold": 0.0,
            "nms": 0.5,
            "detections": 100,
        },
        {"score_threshold": 0.0},
        (800, 1216),
        task="instance",
        wrapper="model",
        calibration=3,
        rounds=3,
    ),
    Network(
        "Panoptic FCN R50-400-FAST without deformable convolutions, 80 + 53 classes, 400 x 608",
        "panopticfcn",
        {
            **R50,
            "fpn_channels": 256,
            "semantic_channels": 256,
            "position_convs": 3,
            "position_channels": 256,
            "position_coord": False,
            "position_deform": False,
            "position_norm": True,
            "kernel_convs": 3,
            "kernel_channels": 256,
            "kernel_coord": True,
            "kernel_deform": False,
            "kernel_norm": True,
            "encoder_convs": 3,
            "encoder_channels": 64,
            "encoder_coord": True,
            "encoder_deform": False,
            "encoder_norm": False,
            "n_things": 80,
            "n_stuff": 54,
            "top_num": 100,
            "center_threshold": 0.0,
            "region_threshold": 0.0,
            "mask_threshold": 0.4,
            "similarity": 0.9,
            "class_specific": True,
            "least_score": 0.0,
            "center_pools": [3, 3, 3, 5, 5],
        },
        {"config": "R50-400-3x-FAST", "center_threshold": 0.0, "least_score": 0.0, "score_threshold": 0.0},
        (400, 608),
        task="panoptic",
        wrapper="model",
        official=official_panoptic_fcn,
        calibration=4,
        rounds=3,
    ),
    *(
        Network(f"{title} of the demo, 256 x 256", family, {}, {}, (256, 256), task=task, calibration=12, rounds=5, asset=asset)
        for title, family, task, asset in (
            ("PointRend", "scenes-pointrend", "semantic", "scenes-pointrend.pth"),
            ("Mask R-CNN", "scenes-maskrcnn", "instance", "scenes-maskrcnn.pth"),
            ("Panoptic FCN", "scenes-panopticfcn", "panoptic", "scenes-panopticfcn.pth"),
        )
    ),
)
