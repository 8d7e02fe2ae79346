"""The chart of speed against accuracy: where points, labels and ticks are."""

from __future__ import annotations

from itertools import combinations

import pytest
from msgspec.structs import replace

import fake_deployments as fakes
from segship.evidence.report import render
from segship.evidence.report.chart import chart
from segship.evidence.report.labels import Box, place
from segship.evidence.report.plots import candidates_plot
from segship.evidence.report.scales import Scale, decimals


def test_the_chart_shades_what_may_be_lost() -> None:
    drawn = chart(candidates_plot(fakes.passed()), 840, 430)
    assert drawn is not None
    assert drawn.reference_y is not None
    assert drawn.limit_y is not None
    places = {mark.lines[0]: mark for mark in drawn.marks}
    assert set(places) == {"PyTorch FP32", "ONNX Runtime FP32", "ONNX Runtime INT8", "OpenVINO FP32", "OpenVINO INT8"}
    assert places["PyTorch FP32"].y == drawn.reference_y
    assert drawn.reference_y < places["OpenVINO INT8"].y < drawn.limit_y < places["ONNX Runtime INT8"].y
    assert [places[name].kind for name in ("PyTorch FP32", "OpenVINO INT8", "OpenVINO FP32")] == ["reference", "chosen", "other"]
    assert [name for name, mark in places.items() if mark.beyond] == ["ONNX Runtime INT8"]
    assert places["OpenVINO INT8"].x < places["ONNX Runtime FP32"].x < places["PyTorch FP32"].x


def test_a_ruined_candidate_does_not_squash_the_chart() -> None:
    worse = [replace(each, metric=4.0) if each.name == "onnxruntime int8" else each for each in fakes.passed().candidates]
    drawn = chart(candidates_plot(fakes.passed(candidates=tuple(worse))), 840, 430)
    assert drawn is not None
    ruined = next(mark for mark in drawn.marks if mark.deep)
    assert ruined.lines[0] == "ONNX Runtime INT8"
    assert ruined.y < drawn.frame.bottom
    assert (drawn.limit_y or 0) - (drawn.reference_y or 0) > 100


def test_one_timed_candidate_is_no_chart() -> None:
    assert chart(candidates_plot(fakes.passed(candidates=fakes.passed().candidates[:1])), 840, 430) is None
    assert "<svg" not in render(fakes.passed(candidates=fakes.passed().candidates[:1]), None, [])


def test_labels_of_crowded_points_do_not_cover_each_other() -> None:
    points = [(400.0, 200.0), (405.0, 203.0), (412.0, 199.0), (430.0, 201.0), (396.0, 190.0)]
    frame = Box(0, 0, 800, 400)
    texts = [("OpenVINO FP32", "66.0 ms")] * 5
    boxes = []
    for label in place(points, texts, frame, 13):
        width = 13 * 13 * 0.62
        left = {"start": label.x, "end": label.x - width, "middle": label.x - width / 2}[label.anchor]
        boxes.append(Box(left, label.y - 13 * 0.9, left + width, label.y + 13 * 1.5))
    assert max(a.overlap(b) for a, b in combinations(boxes, 2)) < 1e-6
    assert all(box.overlap(frame) == pytest.approx(box.area) for box in boxes)


@pytest.mark.parametrize(("low", "high"), [(10, 2000), (14.0, 15.0), (0.02, 0.9), (95.2, 96.1), (1, 10)])
@pytest.mark.parametrize("log", [True, False])
def test_ticks_are_round_few_and_told_apart(low: float, high: float, log: bool) -> None:
    ticks = Scale(low, high, 0, 100, log).ticks(most=6)
    assert 2 <= len(ticks) <= 6
    assert all(low - 1e-9 <= tick <= high + 1e-9 for tick in ticks)
    assert len({f"{tick:.{decimals(ticks)}f}" for tick in ticks}) == len(ticks)
