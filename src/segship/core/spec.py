"""What a model is, without its weights: the facts that inference needs.

Everything here is frozen, holds no torch, and is stored in the engine's manifest.
Sizes are (height, width) in pixels; a batch is always the first axis.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec

Task = Literal["semantic", "instance", "panoptic"]
Size = tuple[int, int]
"""(height, width) in pixels."""

Pixels = Annotated[int, msgspec.Meta(ge=1)]
"""A length that a user can state: checked when a fact or a manifest is read."""

Kernel = Literal["pil_bilinear", "pil_bicubic", "cv2_linear", "float_linear"]
"""A resize kernel and the library it belongs to: kernels of one name differ between libraries
(Pillow widens the filter when it shrinks, OpenCV does not). ``float_linear`` is PyTorch's ``interpolate`` of the
*normalised* image (torchvision's detection models); the others resize 8-bit pixels before."""


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


class ShortestEdgeResize(msgspec.Struct, frozen=True, tag="shortest_edge"):
    """Keep the aspect ratio; the shorter side becomes ``short`` pixels unless the longer one would exceed ``long``.

    ``rounding`` names the code whose arithmetic is followed: detectron2 ``ResizeShortestEdge`` rounds half up,
    torchvision ``GeneralizedRCNNTransform`` computes the factor in float32 and cuts off.
    """

    short: Pixels
    long: Pixels
    kernel: Kernel
    rounding: Literal["detectron2", "torchvision"]


Resize = KeepSize | ScaleResize | FitResize | ExactResize | ShortestEdgeResize


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
    """How an image file becomes the network's input tensor (batch, channel, height, width), float32.

    ``channels``: the order in the tensor; ``normalise`` speaks of that order. ``exif_orientation``: turn the image as its
    EXIF tag says (OpenCV does by default, Pillow does not). ``divisor``: zeros are added at the right and bottom of the
    normalised image until both sides are multiples of it; what is not added is called the content. ``smallest``: the shortest
    side of the input that the network can work on, where it shrinks maps without padding.
    """

    channels: Literal["rgb", "bgr", "gray"]
    resize: Resize
    normalise: Normalise
    exif_orientation: bool
    divisor: Pixels = 1
    smallest: Pixels = 1


class Slide(msgspec.Struct, frozen=True):
    """Sliding-window inference (mmsegmentation ``slide_inference``): crop and stride as (height, width)."""

    crop: tuple[Pixels, Pixels]
    stride: tuple[Pixels, Pixels]


class Frame(msgspec.Struct, frozen=True):
    """The sizes (height, width) of one image on its way: the original, the resized content, the padded network input."""

    image: Size
    content: Size
    input: Size


class SemanticDecode(msgspec.Struct, frozen=True, tag="semantic"):
    """How logits become a label map.

    ``resize_to``: the bilinear (half-pixel, align_corners=False) resizes of the logits before the decision, in order:
    ``"input"`` is the network input's size, ``"image"`` the original image's; ``"content"`` resizes nothing, it cuts the
    padding off logits that have the network input's size.
    ``threshold``: for one output channel, the sigmoid probability above which a pixel is class 1.
    ``pixel_values``: what to write in a mask file for each class id, when not the id itself
    (milesial/Pytorch-UNet ``mask_values``); a triple is an RGB colour.
    """

    resize_to: tuple[Literal["input", "content", "image"], ...]
    threshold: float | None = None
    pixel_values: tuple[int | tuple[int, int, int], ...] | None = None


class InstanceDecode(msgspec.Struct, frozen=True, tag="instance"):
    """How detections become instances.

    The network gives, for each image, ``boxes`` (n, 4) float32 x0, y0, x1, y1 in pixels of the network input, ``scores``
    (n,) float32, ``classes`` (n,) int64, ``masks`` (n, side, side) float32 probabilities over the box, sorted by score,
    and ``count`` () int64: how many of the fixed number n are real.
    ``paste``: how a small mask is laid over its box: ``"grid"`` samples at pixel centres (detectron2 and mmdetection
    ``_do_paste_mask``), ``"whole_pixels"`` resizes to the box rounded to whole pixels (torchvision
    ``paste_masks_in_image``). ``threshold``: probability from which on a pixel belongs to the mask.
    """

    paste: Literal["grid", "whole_pixels"]
    threshold: float = 0.5


class PanopticDecode(msgspec.Struct, frozen=True, tag="panoptic"):
    """How instances and stuff maps become one panoptic map (detectron2 ``combine_semantic_and_instance_outputs`` as
    Panoptic FCN calls it).

    ``n_things``: class ids below are things, the others stuff. ``mask_threshold``: probability above which a pixel
    belongs to an instance; ``score_threshold``: instances below are left out; ``overlap``: an instance is dropped when
    more than this share of it is already taken; ``stuff_area``: stuff segments of fewer pixels are left void.
    """

    n_things: int
    mask_threshold: float
    score_threshold: float
    overlap: float
    stuff_area: int


Decode = SemanticDecode | InstanceDecode | PanopticDecode

RawOutput = Literal["logits", "detections", "panoptic_parts"]
"""What a network gives before the task decides: one kind for each task."""

RAW_OUTPUT: dict[Task, RawOutput] = {"semantic": "logits", "instance": "detections", "panoptic": "panoptic_parts"}


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
    """All that inference needs to know of a model besides its weights.

    ``hyperparameters``: arguments that rebuild the network; read from the checkpoint's keys and shapes.
    ``outputs``: the raw network outputs in order, for instance logits (batch, class, height, width).
    ``takes_content_size``: the network has a second input, ``content_size`` int64 (2,) = (height, width) of the content
    (see :class:`ImageInput`), shared by the batch.
    ``category_ids``: for each class, the id that data sets of this model's kind use in their files (COCO's 80 classes have
    ids 1 to 90); None where the position is the id.
    """

    family: str
    variant: str
    task: Task
    hyperparameters: dict[str, int | float | bool | str | list[Any]]
    image: ImageInput
    outputs: tuple[TensorSpec, ...]
    decode: Decode
    slide: Slide | None = None
    takes_content_size: bool = False
    classes: tuple[str, ...]
    colors: tuple[tuple[int, int, int], ...] | None = None
    category_ids: tuple[int, ...] | None = None
    checkpoint: CheckpointRef
    assumed: tuple[Assumption, ...]


class Signature(msgspec.Struct, frozen=True, kw_only=True):
    """What a built graph takes and gives.

    ``output``: ``"labels"`` is a label map (batch, height, width) in the original image's frame, already resized and
    decided; ``"instances"`` is detections whose masks (batch, n, height, width) uint8 are pasted into that frame; the other
    kinds are the raw network outputs, which the task decodes.
    ``input_size``: the fixed network input size, or None when height and width are free.
    ``image_size``: the original image size that the label map is made for; None when it is free, and then
    a label graph takes it as an input of its own, ``image_size`` int64 (2,) = (height, width). ``content_size`` is another
    such input, where the network or the label map needs it. Both are shared by the batch.
    """

    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    output: Literal["logits", "labels", "detections", "instances", "panoptic_parts"]
    input_size: Size | None
    image_size: Size | None
