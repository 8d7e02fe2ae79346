"""What the published configuration says and the weights do not."""

from __future__ import annotations

from typing import Any

from segship.core.spec import ShortestEdgeResize

SOURCE = "detectron2 projects/PointRend, pointrend_semantic_R_101_FPN_1x_cityscapes.yaml"

PUBLISHED: dict[str, Any] = {
    "stride_in_1x1": True,  # MODEL.RESNETS.STRIDE_IN_1X1, detectron2's default, for MSRA weights
    "subdivision_steps": 2,
    "subdivision_points": 8192,
    "channels": "bgr",
    "resize": ShortestEdgeResize(1024, 2048, "pil_bilinear", "detectron2"),
    "mean": (103.53, 116.28, 123.675),  # detectron2/config/defaults.py, MODEL.PIXEL_MEAN
    "std": (1.0, 1.0, 1.0),
}
"""Fact to value."""

CITYSCAPES = (
    "road",
    "sidewalk",
    "building",
    "wall",
    "fence",
    "pole",
    "traffic light",
    "traffic sign",
    "vegetation",
    "terrain",
    "sky",
    "person",
    "rider",
    "car",
    "truck",
    "bus",
    "train",
    "motorcycle",
    "bicycle",
)
"""Class names by train id (cityscapesScripts ``labels.py``)."""
