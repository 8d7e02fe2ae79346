"""Boundary IoU against its definition, pixel by pixel."""

from __future__ import annotations

import math

import numpy as np
import pytest

from segship.core.predictions import Instances, MaskCrop, SemanticMap
from segship.tasks.boundary import (
    BoundaryIoU,
    boundary_iou,
    boundary_width,
    mask_boundary,
    mask_boundary_iou,
    matched_boundary_iou,
)


def literal_boundary(mask: np.ndarray, width: int) -> np.ndarray:
    """The mask's pixels from which some pixel outside, or the image's end, is at most ``width`` away, as the paper says it."""
    near = np.zeros(mask.shape, bool)
    for y, x in np.argwhere(mask):
        for v in range(y - width, y + width + 1):
            for u in range(x - width, x + width + 1):
                inside = 0 <= v < mask.shape[0] and 0 <= u < mask.shape[1] and mask[v, u]
                near[y, x] |= not inside
    return near


def literal_iou(first: np.ndarray, second: np.ndarray, width: int) -> float:
    one, other = literal_boundary(first, width), literal_boundary(second, width)
    return float((one & other).sum() / (one | other).sum()) if (one | other).any() else math.nan


def blocks(seed: int, shape: tuple[int, int], n: int) -> np.ndarray:
    """A label map of blocks of 7 x 5 pixels."""
    coarse = np.random.default_rng(seed).integers(0, n, (-(-shape[0] // 7), -(-shape[1] // 5)))
    return np.kron(coarse, np.ones((7, 5), int))[: shape[0], : shape[1]].astype(np.uint8)


@pytest.mark.parametrize("width", [1, 2, 3])
@pytest.mark.parametrize("shape", [(1, 1), (1, 9), (20, 26)])
def test_the_boundary_of_a_mask_is_the_definition(shape: tuple[int, int], width: int) -> None:
    for seed in range(4):
        mask = blocks(seed, shape, 2) == 1
        assert np.array_equal(mask_boundary(mask, width), literal_boundary(mask, width))


@pytest.mark.parametrize("ratio", [0.02, 0.1])
def test_label_maps_are_judged_as_the_masks_of_their_classes(ratio: float) -> None:
    truth, labels = blocks(1, (40, 50), 4), np.roll(blocks(1, (40, 50), 4), 1, axis=0)
    scorer = BoundaryIoU(5, None, ratio)
    scorer.add(SemanticMap(truth), SemanticMap(labels))
    scores = scorer.scores()
    width = boundary_width((40, 50), ratio)
    wanted = [100 * literal_iou(truth == c, labels == c, width) for c in range(5)]
    assert np.allclose(scores.per_class, wanted, rtol=0, atol=1e-9, equal_nan=True)  # the same quotients of whole numbers
    assert np.isnan(scores.per_class[4])
    assert boundary_iou(truth, labels, 5, None, ratio) == scores.mean == pytest.approx(np.mean(wanted[:4]), abs=1e-9)
    assert scores.mean < 100 == boundary_iou(truth, truth, 5, None, ratio)


def test_what_is_not_judged_costs_nothing() -> None:
    truth = blocks(2, (40, 50), 3)
    labels = truth.copy()
    truth[10:20, 10:30] = 255
    assert boundary_iou(truth, labels, 3, 255) == 100
    labels[12:18, 12:28] = 1
    assert boundary_iou(truth, labels, 3, 255) == 100
    assert math.isnan(boundary_iou(np.full((4, 4), 255, np.uint8), labels[:4, :4], 3, 255))


def test_the_width_is_two_percent_of_the_diagonal() -> None:
    assert boundary_width((1024, 2048)) == 46
    assert boundary_width((8, 8)) == 1


def crop(mask: np.ndarray) -> MaskCrop:
    """The mask without its empty rows and columns."""
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    return MaskCrop(int(rows[0]), int(columns[0]), mask[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1])


def test_crops_are_judged_as_whole_masks() -> None:
    first, second, third = np.zeros((3, 30, 40), bool)
    first[:20, 5:30], second[3:22, 8:33], third[25:, 38:] = True, True, True
    assert mask_boundary_iou(crop(first), crop(second), 3) == pytest.approx(literal_iou(first, second, 3), abs=1e-12)
    assert mask_boundary_iou(crop(first), crop(third), 3) == 0


def objects(*found: tuple[int, np.ndarray]) -> Instances:
    n = len(found)
    return Instances(
        size=(30, 40),
        boxes=np.zeros((n, 4), np.float32),
        scores=np.ones(n, np.float32),
        classes=np.array([c for c, _ in found], np.int64),
        masks=tuple(crop(mask) for _, mask in found),
    )


def test_of_instances_the_pairs_are_judged() -> None:
    large, shifted, far = np.zeros((3, 30, 40), bool)
    large[2:20, 5:30], shifted[3:21, 5:30], far[25:, 30:] = True, True, True
    scores = matched_boundary_iou(objects((1, large), (0, far)), objects((2, far), (1, shifted)), 3)
    assert scores.mean == scores.per_class[1] == pytest.approx(100 * literal_iou(large, shifted, 1), abs=1e-9)  # float64
    assert scores.support.tolist() == [0, 1, 0]
    assert np.isnan(scores.per_class[[0, 2]]).all()
    assert math.isnan(matched_boundary_iou(objects(), objects(), 3).mean)
