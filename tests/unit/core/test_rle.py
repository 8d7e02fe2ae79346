"""Our run lengths are pycocotools' run lengths, bit for bit."""

from __future__ import annotations

import numpy as np
import pytest
from pycocotools import mask as official

from segship.core.predictions import MaskCrop
from segship.core.rle import compress, crop_of, decompress, runs_of

SIZES = [(1, 1), (1, 9), (9, 1), (13, 21), (70, 50), (300, 4)]


def random_crop(rng: np.random.Generator, size: tuple[int, int]) -> MaskCrop:
    top, left = (int(rng.integers(0, side)) for side in size)
    h, w = int(rng.integers(1, size[0] - top + 1)), int(rng.integers(1, size[1] - left + 1))
    return MaskCrop(top, left, rng.random((h, w)) < rng.choice([0.02, 0.5, 0.98, 1.0]))


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("seed", range(10))
def test_strings_are_pycocotools_own(size: tuple[int, int], seed: int) -> None:
    mask = random_crop(np.random.default_rng(seed), size)
    runs = runs_of(mask, size)
    text = official.encode(np.asfortranarray(mask.full(size).astype(np.uint8)))["counts"].decode()
    assert compress(runs) == text
    assert np.array_equal(decompress(text), runs)
    assert np.array_equal(crop_of(runs, size).full(size), mask.full(size))


def test_long_runs_need_several_characters() -> None:
    mask = MaskCrop(1999, 2999, np.ones((1, 1), bool))
    text = official.encode(np.asfortranarray(mask.full((2000, 3000)).astype(np.uint8)))["counts"].decode()
    assert compress(runs_of(mask, (2000, 3000))) == text
    found = crop_of(decompress(text), (2000, 3000))
    assert (found.top, found.left, found.area) == (1999, 2999, 1)


@pytest.mark.parametrize("pixels", [np.zeros((0, 0), bool), np.zeros((3, 4), bool)])
def test_a_mask_without_pixels(pixels: np.ndarray) -> None:
    runs = runs_of(MaskCrop(2, 1, pixels), (5, 6))
    assert runs.tolist() == [30]
    assert crop_of(runs, (5, 6)).area == 0


def test_a_whole_image_is_one_run() -> None:
    assert runs_of(MaskCrop(0, 0, np.ones((5, 6), bool)), (5, 6)).tolist() == [0, 30]


@pytest.mark.parametrize("runs", [[29], [31], [-1, 31], []])
def test_runs_that_do_not_fill_the_image_are_refused(runs: list[int]) -> None:
    with pytest.raises(ValueError, match="add up to"):
        crop_of(np.array(runs, np.int64), (5, 6))


@pytest.mark.parametrize("text", ["", "\n", "é", "o", "nnnnnnnnnnnnnnnn0"])
def test_broken_strings_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match="compressed counts"):
        decompress(text)
