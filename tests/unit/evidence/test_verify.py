"""The verdict on label maps: what is measured, and that every limit can fail."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec
import numpy as np
import pytest

from segship.core.errors import BadArgument, BadDataset
from segship.core.predictions import SemanticMap
from segship.evidence.bootstrap import paired_interval
from segship.evidence.judge import holds
from segship.evidence.records import Limit, Verdict
from segship.evidence.verify import (
    AGREEMENT,
    CANDIDATE_METRIC,
    DROP,
    REFERENCE_METRIC,
    WORST_CLASS_DROP,
    compare_predictions,
    max_drop,
)
from segship.tasks import TASKS
from segship.tasks.semantic import MeanIoU

CLASSES = ("road", "car", "sky")
LIMITS = (max_drop(0.5, "the user's own"),)


def truths(n: int, seed: int = 0) -> list[np.ndarray]:
    """Label maps (20, 30) of vertical bands, with some pixels to ignore (255)."""
    rng = np.random.default_rng(seed)
    maps = []
    for _ in range(n):
        edges = np.sort(rng.integers(3, 27, 2))
        labels = np.broadcast_to(np.digitize(np.arange(30), edges), (20, 30)).astype(np.uint8)
        labels[0, :4] = 255
        maps.append(labels)
    return maps


def spoiled(maps: list[np.ndarray], percent: float, seed: int = 1) -> list[SemanticMap]:
    """The maps with ``percent`` of their pixels moved to the next class, and nothing ignored."""
    rng = np.random.default_rng(seed)
    result = []
    for labels in maps:
        clean = np.where(labels == 255, 0, labels)
        wrong = rng.permutation(labels.size) < round(labels.size * percent / 100)
        result.append(SemanticMap(np.where(wrong.reshape(labels.shape), (clean + 1) % 3, clean).astype(np.uint8)))
    return result


def added(truth: list[np.ndarray], maps: list[SemanticMap]) -> MeanIoU:
    scorer = MeanIoU(3, 255)
    for labels, prediction in zip(truth, maps, strict=True):
        scorer.add(SemanticMap(labels), prediction)
    return scorer


def judge(reference: Any, candidate: Any, truth: Any, **keywords: Any) -> Verdict:
    keywords = {
        "classes": CLASSES,
        "ignore": 255,
        "limits": LIMITS,
        "names": (f"image {i}" for i in range(100)) if "n" not in keywords else [f"image {i}" for i in range(keywords.pop("n"))],
        "title": "t",
        "reference": "pytorch",
        "candidate": "engine",
        **keywords,
    }
    maps = None if truth is None else (SemanticMap(labels) for labels in truth)
    return compare_predictions(reference, candidate, maps, task=TASKS["semantic"], **keywords)


def test_equal_predictions_lose_nothing() -> None:
    truth = truths(30)
    verdict = judge(spoiled(truth, 10), spoiled(truth, 10), truth, n=30)
    assert verdict.passed
    assert verdict.level == "dataset"
    assert verdict.measured[DROP] == 0
    assert verdict.measured[AGREEMENT] == 100
    assert verdict.interval == (0, 0)
    assert verdict.images == 30


def test_metric_is_that_of_the_task() -> None:
    truth = truths(25)
    reference, candidate = spoiled(truth, 5), spoiled(truth, 12, seed=2)
    verdict = judge(reference, candidate, truth, n=25)
    for name, maps in ((REFERENCE_METRIC, reference), (CANDIDATE_METRIC, candidate)):
        assert verdict.measured[name] == pytest.approx(added(truth, maps).scores().mean)
    low, high = verdict.interval or (0.0, 0.0)
    assert low < -verdict.measured[DROP] < high
    assert not verdict.passed


@pytest.mark.parametrize(("share", "passes"), [(0.5, True), (2.0, False)])
@pytest.mark.parametrize("quantity", [DROP, WORST_CLASS_DROP])
def test_twice_the_limit_fails(quantity: str, share: float, *, passes: bool) -> None:
    truth = truths(20)
    reference, candidate = spoiled(truth, 0), spoiled(truth, 2)
    measured = judge(reference, candidate, truth, n=20).measured[quantity]
    limit = Limit(quantity, at_most=measured / share, reason="a test")
    assert judge(reference, candidate, truth, n=20, limits=[limit]).passed == passes


@pytest.mark.parametrize(("lost", "passes"), [(1.0, True), (4.0, False)])
def test_twice_the_lost_agreement_fails(lost: float, *, passes: bool) -> None:
    truth = truths(20)
    limit = Limit(AGREEMENT, at_least=98.0, reason="a test")
    assert judge(spoiled(truth, 0), spoiled(truth, lost), truth, n=20, limits=[limit]).passed == passes


@pytest.mark.parametrize(("lost", "passes"), [(0.25, True), (1.0, False)])
def test_without_truth_the_drop_is_lost_agreement(lost: float, *, passes: bool) -> None:
    maps = truths(40)
    verdict = judge(spoiled(maps, 0), spoiled(maps, lost), None, n=40)
    assert verdict.level == "predictions"
    assert verdict.measured[DROP] == pytest.approx(100 - verdict.measured[AGREEMENT])
    assert verdict.passed == passes
    assert verdict.interval is not None
    assert verdict.interval[0] <= -verdict.measured[DROP] <= verdict.interval[1]


def test_worst_images_and_worst_class() -> None:
    truth = truths(20)
    candidate = spoiled(truth, 0)
    candidate[7] = spoiled(truth, 50)[7]
    candidate[3] = spoiled(truth, 20)[3]
    verdict = judge(spoiled(truth, 0), candidate, truth, n=20, n_worst=2)
    assert [score.image for score in verdict.worst] == ["image 7", "image 3"]
    assert [score.agreement for score in verdict.worst] == [50, 80]
    assert any(note.startswith("the class that loses most is") for note in verdict.notes)
    assert sum(score.support for score in verdict.classes) == 20 * (600 - 4)


def test_class_that_never_occurs() -> None:
    truth = [np.zeros((4, 4), np.uint8)]
    maps = [SemanticMap(truth[0])]
    verdict = judge(maps, maps, truth, n=1)
    assert verdict.classes[2].reference is None
    assert verdict.measured[REFERENCE_METRIC] == 100
    assert "classes that never occur: car, sky" in verdict.notes
    assert "1 images are few: the interval is rough" in verdict.notes


def test_nothing_labelled_fails_and_can_be_stored() -> None:
    truth = [np.full((4, 4), 255, np.uint8)]
    maps = [SemanticMap(np.zeros((4, 4), np.uint8))]
    verdict = judge(maps, maps, truth, n=1)
    assert not verdict.passed
    assert verdict.interval is None
    assert msgspec.json.decode(msgspec.json.encode(verdict), type=Verdict) == verdict


def test_maps_are_never_held() -> None:
    alive = []

    def stream(maps: list[SemanticMap]) -> Iterator[SemanticMap]:
        for labels in maps:
            alive.append(labels)
            yield labels
            alive.remove(labels)

    truth = truths(10)
    peak: list[int] = []

    def watched() -> Iterator[np.ndarray]:
        for labels in truth:
            peak.append(len(alive))
            yield labels

    judge(stream(spoiled(truth, 1)), stream(spoiled(truth, 2)), watched(), n=10)
    assert max(peak) == 2


@pytest.mark.parametrize(
    ("reference", "truth", "sentence"),
    [
        (np.zeros((4, 5)), np.zeros((4, 4)), "PyTorch's answer has 4 x 5"),
        (np.zeros((4, 4)), np.full((4, 4), 9), "the truth holds the class id 9"),
        (np.full((4, 4), 3), np.zeros((4, 4)), "PyTorch's answer holds the class id 3"),
    ],
)
def test_maps_that_do_not_fit(reference: np.ndarray, truth: np.ndarray, sentence: str) -> None:
    first, second = SemanticMap(reference.astype(np.uint8)), SemanticMap(np.zeros((4, 4), np.uint8))
    with pytest.raises(BadDataset, match=sentence):
        judge([first], [second], [truth.astype(np.uint8)], n=1)


def test_no_image() -> None:
    with pytest.raises(BadArgument, match="no image"):
        judge([], [], [], n=0)


@pytest.mark.parametrize(
    ("limits", "sentence"),
    [
        ([], "no limit to judge by"),
        ([Limit("drop", reason="none")], "has no bound"),
        ([Limit("drop", at_most=1)], "has no reason"),
        ([Limit("drp", at_most=1, reason="typo")], "no quantity 'drp'"),
    ],
)
def test_limits_that_judge_nothing(limits: list[Limit], sentence: str) -> None:
    with pytest.raises(BadArgument, match=sentence):
        holds({"drop": 0.0}, limits)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_no_limit_holds_for_what_is_not_finite(value: float) -> None:
    assert not holds({"drop": value}, [Limit("drop", at_most=1, reason="a test")])


def test_interval_is_repeatable_and_covers() -> None:
    """Of intervals of a mean whose truth is 0, about 95 in 100 hold the truth."""
    inside = 0
    for trial in range(60):
        values = np.random.default_rng(trial).normal(size=50)

        def change(weights: np.ndarray, values: np.ndarray = values) -> np.ndarray:
            return weights @ values / len(values)

        interval = paired_interval(change, 50, resamples=400, seed=3)
        assert interval == paired_interval(change, 50, resamples=400, seed=3)
        inside += interval is not None and interval[0] < 0 < interval[1]
    assert 52 <= inside <= 60


def test_resampled_mean_iou_repeats_images() -> None:
    truth, maps = truths(4), spoiled(truths(4), 9)
    repeated = added([truth[i] for i in (0, 0, 2, 3)], [maps[i] for i in (0, 0, 2, 3)])
    weights = np.array([[2.0, 0.0, 1.0, 1.0], [1.0, 1.0, 1.0, 1.0]])
    expected = [repeated.scores().mean, added(truth, maps).scores().mean]
    assert added(truth, maps).resampled(weights) == pytest.approx(expected)


def test_mean_iou_is_that_of_a_plain_confusion_matrix() -> None:
    truth = truths(6)
    maps = spoiled(truth, 15)
    matrix = np.zeros((3, 3), np.int64)
    for labels, prediction in zip(truth, maps, strict=True):
        for want, have in zip(labels.ravel().tolist(), prediction.labels.ravel().tolist(), strict=True):
            if want != 255:
                matrix[want, have] += 1
    union = matrix.sum(0) + matrix.sum(1) - np.diag(matrix)
    assert added(truth, maps).scores().per_class == pytest.approx(100 * np.diag(matrix) / union, abs=1e-12)
