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
    ImageInput,
    KeepSize,
    Kernel,
    Normalise,
    Resize,
    ScaleResize,
    Size,
)

ImageArray = NDArray[np.uint8]
SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp")


def read_image(path: Path | str, *, exif_orientation: bool = False) -> ImageArray:
    """Decode an 8-bit image file to (height, width, 3) uint8 RGB; grey is repeated, transparency dropped.

    ``exif_orientation``: turn the image as its EXIF tag says.
    Raises :class:`BadImage` for a missing, unreadable, truncated, empty or 16-bit file.
    """
    path = Path(path)
    if not path.is_file():
        raise BadImage(f"no image file at {path}: give the path of a {', '.join(SUFFIXES)} file")
    try:
        with Image.open(path) as image:
            if image.mode.startswith(("I", "F")):
                raise BadImage(f"{path} has {image.mode} pixels (more than 8 bits): convert it to an 8-bit image first")
            turned = ImageOps.exif_transpose(image) if exif_orientation else image
            return np.asarray(turned.convert("RGB"))
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        reason = "not an image file" if isinstance(error, UnidentifiedImageError) else str(error)
        raise BadImage(f"{path} cannot be read as an image ({reason}): give an intact JPEG or PNG file") from error


def resized_size(resize: Resize, size: Size) -> Size:
    """Network input size (height, width) for an image of ``size``; raises :class:`BadImage` if nothing is left."""
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
    if min(result) < 1:
        raise BadImage(f"an image of {h} x {w} pixels becomes {result[0]} x {result[1]} after the resize: use a larger image")
    return result


def prepare(image: ImageArray, spec: ImageInput) -> NDArray[np.float32]:
    """The network's input tensor (1, channel, height, width) for an image (height, width, 3) uint8 RGB.

    Raises :class:`BadImage` for another shape or dtype, and for an empty image.
    """
    _check(image)
    pixels = _resize_image(image, spec.resize)
    if spec.channels == "gray":
        pixels = np.asarray(Image.fromarray(pixels).convert("L"))[:, :, None]
    table = _lookup_table(spec.normalise, pixels)
    tensor = np.empty((1, pixels.shape[2], *pixels.shape[:2]), np.float32)
    for channel in range(pixels.shape[2]):
        np.take(table[channel], pixels[:, :, channel], out=tensor[0, channel])
    return tensor


def _check(image: ImageArray) -> None:
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or image.size == 0:
        raise BadImage(f"an image must be (height, width, 3) uint8 RGB and not empty, got {image.shape} {image.dtype}")


def _fitted_size(resize: FitResize, size: Size) -> Size:
    """mmcv 1.3 ``rescale_size``: the scale that fits both sides, sizes rounded half up."""
    h, w = size
    scale = min(max(resize.long, resize.short) / max(h, w), min(resize.long, resize.short) / min(h, w))
    return int(h * scale + 0.5), int(w * scale + 0.5)


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
