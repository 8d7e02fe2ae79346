"""The resize of torchvision's detection models is PyTorch's own."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from segship.core.image import prepare
from segship.core.spec import ExactResize, ImageInput, Normalise


@pytest.mark.parametrize(
    ("size", "target"), [((75, 150), (83, 167)), ((40, 901), (31, 700)), ((1, 1), (5, 7)), ((9, 12), (1, 1))]
)
def test_float_linear_is_interpolate(size: tuple[int, int], target: tuple[int, int]) -> None:
    image = np.random.default_rng(0).integers(0, 256, (*size, 3), np.uint8)
    spec = ImageInput(
        "rgb", ExactResize(target, "float_linear"), Normalise(1 / 255, (0.4,) * 3, (0.2,) * 3), exif_orientation=False
    )
    normalised = (torch.from_numpy(image).permute(2, 0, 1)[None] / 255 - 0.4) / 0.2
    expected = torch.nn.functional.interpolate(normalised, size=target, mode="bilinear", align_corners=False)
    assert np.abs(prepare(image, spec) - expected.numpy()).max() < 2e-6  # values to 3: a few roundings of float32
