"""What a model is, without its weights: the facts that inference needs.

Everything here is frozen, holds no torch, and is stored in the engine's manifest.
Sizes are (height, width) in pixels; a batch is always the first axis.
"""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

Task = Literal["semantic", "instance", "panoptic"]
Size = tuple[int, int]
"""(height, width) in pixels."""

Pixels = Annotated[int, msgspec.Meta(ge=1)]
"""A length that a user can state: checked when a fact or a manifest is read."""

Kernel = Literal["pil_bilinear", "pil_bicubic", "cv2_linear"]
"""A resize kernel and the library it belongs to: kernels of one name differ between libraries
(Pillow widens the filter when it shrinks, OpenCV does not)."""


class TensorSpec(msgspec.Struct, frozen=True):
    """Name, numpy dtype name and shape of one tensor; a string in the shape is a symbolic size."""

    name: str
    dtype: str
    shape: tuple[int | str, ...]


class KeepSize(msgspec.Struct, frozen=True, tag="keep"):
    """No resize: the network sees the image at its own size."""


class ScaleResize(msgspec.Struct, frozen=True, tag="scale"):
    """Size times a factor, truncated to whole pixels (milesial/Pytorch-UNet, ``BasicDataset.preprocess``)."""

    factor: Annotated[float, msgspec.Meta(gt=0)]
    kernel: Kernel


class FitResize(msgspec.Struct, frozen=True, tag="fit"):
    """Keep the aspect ratio and fit into ``long`` x ``short`` pixels (mmcv ``imrescale``).

    ``divisor``: a second resize of the result, up to the next multiple (NVlabs SegFormer ``AlignedResize``).
    """

    long: Pixels
    short: Pixels
    kernel: Kernel
    divisor: Pixels | None = None


class ExactResize(msgspec.Struct, frozen=True, tag="exact"):
    """Resize to one fixed size, whatever the aspect ratio (Hugging Face ``SegformerImageProcessor``)."""

    size: tuple[Pixels, Pixels]
    kernel: Kernel


Resize = KeepSize | ScaleResize | FitResize | ExactResize


class Normalise(msgspec.Struct, frozen=True):
    """``(pixel * scale - mean) / std`` for each channel, on 8-bit pixels.

    ``scale_only_above_one``: milesial/Pytorch-UNet divides by 255 only when some pixel of the resized
    image is above 1, so an (almost) black image, or a 0/1 mask read as image, stays as it is.
    """

    scale: float
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    scale_only_above_one: bool = False


class ImageInput(msgspec.Struct, frozen=True):
    """How an image file becomes the network's input tensor (batch, channel, height, width), float32."""

    channels: Literal["rgb", "gray"]
    resize: Resize
    normalise: Normalise
    exif_orientation: bool
    """Turn the image as its EXIF tag says (OpenCV does by default, Pillow does not)."""


class Slide(msgspec.Struct, frozen=True):
    """Sliding-window inference (mmsegmentation ``slide_inference``): crop and stride as (height, width)."""

    crop: tuple[Pixels, Pixels]
    stride: tuple[Pixels, Pixels]


class SemanticDecode(msgspec.Struct, frozen=True, tag="semantic"):
    """How logits become a label map.

    ``resize_to``: the bilinear (half-pixel, align_corners=False) resizes of the logits before the decision, in order:
    ``"input"`` is the network input's size, ``"image"`` the original image's.
    ``threshold``: for one output channel, the sigmoid probability above which a pixel is class 1.
    ``pixel_values``: what to write in a mask file for each class id, when not the id itself
    (milesial/Pytorch-UNet ``mask_values``); a triple is an RGB colour.
    """

    resize_to: tuple[Literal["input", "image"], ...]
    threshold: float | None = None
    pixel_values: tuple[int | tuple[int, int, int], ...] | None = None


class CheckpointRef(msgspec.Struct, frozen=True):
    """Which file the weights came from."""

    name: str
    sha256: str
    layout: str


class Assumption(msgspec.Struct, frozen=True):
    """A fact that the checkpoint does not hold, the value taken, and where it was taken from."""

    fact: str
    value: str
    source: str


class ModelSpec(msgspec.Struct, frozen=True, kw_only=True):
    """All that inference needs to know of a model besides its weights."""

    family: str
    variant: str
    task: Task
    hyperparameters: dict[str, int | float | bool | str | list[int]]
    """Arguments that rebuild the network; read from the checkpoint's keys and shapes."""
    image: ImageInput
    output: TensorSpec
    """The raw network output, for instance logits (batch, class, height, width)."""
    decode: SemanticDecode
    slide: Slide | None
    classes: tuple[str, ...]
    colors: tuple[tuple[int, int, int], ...] | None = None
    checkpoint: CheckpointRef
    assumed: tuple[Assumption, ...]


class Signature(msgspec.Struct, frozen=True, kw_only=True):
    """What a built graph takes and gives.

    ``output``: ``"logits"`` is the raw network output; ``"labels"`` is a label map (batch, height, width)
    in the original image's frame, already resized and decided.
    ``input_size``: the fixed network input size, or None when height and width are free.
    ``image_size``: the original image size that the label map is made for; None when it is free, and then
    a label graph takes it as its second input, ``image_size`` int64 (2,) = (height, width).
    """

    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    output: Literal["logits", "labels"]
    input_size: Size | None
    image_size: Size | None
