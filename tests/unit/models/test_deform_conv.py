"""Modulated deformable convolution beside its definition, written out in float64."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from segship.models.parts.deform_conv import DeformConv, as_pointwise, sampled

Float = NDArray[np.float64]


def value_at(plane: Float, y: float, x: float) -> float:
    """Bilinear value of a plane (h, w); corners outside count as 0, and so does everything from a pixel beyond the edge on."""
    h, w = plane.shape
    if not (-1 < y < h and -1 < x < w):
        return 0.0
    top, left = int(np.floor(y)), int(np.floor(x))
    total = 0.0
    for row, share_y in ((top, 1 - (y - top)), (top + 1, y - top)):
        for column, share_x in ((left, 1 - (x - left)), (left + 1, x - left)):
            if 0 <= row < h and 0 <= column < w:
                total += share_y * share_x * plane[row, column]
    return total


def defined(x: Float, weight: Float, offsets: Float, masks: Float) -> Float:
    """One image (c, h, w), ``weight`` (o, c, 3, 3), ``offsets`` (18, h, w), ``masks`` (9, h, w): the result (o, h, w)."""
    _, h, w = x.shape
    result = np.zeros((len(weight), h, w))
    for row in range(h):
        for column in range(w):
            for tap in range(9):
                y = row + tap // 3 - 1 + offsets[2 * tap, row, column]
                z = column + tap % 3 - 1 + offsets[2 * tap + 1, row, column]
                taps = np.array([value_at(plane, y, z) for plane in x]) * masks[tap, row, column]
                result[:, row, column] += weight[:, :, tap // 3, tap % 3] @ taps
    return result


@pytest.mark.parametrize("size", [(5, 7), (1, 1), (1, 6), (3, 1)])
@pytest.mark.parametrize("reach", [0.4, 3.0, 20.0])  # inside, across the edge, far outside
def test_sampling_is_the_definition(size: tuple[int, int], reach: float) -> None:
    rng = np.random.default_rng(0)
    x, weight = rng.standard_normal((2, 3, *size)), rng.standard_normal((4, 3, 3, 3))
    offsets, masks = reach * rng.standard_normal((2, 18, *size)), rng.uniform(0, 1, (2, 9, *size))
    expected = np.stack([defined(*each) for each in zip(x, [weight] * 2, offsets, masks, strict=True)])
    taps = sampled(*(torch.from_numpy(each) for each in (x, offsets, masks)))
    found = torch.nn.functional.conv2d(taps, as_pointwise(torch.from_numpy(weight)))
    np.testing.assert_allclose(found.numpy(), expected, rtol=0, atol=1e-10)  # float64, positions of up to 60 pixels


def test_whole_offsets_are_shifts() -> None:
    """dy before dx, taps in reading order: an offset of one row down samples the row below."""
    x = torch.arange(12.0).reshape(1, 1, 3, 4)
    offsets = torch.zeros(1, 18, 3, 4)
    offsets[:, 8] = 1.0  # dy of the middle tap
    middle = sampled(x, offsets, torch.ones(1, 9, 3, 4))[0, 4]
    torch.testing.assert_close(middle, torch.tensor([[4.0, 5, 6, 7], [8, 9, 10, 11], [0, 0, 0, 0]]), rtol=0, atol=1e-5)


def test_without_offsets_it_is_a_convolution() -> None:
    conv = DeformConv(3, 5)
    for parameter in (conv.offset_mask_conv.weight, conv.offset_mask_conv.bias):
        torch.nn.init.zeros_(parameter)  # offsets 0, masks sigmoid(0) = 1/2
    weight, x = torch.randn(5, 3, 3, 3), torch.randn(2, 3, 9, 6)
    conv.dcnv2.weight.data = as_pointwise(weight)
    expected = torch.nn.functional.conv2d(x, weight / 2, conv.dcnv2.bias, padding=1)
    torch.testing.assert_close(conv(x), expected, rtol=0, atol=2e-5)  # float32 sums of 27 products
