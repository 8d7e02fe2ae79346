"""Agreement of two lists of objects."""

from __future__ import annotations

import numpy as np
import pytest

from segship.tasks.instance import agreement, overlaps
from segship.tasks.matching import pairs
from unit.tasks.objects import make, random_prediction, random_truth

EXACT = 1e-6  # scores are float32


def test_equal_lists_agree_and_empty_ones_too() -> None:
    objects = make([(0, 0, 9, 9), (20, 5, 40, 30)], [0, 2], [0.9, 0.4])
    assert agreement(objects, objects) == pytest.approx(1.0, abs=EXACT)
    assert agreement(make([]), make([])) == 1.0


def test_an_object_without_pixels_is_nothing() -> None:
    """Its mask's probabilities all stay below the threshold: with it, too, a list agrees with itself."""
    seen, unseen = make([(0, 0, 9, 9)]), make([(0, 0, 9, 9), (3, 3, 3, 8)], scores=[1.0, 0.8])
    assert agreement(unseen, unseen) == pytest.approx(1.0, abs=EXACT)
    assert agreement(seen, unseen) == pytest.approx(1.0, abs=EXACT)
    assert agreement(make([(3, 3, 3, 8)]), make([])) == 1.0
    assert agreement(make([(3, 3, 3, 8)], scores=[np.nan]), make([])) == 0.0


def test_nothing_agrees_with_something() -> None:
    assert agreement(make([]), make([(0, 0, 9, 9)])) == 0.0


def test_an_object_weighs_its_score_and_its_overlap() -> None:
    first = make([(0, 0, 10, 10), (20, 0, 30, 10)], scores=[0.9, 0.1])
    second = make([(0, 0, 10, 8)], scores=[0.6])
    assert agreement(first, second) == pytest.approx(0.8 * (0.9 + 0.6) / 1.6, abs=EXACT)


@pytest.mark.parametrize("box", [(0, 0, 10, 5), (10, 0, 20, 10), (20, 20, 30, 30)])
def test_half_an_overlap_is_another_object(box: tuple[int, int, int, int]) -> None:
    assert agreement(make([(0, 0, 10, 10)]), make([box])) == 0.0


def test_another_class_is_another_object() -> None:
    assert agreement(make([(0, 0, 10, 10)], [0]), make([(0, 0, 10, 10)], [1])) == 0.0


def test_pairs_are_one_to_one_and_the_best_first() -> None:
    first = make([(0, 0, 10, 10), (0, 0, 10, 9)])
    second = make([(0, 0, 10, 9)])
    assert pairs(first, second) == [(1, 0, 1.0)]


@pytest.mark.parametrize("seed", range(20))
def test_agreement_is_symmetric_and_between_0_and_1(seed: int) -> None:
    rng = np.random.default_rng(seed)
    truth = random_truth(rng, 2)
    first, second = (random_prediction(rng, truth, 2, ties=True) for _ in range(2))
    assert agreement(first, second) == pytest.approx(agreement(second, first), abs=EXACT)
    assert 0 <= agreement(first, second) <= 1


def test_a_score_that_is_no_number_agrees_with_nothing() -> None:
    broken = make([(0, 0, 9, 9)], scores=[np.nan])
    assert agreement(broken, make([(0, 0, 9, 9)])) == agreement(make([(0, 0, 9, 9)]), broken) == 0.0


def test_another_image_is_refused() -> None:
    with pytest.raises(ValueError, match="cannot agree"):
        agreement(make([]), make([], size=(8, 8)))


def test_the_overlap_of_what_both_found_forgets_what_only_one_did() -> None:
    first = make([(0, 0, 10, 10), (20, 0, 30, 10), (0, 20, 10, 30)], scores=[0.9, 0.5, 0.1])
    second = make([(0, 0, 10, 8), (20, 0, 30, 10)], scores=[0.6, 0.6])
    assert sorted(overlaps(first, second)) == sorted(overlaps(second, first)) == [(80, 100), (100, 100)]
    assert overlaps(make([]), second) == []


def test_the_overlap_is_of_objects_that_both_are_sure_of() -> None:
    boxes = [(0, 0, 10, 10), (20, 0, 30, 10)]
    assert overlaps(make(boxes, scores=[0.9, 0.5]), make(boxes, scores=[0.9, 0.49])) == [(100, 100)]
