"""From an image file to the network's input tensor, exactly as the official code does it.

Images are (height, width, 3) uint8 RGB; tensors are (1, channel, height, width) float32.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from segship.core.errors import BadImage
from segship.core.spec import (
    ExactResize,
    FitResize,
    Frame,
    ImageInput,
    KeepSize,
    Kernel,
    Normalise,
    Resize,
    ScaleResize,
    ShortestEdgeResize,
    Size,
)

ImageArray = NDArray[np.uint8]
SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp")


def read_image(path: Path | str, *, exif_orientation: bool = False) -> ImageArray:
    """Decode an image file to (height, width, 3) uint8 RGB; grey is repeated, transparency dropped.

    ``exif_orientation``: turn the image as its EXIF tag says. Of 16-bit colours the upper bytes count, as Pillow reads them.
    Raises :class:`BadImage` for a missing, unreadable, truncated or empty file, and for grey of more than 8 bits, which Pillow
    would clip.
    """
    path = Path(path)
    if path.is_dir():
        raise BadImage(f"{path} is a folder, expected an image file: name the images in it, for instance {path / '*.jpg'}")
    if not path.is_file():
        raise BadImage(f"no image file at {path}: give the path of a {', '.join(SUFFIXES)} file")
    try:
        with Image.open(path) as image:
            if image.mode.startswith(("I", "F")):
                raise BadImage(f"{path} has {image.mode} pixels (more than 8 bits): convert it to an 8-bit image first")
            turned = ImageOps.exif_transpose(image) if exif_orientation else image
            turned.info.pop("transparency", None)  # it is dropped: Pillow would warn that it keeps none of it
            return np.asarray(turned.convert("RGB"))
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        reason = "not an image file" if isinstance(error, UnidentifiedImageError) else str(error)
        raise BadImage(f"{path} cannot be read as an image ({reason}): give an intact JPEG or PNG file") from error


def frame(spec: ImageInput, size: Size) -> Frame:
    """The sizes on the way of an image of ``size`` (height, width); raises :class:`BadImage` if too little is left of it."""
    content = resized_size(spec.resize, size)
    sizes = Frame(size, content, _ceil_to(content, spec.divisor))
    if min(sizes.input) < spec.smallest:
        raise BadImage(
            f"an image of {size[0]} x {size[1]} pixels gives a network input of {sizes.input[0]} x {sizes.input[1]}, and this "
            f"network needs {spec.smallest} pixels on either side: use a larger image"
        )
    return sizes


def resized_size(resize: Resize, size: Size) -> Size:
    """Size (height, width) of the content for an image of ``size``; raises :class:`BadImage` if nothing is left."""
    h, w = size
    match resize:
        case KeepSize():
            result = (h, w)
        case ScaleResize(factor=factor):  # truncated: data_loading.py, BasicDataset.preprocess
            result = (int(factor * h), int(factor * w))
        case FitResize():
            result = _ceil_to(_fitted_size(resize, size), resize.divisor or 1)
        case ExactResize(size=exact):
            result = exact
        case ShortestEdgeResize():
            result = _shortest_edge_size(resize, size)
    if min(result) < 1:
        raise BadImage(
            f"an image of {h} x {w} pixels becomes {result[0]} x {result[1]} after the resize: "
            "use a larger image, or one less narrow"
        )
    return result


def prepare(image: ImageArray, spec: ImageInput) -> NDArray[np.float32]:
    """The network's input tensor (1, channel, height, width) for an image (height, width, 3) uint8 RGB.

    Raises :class:`BadImage` for another shape or dtype, and for an empty image.
    """
    _check(image)
    sizes = frame(spec, image.shape[:2])
    resize_last = getattr(spec.resize, "kernel", None) == "float_linear"
    pixels = _in_channels(image if resize_last else _resize_image(image, spec.resize), spec.channels)
    table = _lookup_table(spec.normalise, pixels)
    tensor = np.zeros((1, pixels.shape[2], *sizes.input), np.float32)
    content = tensor[0, :, : sizes.content[0], : sizes.content[1]]
    for channel in range(pixels.shape[2]):
        if resize_last:
            content[channel] = _float_linear(table[channel][pixels[:, :, channel]], sizes.content)
        else:
            np.take(table[channel], pixels[:, :, channel], out=content[channel])
    return tensor


def _check(image: ImageArray) -> None:
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or image.size == 0:
        raise BadImage(f"an image must be (height, width, 3) uint8 RGB and not empty, got {image.shape} {image.dtype}")


def _fitted_size(resize: FitResize, size: Size) -> Size:
    """mmcv 1.3 ``rescale_size``: the scale that fits both sides, sizes rounded half up."""
    h, w = size
    scale = min(max(resize.long, resize.short) / max(h, w), min(resize.long, resize.short) / min(h, w))
    return int(h * scale + 0.5), int(w * scale + 0.5)


def _shortest_edge_size(resize: ShortestEdgeResize, size: Size) -> Size:
    h, w = size
    if resize.rounding == "torchvision":  # GeneralizedRCNNTransform: float32 factor, sizes floored by interpolate()
        factor = float(min(np.float32(resize.short) / np.float32(min(size)), np.float32(resize.long) / np.float32(max(size))))
        return math.floor(h * factor), math.floor(w * factor)
    factor = resize.short / min(h, w)
    high, wide = (float(resize.short), factor * w) if h < w else (factor * h, float(resize.short))
    if max(high, wide) > resize.long:
        factor = resize.long / max(high, wide)
        high, wide = high * factor, wide * factor
    return int(high + 0.5), int(wide + 0.5)


def _in_channels(pixels: ImageArray, channels: str) -> ImageArray:
    """(height, width, channel) in the order of the network."""
    if channels == "gray":
        return np.asarray(Image.fromarray(pixels).convert("L"))[:, :, None]
    return pixels[:, :, ::-1] if channels == "bgr" else pixels


def _ceil_to(size: Size, divisor: int) -> Size:
    return math.ceil(size[0] / divisor) * divisor, math.ceil(size[1] / divisor) * divisor


def _resize_image(image: ImageArray, resize: Resize) -> ImageArray:
    target = resized_size(resize, image.shape[:2])
    if isinstance(resize, KeepSize):
        return image
    kernel = _KERNELS[resize.kernel]
    if isinstance(resize, FitResize) and resize.divisor:  # two resizes in a row, as the official AlignedResize
        image = kernel(image, _fitted_size(resize, image.shape[:2]))
    return kernel(image, target)


def _pil(image: ImageArray, size: Size, kernel: Image.Resampling) -> ImageArray:
    return np.asarray(Image.fromarray(image).resize((size[1], size[0]), kernel))


def _cv2_linear(image: ImageArray, size: Size) -> ImageArray:
    import cv2  # costs 0.1 s to import: only models that resize with OpenCV pay for it

    if image.shape[:2] == size:
        return image
    return np.asarray(cv2.resize(image, (size[1], size[0]), interpolation=cv2.INTER_LINEAR), np.uint8)


def _float_linear(plane: NDArray[np.float32], size: Size) -> NDArray[np.float32]:
    """``interpolate(mode="bilinear", align_corners=False)``, to 1e-6; OpenCV's positions differ by 1e-4 of a pixel."""
    for axis, length in enumerate(size):
        low, high, share = _neighbours(plane.shape[axis], length)
        share = share[:, None] if axis == 0 else share
        below, above = plane.take(low, axis), plane.take(high, axis)
        above -= below
        above *= share
        plane = np.add(below, above, out=below)
    return plane


def _neighbours(side: int, length: int) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float32]]:
    """For each of ``length`` target pixels: the two source pixels around it, and the share of the second.

    Positions are rounded to float32 once, from a float32 scale: PyTorch's kernel has a fused multiply-add there.
    """
    scale = np.float64(np.float32(side / length))
    at = np.maximum(((np.arange(length) + 0.5) * scale - 0.5).astype(np.float32), np.float32(0))
    low = np.minimum(at.astype(np.int64), side - 1)
    return low, np.minimum(low + 1, side - 1), at - low.astype(np.float32)


_KERNELS: dict[Kernel, Callable[[ImageArray, Size], ImageArray]] = {
    "pil_bilinear": lambda image, size: _pil(image, size, Image.Resampling.BILINEAR),
    "pil_bicubic": lambda image, size: _pil(image, size, Image.Resampling.BICUBIC),
    "cv2_linear": _cv2_linear,
}


def _lookup_table(normalise: Normalise, pixels: ImageArray) -> NDArray[np.float32]:
    """Normalised value of each 8-bit pixel value, (channel, 256): computed in float64, so rounded once."""
    values = np.arange(256, dtype=np.float64)
    if not (normalise.scale_only_above_one and pixels.max() <= 1):
        values = values * normalise.scale
    channels = pixels.shape[2]
    mean = np.broadcast_to(normalise.mean if normalise.mean is not None else 0.0, channels)[:, None]
    std = np.broadcast_to(normalise.std if normalise.std is not None else 1.0, channels)[:, None]
    table: NDArray[np.float32] = ((values[None] - mean) / std).astype(np.float32)
    return table
