"""Our AP is pycocotools' AP: of files, of repeated images, and where there is nothing."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from segship.core.errors import BadDataset
from segship.core.predictions import Instances
from segship.datasets import open_dataset
from segship.tasks import instance
from segship.tasks.average_precision import AveragePrecision
from unit.tasks.objects import SIZE, make, official, official_ap, random_prediction, random_truth

N_CLASSES = 4
EXACT = 1e-9  # the same sums in another order


def added(truths: list[Instances], predictions: list[Instances]) -> AveragePrecision:
    scorer = instance.scorer(N_CLASSES, None)
    for truth, prediction in zip(truths, predictions, strict=True):
        scorer.add(truth, prediction)
    return scorer


def images(seed: int, n: int, *, ties: bool) -> tuple[list[Instances], list[Instances]]:
    rng = np.random.default_rng(seed)
    truths = [random_truth(rng, N_CLASSES) for _ in range(n)]
    return truths, [random_prediction(rng, truth, N_CLASSES, ties=ties) for truth in truths]


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("seed", range(4))
def test_ap_is_what_pycocotools_says_of_the_files(seed: int, ties: bool, tmp_path: Path) -> None:
    truths, predictions = images(seed, 12, ties=ties)
    scores = added(truths, predictions).scores()
    masks = official(truths, predictions, N_CLASSES, "segm", tmp_path)
    each = [100 * masks[:, :, k].mean() for k in range(N_CLASSES)]
    assert 5 < scores.mean < 95
    assert scores.mean == pytest.approx(100 * masks[masks > -1].mean(), abs=EXACT)
    assert scores.per_class.tolist() == pytest.approx(each, abs=EXACT)
    assert scores.extras["mask AP50"] == pytest.approx(100 * masks[0].mean(), abs=EXACT)
    assert scores.extras["mask AP75"] == pytest.approx(100 * masks[5].mean(), abs=EXACT)
    boxes = official_ap(truths, predictions, N_CLASSES, "bbox", tmp_path)
    assert scores.extras["box AP"] == pytest.approx(boxes, abs=EXACT)
    n_truths = [sum(int(np.sum((t.classes == k) & ~t.crowd)) for t in truths) for k in range(N_CLASSES)]
    assert scores.support.tolist() == n_truths


@pytest.mark.parametrize("kind", ["segm", "bbox"])
def test_ap_of_files_that_we_read_is_the_same(kind: str, tmp_path: Path) -> None:
    """From disk to number: the truth file through our own reader."""
    truths, predictions = images(11, 6, ties=False)
    theirs = official_ap(truths, predictions, N_CLASSES, kind, tmp_path)
    for index in range(len(truths)):
        Image.fromarray(np.zeros((*SIZE, 3), np.uint8)).save(tmp_path / f"{index}.png")
    dataset = open_dataset(tmp_path / "truth.json")
    scorer = instance.scorer(N_CLASSES, dataset.ignore)
    for sample, prediction in zip(dataset.samples, predictions, strict=True):
        truth = dataset.load_truth(sample)
        assert isinstance(truth, Instances)
        scorer.add(truth, prediction)
    scores = scorer.scores()
    assert (scores.mean if kind == "segm" else scores.extras["box AP"]) == pytest.approx(theirs, abs=EXACT)


@pytest.mark.parametrize("ties", [False, True])
def test_repeated_images_count_as_often_as_they_occur(ties: bool, tmp_path: Path) -> None:
    truths, predictions = images(7, 9, ties=ties)
    rng = np.random.default_rng(1)
    weights = rng.multinomial(9, np.full(9, 1 / 9), 6).astype(np.float64)
    ours = added(truths, predictions).resampled(weights)
    for row, ap in zip(weights.astype(int), ours, strict=True):
        repeated = np.repeat(np.arange(9), row)
        theirs = [truths[i] for i in repeated], [predictions[i] for i in repeated]
        assert ap == pytest.approx(official_ap(*theirs, N_CLASSES, "segm", tmp_path), abs=EXACT)
    assert len(set(ours.tolist())) > 1


def test_weights_of_one_are_the_score() -> None:
    scorer = added(*images(3, 10, ties=True))
    assert scorer.resampled(np.ones((5, 10))).tolist() == pytest.approx([scorer.scores().mean] * 5, abs=EXACT)


def test_a_perfect_prediction_has_100() -> None:
    truth = make([(0, 0, 9, 9), (20, 5, 40, 30)], [0, 2])
    scores = added([truth], [truth]).scores()
    assert (scores.mean, scores.extras["box AP"]) == pytest.approx((100.0, 100.0), abs=EXACT)
    assert np.isnan(scores.per_class).tolist() == [False, True, False, True]


def test_without_detections_ap_is_0() -> None:
    scores = added([make([(0, 0, 9, 9)])], [make([])]).scores()
    assert (scores.mean, scores.extras["box AP"], scores.support[0]) == (0.0, 0.0, 1)
    assert added([make([(0, 0, 9, 9)])], [make([])]).resampled(np.ones((3, 1))).tolist() == [0.0, 0.0, 0.0]


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_boxes_and_scores_that_are_no_numbers_are_not_right(value: float) -> None:
    truth = make([(0, 0, 9, 9)])
    box = replace(truth, boxes=np.array([[0, 0, value, 9]], np.float32))
    assert added([truth], [box]).scores().extras["box AP"] == 0.0
    unsure = make([(20, 20, 30, 30), (0, 0, 9, 9)], scores=[np.nan, 0.5])
    assert added([truth], [unsure]).scores().mean == pytest.approx(100.0, abs=EXACT)


def test_without_truth_there_is_no_ap() -> None:
    empty = added([make([]), make([])], [make([]), make([(0, 0, 9, 9)])])
    assert np.isnan(empty.scores().mean)
    assert np.isnan(empty.resampled(np.ones((2, 2)))).all()
    assert np.isnan(AveragePrecision(3).scores().mean)


def test_a_resample_without_a_class_leaves_it_out() -> None:
    """Class 0 is found, class 1 is not: without the image of class 1, AP is 100."""
    truths = [make([(0, 0, 9, 9)], [0]), make([(0, 0, 9, 9)], [1])]
    scorer = added(truths, [truths[0], make([])])
    ours = scorer.resampled(np.array([[1.0, 1.0], [2.0, 0.0], [0.0, 2.0]]))
    assert ours.tolist() == pytest.approx([50.0, 100.0, 0.0], abs=EXACT)


def test_a_detection_in_a_crowd_is_neither_right_nor_wrong() -> None:
    truth = make([(0, 0, 10, 10), (20, 0, 50, 30)], crowd=[False, True])
    found = make([(25, 5, 35, 15), (0, 0, 10, 10)], scores=[0.9, 0.8])
    assert added([truth], [found]).scores().mean == pytest.approx(100.0, abs=EXACT)
    wrong = make([(25, 5, 35, 15), (0, 0, 10, 10)], crowd=[False, False])
    assert added([wrong], [make([(0, 20, 10, 30), (0, 0, 10, 10)], scores=[0.9, 0.8])]).scores().mean < 50


def test_only_100_detections_of_a_class_count() -> None:
    truth = make([(0, 0, 10, 10)])
    boxes = [(20, 20, 30, 30)] * 100 + [(0, 0, 10, 10)]
    scores = np.linspace(0.9, 0.5, 101)
    assert added([truth], [make(boxes, scores=scores)]).scores().mean == 0
    assert added([truth], [make(boxes[1:], scores=scores[1:])]).scores().mean > 0


def test_truth_without_pixels_cannot_be_found() -> None:
    truth = make([(0, 0, 10, 10), (5, 5, 5, 5)])
    assert added([truth], [make([(0, 0, 10, 10)])]).scores().mean == pytest.approx(100 * 51 / 101, abs=EXACT)


def test_truth_of_another_size_is_refused() -> None:
    with pytest.raises(BadDataset, match=r"truth is 40 x 56 pixels .* prediction 56 x 40"):
        added([make([])], [make([], size=(56, 40))])
