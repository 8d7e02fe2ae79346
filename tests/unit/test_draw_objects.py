"""Instances and panoptic maps as pictures, and where two of them differ."""

from __future__ import annotations

from itertools import combinations
from time import process_time

import numpy as np
import pytest
from PIL import ImageFont

from segship.core.errors import BadArgument
from segship.core.predictions import Instances, MaskCrop, PanopticMap, Segment
from segship.draw import differing, disagreement, overlay, paint
from segship.draw.colors import to_oklab
from segship.draw.names import Name, place_names
from segship.draw.tints import tint, tints
from segship.tasks import panoptic

CLASSES = ("car", "tree", "sky")
COLORS = ((200, 30, 30), (0, 180, 60), (60, 90, 220))
Box = tuple[int, int, int, int]
"""Top, left, height, width."""


def grey(height: int, width: int) -> np.ndarray:
    return np.full((height, width, 3), 100, np.uint8)


def objects(size: tuple[int, int], *boxes: Box, classes: tuple[int, ...] | None = None, score: float = 0.75) -> Instances:
    """Full rectangles, of class 0 unless said."""
    corners = [(left, top, left + width, top + height) for top, left, height, width in boxes]
    return Instances(
        size=size,
        boxes=np.array(corners, np.float32).reshape(-1, 4),
        scores=np.full(len(boxes), score, np.float32),
        classes=np.array(classes or (0,) * len(boxes), np.int64),
        masks=tuple(MaskCrop(top, left, np.ones((height, width), bool)) for top, left, height, width in boxes),
    )


def scattered(n: int, size: tuple[int, int], seed: int = 0) -> Instances:
    """``n`` rectangles of all classes, somewhere, up to a third of the picture large."""
    rng = np.random.default_rng(seed)
    boxes = []
    for _ in range(n):
        height, width = (int(rng.integers(1, max(side // 3, 1) + 1)) for side in size)
        boxes.append((int(rng.integers(0, size[0] - height + 1)), int(rng.integers(0, size[1] - width + 1)), height, width))
    return objects(size, *boxes, classes=tuple(rng.integers(0, 3, n).tolist()))


def halves(height: int, width: int) -> PanopticMap:
    """Sky on the left, a car at the right end, void between."""
    ids = np.zeros((height, width), np.int32)
    ids[:, : width // 2], ids[:, 3 * width // 4 :] = 900, 7
    return PanopticMap(ids, (Segment(7, 0, True, 0.5), Segment(900, 2, False)))


@pytest.mark.parametrize("size", [(1, 1), (1, 40), (256, 256), (12, 3000), (300, 5)])
@pytest.mark.parametrize("n", [0, 1, 100])
def test_any_number_of_objects_at_any_size(n: int, size: tuple[int, int]) -> None:
    image = grey(*size)
    before = image.copy()
    assert overlay(image, scattered(n, size), CLASSES, COLORS, legend=False).shape == image.shape
    with_legend = overlay(image, scattered(n, size), CLASSES, COLORS)
    assert (with_legend.shape == image.shape) == (n == 0)
    assert np.array_equal(image, before)


@pytest.mark.parametrize("size", [(1, 4), (4, 4), (256, 256), (12, 3000), (300, 5)])
def test_panoptic_maps_of_any_size(size: tuple[int, int]) -> None:
    assert overlay(grey(*size), halves(*size), CLASSES, COLORS, legend=False).shape == (*size, 3)
    assert overlay(grey(*size), PanopticMap(np.zeros(size, np.int32)), CLASSES, legend=False).max() < 100


def test_an_object_has_the_colour_of_its_class_within_a_pale_line_and_nothing_else_is_touched() -> None:
    picture = overlay(grey(100, 120), objects((100, 120), (20, 30, 40, 50)), CLASSES, COLORS, legend=False).astype(int)
    assert np.abs(picture[40, 55] - [50 + part / 2 for part in COLORS[0]]).max() <= 1
    assert picture[40, 29:31].sum(-1).max() > picture[40, 55].sum() + 80
    outside = np.ones((100, 120), bool)
    outside[16:64, 26:84] = False
    assert (picture[outside] == 100).all()


def test_small_objects_lie_over_large_ones() -> None:
    first = overlay(grey(100, 120), objects((100, 120), (40, 50, 20, 20), (10, 10, 80, 90)), CLASSES, COLORS, legend=False)
    second = overlay(grey(100, 120), objects((100, 120), (10, 10, 80, 90), (40, 50, 20, 20)), CLASSES, COLORS, legend=False)
    assert np.array_equal(first, second)
    assert not np.array_equal(first[50, 60], first[50, 30])


def test_panoptic_maps_have_calm_stuff_vivid_things_and_dark_void() -> None:
    picture = overlay(grey(60, 80), halves(60, 80), CLASSES, COLORS, legend=False).astype(int)
    for x, color in ((10, COLORS[2]), (72, COLORS[0])):
        assert np.abs(picture[30, x] - [50 + part / 2 for part in color]).max() <= 1
    assert picture[30, 48].tolist() == [55, 55, 55]


def test_the_legend_counts_objects_and_not_crowds() -> None:
    size = (40, 80)
    found = objects(size, (0, 0, 40, 10), (0, 5, 40, 15), (0, 60, 20, 20), classes=(0, 0, 2))
    crowded = Instances(size, found.boxes, found.scores, found.classes, found.masks, np.array([True, False, False]))
    for prediction, n in ((found, 2), (crowded, 1)):
        entries = paint(prediction, grey(*size), CLASSES, COLORS)[1]
        assert [(e.name, e.share, e.objects) for e in entries] == [("car", 0.25, n), ("sky", 0.125, 1)]
    entries = paint(halves(*size), grey(*size), CLASSES, COLORS)[1]
    assert [(e.name, e.share, e.objects) for e in entries] == [("sky", 0.5, None), ("car", 0.25, 1)]


def test_neighbours_of_one_class_are_told_apart_and_still_of_its_hue() -> None:
    row = np.array([[10 * i, 0, 10 * i + 10, 10] for i in range(5)], float)
    chosen = tints([0] * 5, row, COLORS)
    lab = to_oklab(np.array(chosen))
    assert np.linalg.norm(np.diff(lab, axis=0), axis=1).min() > 0.1
    angle = np.arctan2(lab[:, 2], lab[:, 1])
    own = to_oklab(np.array([COLORS[0]]))[0]
    assert np.abs(angle - np.arctan2(own[2], own[1])).max() < np.deg2rad(30)
    assert tints([1], row[:1], COLORS) == [COLORS[1]]


def test_an_object_keeps_its_tint_when_another_far_away_or_a_smaller_one_is_lost() -> None:
    boxes = np.array([[0, 0, 50, 50], [40, 0, 80, 50], [30, 30, 60, 50], [300, 300, 330, 340]], float)
    whole = tints([0] * 4, boxes, COLORS)
    assert tints([0] * 2, boxes[:2], COLORS) == whole[:2]
    assert whole[3] == whole[0] == COLORS[0]


@pytest.mark.parametrize("color", [(0, 0, 0), (255, 255, 255), (128, 128, 128), (255, 255, 0), (0, 0, 70)])
def test_every_colour_has_seven_tints(color: tuple[int, int, int]) -> None:
    found = {tint(color, step) for step in range(7)}
    assert all(0 <= part <= 255 for each in found for part in each)
    assert len(found) >= 5


@pytest.mark.parametrize("seed", range(5))
def test_names_lie_in_the_picture_and_on_no_other_name(seed: int) -> None:
    names = [Name("pedestrian 0.75", mask, (0, 0, 0)) for mask in scattered(25, (300, 400), seed).masks]
    plates = [plate for _, plate in place_names(names, (400, 300), ImageFont.load_default(12), 12)]
    assert len(plates) >= 10
    for plate in plates:
        assert plate[:2].min() >= 0
        assert plate[2] <= 400
        assert plate[3] <= 300
    for a, b in combinations(plates, 2):
        assert a[2] < b[0] or b[2] < a[0] or a[3] < b[1] or b[3] < a[1]


def test_names_are_left_out_of_many_small_objects_and_of_many_of_one_class() -> None:
    size = (300, 400)
    grid = [(20 * y, 20 * x, 16, 16) for y in range(15) for x in range(20)]
    wide = [(60 * y, 60 * x, 50, 50) for y in range(5) for x in range(6)]
    cases = [
        (objects(size, *grid[:200:21]), True),
        (objects(size, *grid, classes=(0, 1, 2) * 100), False),
        (objects(size, *wide, classes=(0, 1, 2) * 10), True),
        (objects(size, *wide), False),
    ]
    for prediction, named in cases:
        with_names, without = (paint(prediction, grey(300, 400), CLASSES, COLORS, names=names)[0] for names in (True, False))
        assert np.array_equal(with_names, without) != named


def test_truth_bears_no_scores() -> None:
    """Every score of truth is 1, so its names are narrower."""
    box = (50, 50, 60, 60)
    bare = overlay(grey(200, 200), objects((200, 200), box, score=1), CLASSES, COLORS, legend=False)
    changed = [
        np.flatnonzero((paint(objects((200, 200), box, score=s), grey(200, 200), CLASSES, COLORS)[0] != bare).any((0, 2)))
        for s in (1, 0.5)
    ]
    assert np.ptp(changed[0]) < np.ptp(changed[1])


def test_instances_differ_where_one_of_a_pair_is_alone_and_in_objects_without_partner() -> None:
    size = (40, 80)
    first = objects(size, (5, 5, 20, 20), (10, 50, 10, 10))
    second = objects(size, (5, 8, 20, 20), (10, 50, 10, 10), (30, 0, 5, 5), classes=(0, 1, 0))
    expected = np.zeros(size, bool)
    expected[5:25, 5:8] = expected[5:25, 25:28] = True
    expected[10:20, 50:60] = True
    expected[30:35, 0:5] = True
    assert np.array_equal(differing(first, second), expected)
    assert np.array_equal(differing(second, first), expected)
    assert not differing(first, first).any()


def test_panoptic_maps_differ_where_they_do_not_agree() -> None:
    first, second = halves(40, 80), halves(40, 80)
    assert not differing(first, second).any()
    ids = first.ids.copy()
    ids[:, 10:20] = 0
    ids[:, 55:60] = 7
    second = PanopticMap(ids, first.segments)
    expected = first.ids != ids
    assert np.array_equal(differing(first, second), expected)
    assert panoptic.agreement(first, second) == pytest.approx(1 - expected.mean(), abs=1e-12)  # one quotient, one difference


def test_bad_predictions_are_refused() -> None:
    with pytest.raises(BadArgument, match="class id 2"):
        overlay(grey(40, 80), halves(40, 80), ("car",))
    with pytest.raises(BadArgument, match="class id 2"):
        overlay(grey(40, 80), objects((40, 80), (0, 0, 5, 5), classes=(2,)), ("car",))
    for first, second in ((halves(4, 8), halves(8, 8)), (objects((4, 4)), objects((5, 4)))):
        with pytest.raises(BadArgument, match="those of one image"):
            differing(first, second)


@pytest.mark.parametrize("others", [halves(40, 80), objects((40, 80))])
def test_predictions_of_two_tasks_are_not_compared(others: PanopticMap | Instances) -> None:
    first = objects((40, 80)) if isinstance(others, PanopticMap) else halves(40, 80)
    with pytest.raises(BadArgument, match="two predictions of one task"):
        disagreement(grey(40, 80), first, others)


def test_a_hundred_objects_are_drawn_and_compared_in_a_fraction_of_a_second() -> None:
    image, first, second = grey(800, 1216), scattered(100, (800, 1216)), scattered(100, (800, 1216), 1)

    def seconds() -> float:
        begin = process_time()
        overlay(image, first, CLASSES)
        differing(first, second)
        return process_time() - begin

    # boxes up to a third of each side: three times what real objects cover; 0.3 s of processor time when others work too
    assert min(seconds() for _ in range(4)) < 0.6
