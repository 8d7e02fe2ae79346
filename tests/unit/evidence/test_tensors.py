"""Outputs compared value by value: rounding passes, a swapped channel or twice the limit does not."""

from __future__ import annotations

from typing import Any

import msgspec
import numpy as np
import pytest

from segship.core.errors import BadArgument
from segship.evidence.records import Limit, Verdict
from segship.evidence.tensors import (
    FLIPPED,
    FLIPPED_WITH_TIES,
    MAX_ABS_DIFFERENCE,
    RELATIVE_DIFFERENCE,
    compare_labels,
    compare_logits,
    margin,
)
from segship.tasks.semantic import decide
from unit.evidence.fakes import images, network

LIMITS = (
    Limit(RELATIVE_DIFFERENCE, at_most=1e-3, reason="float32 rounding of another runtime"),
    Limit(FLIPPED, at_most=0.0, reason="beyond a tie no label may change"),
)
INPUTS = [each["image"] for each in images(3, (20, 30))]
LOGITS = [network(image)[0] for image in INPUTS]


def judge(compare: Any, candidates: list[np.ndarray], **keywords: Any) -> Verdict:
    keywords = {
        "tie_margin": 1e-2,
        "threshold": None,
        "limits": LIMITS,
        "names": ["a", "b", "c"][: len(candidates)],
        "title": "t",
        "reference": "pytorch",
        "candidate": "engine",
        **keywords,
    }
    return compare(keywords.pop("references", LOGITS), candidates, **keywords)


def test_rounding_passes() -> None:
    verdict = judge(compare_logits, [logits + np.float32(1e-4) for logits in LOGITS])
    assert verdict.passed
    assert verdict.level == "tensors"
    assert verdict.images == 3
    assert verdict.measured[MAX_ABS_DIFFERENCE] == pytest.approx(1e-4, rel=1e-2)


def test_swapped_channels_fail() -> None:
    swapped = [network(image[:, ::-1])[0] for image in INPUTS]
    assert not judge(compare_logits, swapped).passed
    flips = Limit(FLIPPED, at_most=1.0, reason="a test")
    assert not judge(compare_labels, [decide(logits, None) for logits in swapped], limits=[flips]).passed


@pytest.mark.parametrize(("share", "passes"), [(0.5, True), (2.0, False)])
@pytest.mark.parametrize("quantity", [MAX_ABS_DIFFERENCE, RELATIVE_DIFFERENCE])
def test_twice_the_limit_fails(quantity: str, share: float, *, passes: bool) -> None:
    limit = 0.01
    unit = float(np.ptp(LOGITS[1])) if quantity == RELATIVE_DIFFERENCE else 1.0
    candidates = [logits.copy() for logits in LOGITS]
    candidates[1][2, 3, 4] += np.float32(share * limit * unit)
    verdict = judge(compare_logits, candidates, limits=[Limit(quantity, at_most=limit, reason="a test")])
    assert verdict.passed == passes
    assert verdict.measured[quantity] == pytest.approx(share * limit, rel=1e-3)


@pytest.mark.parametrize(("pixels", "passes"), [(3, True), (12, False)])
@pytest.mark.parametrize("quantity", [FLIPPED, FLIPPED_WITH_TIES])
def test_twice_the_flips_fail(quantity: str, pixels: int, *, passes: bool) -> None:
    labels = [decide(logits, None) for logits in LOGITS]
    clear = np.flatnonzero(margin(LOGITS[2], None) > 0.1)[:pixels]
    labels[2].flat[clear] = (labels[2].flat[clear] + 1) % 4
    limit = Limit(quantity, at_most=1.0, reason="a test: 6 of 600 pixels")
    verdict = judge(compare_labels, labels, limits=[limit])
    assert verdict.passed == passes
    assert verdict.worst[0].image == "c"


def test_a_tie_may_flip() -> None:
    tied = np.zeros((2, 4, 4), np.float32)
    tied[0] += np.float32(1e-3)
    flipped = [decide(-tied, None)]
    limit = Limit(FLIPPED, at_most=0.0, reason="a test")
    verdict = judge(compare_labels, flipped, references=[tied], limits=[limit])
    assert verdict.passed
    assert verdict.measured == {FLIPPED: 0, FLIPPED_WITH_TIES: 100}
    assert not judge(compare_labels, flipped, references=[tied], limits=[limit], tie_margin=5e-4).passed


def test_one_channel_is_judged_by_its_threshold() -> None:
    logits = np.array([[[-1.0, 0.5, 2.0]]], np.float32)
    assert margin(logits, 0.5) == pytest.approx(np.abs(logits[0]))
    assert margin(logits, 0.8) == pytest.approx(np.abs(logits[0] - np.log(4)), rel=1e-6)
    verdict = judge(compare_logits, [logits - np.float32(0.6)], references=[logits], threshold=0.5)
    assert verdict.measured[FLIPPED] == pytest.approx(100 / 3)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_fails_and_can_be_stored(value: float) -> None:
    candidates = [logits.copy() for logits in LOGITS]
    candidates[0][0, 0, 0] = value
    verdict = judge(compare_logits, candidates)
    assert not verdict.passed
    assert "a: 1 values are not finite" in verdict.notes
    assert msgspec.json.decode(msgspec.json.encode(verdict), type=Verdict) == verdict


def test_another_shape_fails() -> None:
    verdict = judge(compare_logits, [LOGITS[0], LOGITS[1][:, :-1], LOGITS[2]])
    assert not verdict.passed
    assert "b: the shape is (4, 19, 30), expected (4, 20, 30)" in verdict.notes
    labels = [decide(logits, None) for logits in LOGITS]
    flips = [Limit(FLIPPED, at_most=99.0, reason="a test")]
    assert not judge(compare_labels, [labels[0], labels[1].T, labels[2]], limits=flips).passed


def test_constant_reference() -> None:
    flat = np.ones((2, 3, 3), np.float32)
    limit = Limit(RELATIVE_DIFFERENCE, at_most=1.0, reason="a test")
    assert judge(compare_logits, [flat], references=[flat], limits=[limit]).passed
    assert not judge(compare_logits, [flat * 2], references=[flat], limits=[limit]).passed


def test_no_image() -> None:
    with pytest.raises(BadArgument, match="no image"):
        judge(compare_logits, [], references=[])
