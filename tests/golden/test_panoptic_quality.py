"""Panoptic quality against the official COCO panoptic API, and hand-made maps for each of its rules."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from golden.case import CASES
from golden.panoptic_case import cases, categories, expected, pairs
from segship.core.predictions import PanopticMap, Segment
from segship.tasks import panoptic, panoptic_quality
from segship.tasks.panoptic_quality import PanopticQuality, agreeing, agreement, overlaps

FOUND = cases(Path(os.environ.get("SEGSHIP_GOLDEN", CASES)))
TOLERANCE = 1e-9
"""Of one: both add up the same float64 quotients of whole numbers, only in another order."""
KEYS = ("pq", "sq", "rq")
PARTS = {"All": "all", "Things": "things", "Stuff": "stuff"}


def scored(folder: Path) -> PanopticQuality:
    scorer = panoptic.scorer(len(categories(folder)), None)
    for truth, prediction in pairs(folder):
        scorer.add(truth, prediction)
    return scorer


def faults(folder: Path, scorer: PanopticQuality) -> list[str]:
    """Every number that is not the official one. The official table says 0 for classes that do not occur."""
    wanted, values, totals = expected(folder), np.nan_to_num(scorer.per_class()) / 100, scorer.overall()
    found: list[tuple[str, float, float]] = []
    for position, category in enumerate(categories(folder)):
        of_class: dict[str, Any] = wanted["per_class"][str(category)]
        found += [(f"{category} {key}", of_class[key], values[i, position]) for i, key in enumerate(KEYS)]
    for name, part in PARTS.items():
        found += [(f"{name} {key}", wanted[name][key], getattr(totals[part], key) / 100) for key in KEYS]
        found.append((f"{name} n", wanted[name]["n"], totals[part].n))
    return [f"{name}: {value} instead of {official}" for name, official, value in found if not abs(value - official) <= TOLERANCE]


@pytest.mark.parametrize("folder", FOUND, ids=lambda folder: folder.name)
def test_every_number_is_the_official_one(folder: Path) -> None:
    assert faults(folder, scored(folder)) == []


def test_an_error_in_any_rule_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    """Void in the unions, crowds that excuse nothing, and a lower limit for a match each change some case."""
    originals = {name: getattr(panoptic_quality, name) for name in ("_ious", "_crowd_pixels", "_MATCH")}
    planted = {
        "_ious": lambda pixels, void: originals["_ious"](pixels, 0 * void),
        "_crowd_pixels": lambda truth, pixels, columns: 0 * columns,
        "_MATCH": 0.4,
    }
    for name, wrong in planted.items():
        monkeypatch.setattr(panoptic_quality, name, wrong)
        assert any(faults(folder, scored(folder)) for folder in FOUND), name
        monkeypatch.setattr(panoptic_quality, name, originals[name])


def row(ids: list[int], *segments: Segment) -> PanopticMap:
    """A map of one row."""
    return PanopticMap(np.array([ids], np.int32), segments)


def thing(id: int, class_id: int, crowd: bool = False) -> Segment:
    return Segment(id, class_id, is_thing=True, crowd=crowd)


def of(truth: PanopticMap, prediction: PanopticMap, n_classes: int = 2, ignore: int | None = None) -> list[float]:
    """PQ of each class."""
    scorer = PanopticQuality(n_classes, ignore)
    scorer.add(truth, prediction)
    per_class: list[float] = scorer.scores().per_class.tolist()
    return per_class


def test_exactly_half_is_no_match() -> None:
    assert of(row([7, 7, 0, 0], thing(7, 0)), row([3, 0, 0, 0], thing(3, 0)))[0] == 0
    assert of(row([7, 7, 7, 0], thing(7, 0)), row([3, 3, 0, 0], thing(3, 0)))[0] == pytest.approx(200 / 3, abs=1e-9)  # rounding


def test_void_truth_is_in_no_union_and_excuses_what_lies_mostly_on_it() -> None:
    assert of(row([7, 7, 0, 0], thing(7, 0)), row([3, 3, 3, 3], thing(3, 0)))[0] == 100
    assert of(row([7, 7, 0, 0], thing(7, 0)), row([3, 3, 4, 4], thing(3, 0), thing(4, 0)))[0] == 100
    half = of(row([7, 7, 8, 0], thing(7, 0), thing(8, 1)), row([3, 3, 4, 4], thing(3, 0), thing(4, 0)))
    assert half[0] == pytest.approx(200 / 3, abs=1e-9)  # rounding; the half on void is not most of it


def test_the_ignored_class_is_void() -> None:
    truth, prediction = row([7, 7, 8, 8], thing(7, 0), thing(8, 1)), row([3, 3, 3, 3], thing(3, 0))
    assert of(truth, prediction, ignore=1)[0] == 100
    assert of(truth, prediction)[0] == 0


def test_crowds_are_never_found_nor_missed_and_excuse_only_their_class() -> None:
    truth = row([7, 7, 8, 8], thing(7, 0), thing(8, 1, crowd=True))
    assert np.isnan(of(truth, row([3, 3, 4, 4], thing(3, 0), thing(4, 1)))[1])
    assert of(truth, row([3, 3, 4, 4], thing(3, 0), thing(4, 0)))[0] == pytest.approx(200 / 3, abs=1e-9)  # rounding


def test_classes_that_do_not_occur_are_nan_and_not_in_the_mean() -> None:
    scorer = PanopticQuality(3, None)
    assert np.isnan(scorer.scores().mean)
    scorer.add(row([7, 7, 0], thing(7, 0)), row([3, 3, 0], thing(3, 0)))
    scores = scorer.scores()
    assert scores.mean == 100
    assert np.isnan(scores.per_class[1:]).all()
    assert scores.support.tolist() == [1, 0, 0]


def random_map(seed: int, size: tuple[int, int] = (24, 32)) -> PanopticMap:
    """Blocks of random segments: classes 0 and 1 are things, 2 and 3 stuff; some void."""
    rng = np.random.default_rng(seed)
    ids = np.kron(rng.integers(0, 9, (size[0] // 4, size[1] // 4)), np.ones((4, 4), np.int64)).astype(np.int32) * 70_001
    kinds = rng.integers(0, 4, 9)
    present = sorted({int(each) for each in np.unique(ids)} - {0})
    return PanopticMap(ids, tuple(Segment(i, int(kinds[n]), bool(kinds[n] < 2)) for n, i in enumerate(present)))


def test_resampled_is_what_repeated_images_score() -> None:
    images = [(random_map(seed), random_map(seed // 2 * 2)) for seed in range(6)]
    scorer = PanopticQuality(4, None)
    for truth, prediction in images:
        scorer.add(truth, prediction)
    weights = np.random.default_rng(1).multinomial(6, [1 / 6] * 6, size=5).astype(float)
    for row_of, value in zip(weights, scorer.resampled(weights), strict=True):
        again = PanopticQuality(4, None)
        for (truth, prediction), times in zip(images, row_of, strict=True):
            for _ in range(int(times)):
                again.add(truth, prediction)
        assert value == pytest.approx(again.scores().mean, abs=1e-9, nan_ok=True)  # order of a float64 sum


def test_agreement_is_symmetric_and_the_share_of_agreeing_pixels() -> None:
    for seed in range(8):
        first, second = random_map(seed), random_map(seed + 100)
        assert agreement(first, second) == agreement(second, first) == agreeing(first, second).mean()
        assert agreement(first, first) == 1


def test_agreement_wants_the_same_object_and_for_stuff_the_class_alone() -> None:
    objects = row([1, 1, 1, 2, 2, 0], thing(1, 0), thing(2, 0))
    shifted = row([5, 5, 6, 6, 6, 0], thing(5, 0), thing(6, 0))
    assert agreeing(objects, shifted)[0].tolist() == [True, True, False, True, True, True]
    merged = row([5, 5, 5, 5, 5, 0], thing(5, 0))
    assert agreeing(objects, merged)[0].tolist() == [True, True, True, False, False, True]
    sky = row([1, 1, 2, 2, 0, 0], Segment(1, 3, is_thing=False), Segment(2, 4, is_thing=False))
    more = row([9, 9, 9, 9, 9, 0], Segment(9, 3, is_thing=False))
    assert agreeing(sky, more)[0].tolist() == [True, True, False, False, False, True]


def test_the_overlap_of_what_both_found_counts_objects_and_no_stuff() -> None:
    objects = row([1, 1, 1, 2, 2, 3], thing(1, 0), thing(2, 0), Segment(3, 3, is_thing=False))
    shifted = row([5, 5, 6, 6, 6, 9], thing(5, 0), thing(6, 0), Segment(9, 3, is_thing=False))
    assert overlaps(objects, shifted) == [(2, 3), (2, 3)]
    assert overlaps(objects, row([5, 5, 5, 5, 5, 0], thing(5, 0))) == [(3, 5)]


def test_a_class_beyond_the_last_is_refused() -> None:
    maps = [row([7, 7], thing(7, class_id)) for class_id in (0, 2)]
    for truth, prediction in (maps, maps[::-1]):
        with pytest.raises(ValueError, match="class id 2"):
            of(truth, prediction)
    assert np.isnan(of(maps[1], maps[0], ignore=2)[0])


def test_maps_of_two_sizes_are_refused() -> None:
    with pytest.raises(ValueError, match="one size"):
        agreement(random_map(1), random_map(1, (24, 36)))
