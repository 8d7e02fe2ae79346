"""Published SegFormer variants: what the official configurations say and the weights do not.

Source: NVlabs/SegFormer, ``local_configs/segformer/B*/`` (revision 65fa8cf).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from segship.core.errors import BadArgument
from segship.core.spec import Assumption, FitResize, Resize, Slide
from segship.models.checkpoint import Tensors, shape_of
from segship.models.keys import count

IMAGENET_MEAN = (123.675, 116.28, 103.53)
IMAGENET_STD = (58.395, 57.12, 57.375)

_DEPTHS = {
    "b0": (2, 2, 2, 2),
    "b1": (2, 2, 2, 2),
    "b2": (3, 4, 6, 3),
    "b3": (3, 4, 18, 3),
    "b4": (3, 8, 27, 3),
    "b5": (3, 6, 40, 3),
}


@dataclass(frozen=True)
class Defaults:
    """Everything about one variant that a checkpoint's tensors do not tell; ``assumed`` says so for each."""

    name: str
    layout: str
    resize: Resize
    slide: Slide | None
    resize_to: tuple[Literal["input", "image"], ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    layer_norm_eps: float
    num_heads: tuple[int, ...] | None
    exif_orientation: bool
    classes: tuple[str, ...] | None
    assumed: tuple[Assumption, ...]


def encoder_name(tensors: Tensors) -> str:
    """``b0`` ... ``b5`` from depths and the first width; ``custom`` if none fits."""
    depths = tuple(count(tensors, rf"backbone\.block{stage}\.(\d+)\.") for stage in (1, 2, 3, 4))
    width = shape_of(tensors, "backbone.patch_embed1.proj.weight", 4)[0]
    for name, published in _DEPTHS.items():
        if depths == published and width == (32 if name == "b0" else 64):
            return name
    return "custom"


def published_variant(encoder: str, n_classes: int, wanted: str | None) -> Defaults:
    """The published configuration that fits: by ``wanted`` name, else by the number of classes (150 ADE20K, 19 Cityscapes)."""
    names = {150: "ade", 19: "city"}
    data = names.get(n_classes, "ade") if wanted is None else wanted.rpartition("-")[2]
    if data not in ("ade", "city") or (wanted is not None and wanted not in (data, f"segformer-{encoder}-{data}")):
        raise BadArgument(
            f"no variant {wanted!r}: the variants of this checkpoint are segformer-{encoder}-ade and segformer-{encoder}-city"
        )
    short = 640 if encoder == "b5" else 512
    resize = FitResize(2048, 1024, "cv2_linear") if data == "city" else FitResize(4 * short, short, "cv2_linear", divisor=32)
    slide = Slide(crop=(1024, 1024), stride=(768, 768)) if data == "city" else None
    size = "1024x1024.city" if data == "city" else f"{short}x{short}.ade"
    published = encoder != "custom" and n_classes in names
    source = f"NVlabs/SegFormer local_configs segformer.{encoder}.{size}.160k.py"
    if not published:
        source += " (nearest published configuration: state the facts that differ)"
    values = {
        "resize": resize,
        "test_mode": "slide 1024 by 768" if slide else "whole",
        "mean": IMAGENET_MEAN,
        "std": IMAGENET_STD,
        "layer_norm_eps": 1e-6,
    }
    return Defaults(
        name=f"segformer-{encoder}-{data}" if published else f"segformer-{encoder}-c{n_classes}",
        layout="NVlabs",
        resize=resize,
        slide=slide,
        resize_to=("input", "image"),  # encode_decode resizes to the input, whole_inference to the image
        mean=IMAGENET_MEAN,
        std=IMAGENET_STD,
        layer_norm_eps=1e-6,
        num_heads=None,
        exif_orientation=True,  # mmcv.imread: OpenCV's IMREAD_COLOR applies it
        classes=None,
        assumed=tuple(Assumption(fact, str(value), source) for fact, value in values.items()),
    )
