"""Pasting by both rules, beside straightforward PyTorch forms of them, and at the edges of what a box can be."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn import functional

from segship.core.predictions import MaskCrop
from segship.core.spec import InstanceDecode
from segship.tasks.paste import paste

RULES = ("grid", "whole_pixels")


def pasted(mask: np.ndarray, box: list[float], size: tuple[int, int], rule: str, threshold: float = 0.5) -> MaskCrop:
    decode = InstanceDecode(paste=rule, threshold=threshold)  # type: ignore[arg-type]
    (crop,) = paste(mask[None].astype(np.float32), np.array([box], np.float32), size, decode)
    return crop


def by_grid_sample(mask: np.ndarray, box: list[float], size: tuple[int, int]) -> np.ndarray:
    """The grid rule over the whole image, by PyTorch's own sampler."""
    x0, y0, x1, y1 = torch.tensor(box)
    y = (torch.arange(size[0]) + 0.5 - y0) / (y1 - y0) * 2 - 1
    x = (torch.arange(size[1]) + 0.5 - x0) / (x1 - x0) * 2 - 1
    grid = torch.stack(torch.meshgrid(y, x, indexing="ij")[::-1], dim=-1)[None]
    return functional.grid_sample(torch.from_numpy(mask)[None, None], grid, align_corners=False)[0, 0].numpy()


def by_interpolate(mask: np.ndarray, box: list[float], size: tuple[int, int]) -> np.ndarray:
    """torchvision's rule for a box inside the image, by PyTorch's own resize."""
    half, centre = torch.tensor(box).view(2, 2).diff(dim=0)[0] / 2, torch.tensor(box).view(2, 2).mean(0)
    half = half * (mask.shape[0] + 2) / mask.shape[0]
    (x0, y0), (x1, y1) = (centre - half).long().tolist(), (centre + half).long().tolist()
    padded = functional.pad(torch.from_numpy(mask)[None, None], (1, 1, 1, 1))
    resized = functional.interpolate(padded, size=(y1 - y0 + 1, x1 - x0 + 1), mode="bilinear", align_corners=False)[0, 0]
    whole = np.zeros(size, np.float32)
    whole[y0 : y1 + 1, x0 : x1 + 1] = resized.numpy()
    return whole


@pytest.mark.parametrize(("rule", "reference"), [("grid", by_grid_sample), ("whole_pixels", by_interpolate)])
@pytest.mark.parametrize("box", [[10.3, 5.6, 41.2, 60.9], [20.0, 20.0, 21.5, 70.0], [8.0, 8.0, 64.0, 64.0]])
def test_as_pytorch(rule: str, reference: object, box: list[float]) -> None:
    mask = np.random.default_rng(0).random((28, 28), np.float32)
    soft = reference(mask, box, (80, 90))  # type: ignore[operator]
    different = pasted(mask, box, (80, 90), rule).full((80, 90)) != (soft >= 0.5)
    assert np.all(np.abs(soft[different] - 0.5) < 1e-6)  # another order of float32 sums: only at the very threshold
    assert soft.max() > 0.5


@pytest.mark.parametrize("rule", RULES)
def test_no_detections(rule: str) -> None:
    assert paste(np.zeros((0, 28, 28), np.float32), np.zeros((0, 4), np.float32), (5, 7), InstanceDecode(paste=rule)) == ()  # type: ignore[arg-type]


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize(
    ("box", "size"),
    [
        ([0, 0, 1, 1], (1, 1)),
        ([0, 0, 4000, 2], (2, 4000)),
        ([-9e4, -9e4, 9e4, 9e4], (40, 30)),
        ([-3e8, 10, 3e8, 20], (40, 30)),
    ],
)
def test_a_full_mask_fills_its_box(rule: str, box: list[float], size: tuple[int, int]) -> None:
    whole = pasted(np.ones((28, 28)), box, size, rule).full(size)
    y0, y1 = max(int(box[1]), 0), min(int(box[3]), size[0])
    edge = 0 if rule == "grid" else 1  # torchvision's margin of zeros reaches half a cell, cut to whole pixels, into the box
    assert whole[y0:y1].any()
    assert whole[y0:y1, edge:].all()


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("box", [[50, 2, 60, 8], [-20, 2, -5, 8], [2, 31, 8, 45], [np.nan] * 4])
def test_outside_the_image_is_nothing(rule: str, box: list[float]) -> None:
    assert pasted(np.ones((28, 28)), box, (30, 40), rule).area == 0


@pytest.mark.parametrize("box", [[5, 5, 5, 9], [5, 5, 9, 5], [5, 5, 5, 5], [7, 5, 5, 9]])
def test_a_box_without_area(box: list[float]) -> None:
    assert pasted(np.ones((28, 28)), box, (30, 40), "grid").area == 0
    assert pasted(np.ones((28, 28)), box, (30, 40), "whole_pixels").area <= 2 * 6  # torchvision paints at least a pixel


def test_the_threshold_belongs_to_the_mask() -> None:
    quarter = np.full((4, 4), 0.25)
    assert pasted(quarter, [2, 2, 6, 6], (10, 10), "grid", 0.25).area == 16
    assert pasted(quarter, [2, 2, 6, 6], (10, 10), "grid", 0.26).area == 0
