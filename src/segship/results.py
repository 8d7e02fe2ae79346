"""What ``predict`` writes: label pictures, shares of classes. Serving path: numpy and Pillow only."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Literal

import numpy as np
from PIL import Image

from segship.core.predictions import LabelArray, SemanticMap
from segship.core.spec import SemanticDecode


def label_image(prediction: SemanticMap, decode: SemanticDecode) -> LabelArray:
    """What to write for each pixel: the class id, or the value or colour that the model's own code writes for it.

    (height, width) uint8 or uint16, or (height, width, 3) uint8 where ``decode.pixel_values`` are colours.
    """
    values = decode.pixel_values
    if values is None or values == (0, 1):  # milesial writes a 1-bit image for [0, 1]; ids 0 and 1 say the same
        return prediction.labels
    table = np.array(values, np.uint16)
    return table[prediction.labels].astype(np.uint8 if table.max() < 256 else np.uint16)


def class_shares(prediction: SemanticMap, classes: Sequence[str]) -> dict[str, float]:
    """Share of the picture of each class that occurs, largest first."""
    counts = np.bincount(prediction.labels.ravel(), minlength=len(classes)) / prediction.labels.size
    order = np.argsort(-counts, kind="stable")
    return {classes[index]: round(float(counts[index]), 6) for index in order if counts[index] > 0}


def picture_bytes(pixels: LabelArray, form: Literal["PNG", "JPEG"]) -> bytes:
    """An encoded picture; PNG is lossless, JPEG of quality 92."""
    buffer = io.BytesIO()
    options = {"quality": 92} if form == "JPEG" else {"compress_level": 3}
    Image.fromarray(pixels).save(buffer, form, **options)
    return buffer.getvalue()
