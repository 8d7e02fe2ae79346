"""The panoptic merge beside the official steps in PyTorch, and its rules one by one."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch.nn import functional

from segship.core.predictions import Segment
from segship.core.spec import Frame, PanopticDecode
from segship.tasks.merge import Parts, panoptic_map, stuff_labels, thing_masks

DECODE = PanopticDecode(n_things=3, mask_threshold=0.4, score_threshold=0.2, overlap=0.5, stuff_area=20)
FRAMES = [
    Frame(image=(97, 130), content=(64, 86), input=(64, 96)),
    Frame(image=(30, 41), content=(64, 87), input=(64, 96)),
    Frame(image=(60, 90), content=(60, 90), input=(64, 96)),
    Frame(image=(300, 410), content=(256, 345), input=(256, 352)),  # masks so large that OpenCV draws them
]
WHOLE = Frame(image=(32, 32), content=(32, 32), input=(32, 32))


def official(maps: NDArray[np.float32], frame: Frame) -> NDArray[np.float32]:
    """(n, h, w) as ``process_inst`` enlarges, cuts and resizes them."""
    larger = functional.interpolate(torch.from_numpy(maps)[None], scale_factor=4, mode="bilinear", align_corners=False)
    cut = larger[..., : frame.content[0], : frame.content[1]]
    return functional.interpolate(cut, size=frame.image, mode="bilinear", align_corners=False)[0].numpy()


def smooth(n: int, frame: Frame) -> NDArray[np.float32]:
    """Random maps (n, h, w) at a quarter of the input's size, 0 to 1."""
    noise = functional.avg_pool2d(torch.rand(1, n, frame.input[0] // 4, frame.input[1] // 4), 5, stride=1, padding=2)
    return ((noise - noise.min()) / (noise.max() - noise.min()))[0].numpy()


@pytest.mark.parametrize("frame", FRAMES)
def test_masks_are_the_official_ones(frame: Frame) -> None:
    maps = smooth(4, frame)
    maps[1, :, 5:] = 0.0  # at the left edge
    maps[2] = 0.0
    maps[2, -4, -3] = 0.9  # one cell, in the corner
    maps[3] = 0.0  # nothing
    near = np.abs(official(maps, frame) - 0.4) < 1e-5  # both round their sums in their own order
    for index, crop in enumerate(thing_masks(maps, 0.4, frame)):
        assert np.array_equal(crop.full(frame.image) | near[index], (official(maps, frame)[index] > 0.4) | near[index])
        assert (index == 3) == (crop.area == 0)


@pytest.mark.parametrize("frame", FRAMES)
def test_stuff_is_the_official_argmax(frame: Frame) -> None:
    maps, seen = smooth(5, frame), np.array([True, False, True, True, False])
    maps[~seen] = 0.0
    expected = official(maps, frame)
    margin = np.diff(np.sort(expected, axis=0)[-2:], axis=0)[0]
    found = stuff_labels(parts(stuff=maps, seen=seen), frame)
    assert np.array_equal(found[margin > 1e-5], expected.argmax(0)[margin > 1e-5])  # both round their sums in their own order


def parts(
    masks: NDArray[np.float32] | None = None,
    scores: tuple[float, ...] = (),
    stuff: NDArray[np.float32] | None = None,
    seen: NDArray[np.bool_] | None = None,
) -> Parts:
    """Parts of an image of 32 x 32 pixels unless maps say otherwise; objects have the classes 0, 1, 2, 0, ..."""
    masks = np.zeros((len(scores), 8, 8), np.float32) if masks is None else masks
    stuff = np.zeros((4, 8, 8), np.float32) if stuff is None else stuff
    seen = stuff.max((1, 2)) > 0 if seen is None else seen
    return Parts(masks, np.array(scores, np.float32), np.arange(len(scores)) % 3, stuff, seen)


def boxes(*corners: tuple[int, int, int, int]) -> NDArray[np.float32]:
    """Maps that are 1 from (top, left) to (bottom, right), in cells."""
    maps = np.zeros((len(corners), 8, 8), np.float32)
    for each, (top, left, bottom, right) in zip(maps, corners, strict=True):
        each[top:bottom, left:right] = 1.0
    return maps


def test_nothing_found_is_an_empty_map() -> None:
    found = panoptic_map(parts(), DECODE, WHOLE)
    assert found.segments == ()
    assert not found.ids.any()


def test_first_come_first_served() -> None:
    masks = boxes((0, 0, 8, 4), (0, 1, 8, 4), (0, 3, 8, 8), (0, 0, 8, 8))
    found = panoptic_map(parts(masks, (0.9, 0.8, 0.7, 0.1)), DECODE, WHOLE)
    # the second lies in the first, the fourth scores too little
    assert [(s.id, s.class_id, s.is_thing) for s in found.segments] == [(1, 0, True), (2, 2, True)]
    assert (found.ids[0, 0], found.ids[0, -1]) == (1, 2)
    assert found.ids[16, 14] == 1  # where both are, the first stays


def test_stuff_fills_the_rest() -> None:
    stuff = np.stack([*boxes((0, 0, 8, 2), (0, 2, 8, 5), (0, 5, 8, 8), (7, 7, 8, 8))])
    stuff[3] *= 2  # 16 pixels or a little more, less than with its neighbours' share
    decode = PanopticDecode(n_things=3, mask_threshold=0.4, score_threshold=0.2, overlap=0.5, stuff_area=40)
    found = panoptic_map(parts(boxes((0, 4, 4, 8)), (0.5,), stuff), decode, WHOLE)
    assert found.segments == (
        Segment(1, 0, is_thing=True, score=0.5),
        Segment(2, 3, is_thing=False),  # stuff 1 follows the three things
        Segment(3, 4, is_thing=False),
    )
    assert not found.ids[:, :4].any()  # stuff 0 is all things as one: void
    assert found.ids[-1, -1] == 0  # too small
    assert (found.ids[0, -1], found.ids[-1, 12], found.ids[-8, 24]) == (1, 2, 3)
