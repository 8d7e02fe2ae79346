"""Each way in which an image's result can depend on its company, planted, must be found."""

from __future__ import annotations

from itertools import count
from typing import Any

import numpy as np
import pytest

from segship.core.errors import BadArgument
from segship.core.spec import TensorSpec
from segship.evidence.invariance import BATCH, ORDER, OTHER_SHAPE, REPEAT, SHAPE_THERE_AND_BACK, check_invariance, difference
from segship.evidence.records import Limit, Verdict
from unit.evidence.fakes import FakeSession, batch_statistics, first_for_all, images, network, two_at_most

TOLERANCE = 1e-5
LIMITS = (
    Limit(BATCH, at_most=TOLERANCE, reason="float32 sums in another order"),
    Limit(ORDER, at_most=TOLERANCE, reason="float32 sums in another order"),
    Limit(REPEAT, at_most=0.0, reason="the same run must give the same bits"),
    Limit(SHAPE_THERE_AND_BACK, at_most=0.0, reason="the same run must give the same bits"),
    Limit(OTHER_SHAPE, at_most=1e-4, reason="rounding of another runtime"),
)


def judge(session: Any, **keywords: Any) -> Verdict:
    keywords = {"limits": LIMITS, "title": "t", "engine": "fake", **keywords}
    return check_invariance(session, keywords.pop("feeds", images(3)), **keywords)


def broken(verdict: Verdict) -> set[str]:
    """Quantities outside their limit; one that is missing from ``measured`` although limited is outside too."""
    notes = " ".join(verdict.notes)
    outside = {limit.quantity for limit in LIMITS if not limit.holds(verdict.measured.get(limit.quantity, 0.0))}
    return outside | {limit.quantity for limit in LIMITS if f"{limit.quantity} is not a finite" in notes}


def test_sound_session() -> None:
    (other,) = images(1, (4, 10), seed=1)
    verdict = judge(FakeSession(), other_feeds=other, other_expected={"logits": network(other["image"])})
    assert verdict.passed
    assert set(verdict.measured) == {BATCH, ORDER, REPEAT, SHAPE_THERE_AND_BACK, OTHER_SHAPE}
    assert not verdict.notes
    assert verdict.level == "invariance"


@pytest.mark.parametrize(
    ("compute", "expected"),
    [(first_for_all, {BATCH, ORDER}), (batch_statistics, {BATCH}), (two_at_most, {BATCH, ORDER})],
)
def test_broken_batch(compute: Any, expected: set[str]) -> None:
    verdict = judge(FakeSession(compute))
    assert not verdict.passed
    assert broken(verdict) == expected


def test_place_in_the_batch_matters() -> None:
    def drifting(image: np.ndarray) -> np.ndarray:
        return network(image) + 0.1 * np.arange(len(image), dtype=np.float32)[:, None, None, None]

    assert broken(judge(FakeSession(drifting))) == {BATCH, ORDER}


def test_runs_that_differ() -> None:
    calls = count()
    verdict = judge(FakeSession(lambda image: network(image) + np.float32(1e-3 * next(calls))))
    assert REPEAT in broken(verdict)


def test_state_left_by_another_shape() -> None:
    class Remembering(FakeSession):
        seen: tuple[int, ...] | None = None

        def run(self, feeds: Any) -> dict[str, Any]:
            self.seen = self.seen or feeds["image"].shape[2:]
            off = feeds["image"].shape[2:] != self.seen
            self.broken = getattr(self, "broken", False) or off
            return {"logits": network(feeds["image"]) + self.broken}

    (other,) = images(1, (4, 10), seed=1)
    assert SHAPE_THERE_AND_BACK in broken(judge(Remembering(), other_feeds=other))


def test_wrong_at_another_shape() -> None:
    (other,) = images(1, (4, 10), seed=1)
    expected = {"logits": network(other["image"])}
    session = FakeSession(lambda image: network(image) * (1 if image.shape[2] == 6 else 1.01))
    assert broken(judge(session, other_feeds=other, other_expected=expected)) == {OTHER_SHAPE}


def test_a_run_that_fails_is_a_finding() -> None:
    def fixed(image: np.ndarray) -> np.ndarray:
        if len(image) != 1:
            raise RuntimeError("Reshape: 288 is not 96\nmore")
        return network(image)

    verdict = judge(FakeSession(fixed))
    assert not verdict.passed
    assert broken(verdict) == {BATCH, ORDER}
    assert "batch_1_against_n: the engine failed (Reshape: 288 is not 96)" in verdict.notes


def test_nan_fails() -> None:
    verdict = judge(FakeSession(lambda image: network(image) * (np.nan if len(image) > 1 else 1)))
    assert not verdict.passed


def test_fixed_batch_is_noted_not_judged() -> None:
    verdict = judge(FakeSession(batch=1))
    assert verdict.passed
    assert BATCH not in verdict.measured
    assert "batches were not judged: the engine's batch is fixed at 1" in verdict.notes


def test_fixed_sizes_are_noted() -> None:
    session = FakeSession()
    session.inputs = (TensorSpec("image", "float32", ("batch", 3, 6, 8)),)
    assert judge(session).notes == ("other shapes were not judged: the engine takes one shape",)
    assert judge(FakeSession()).notes == ("other shapes were not judged: none was given",)


def test_images_that_are_alike_cannot_judge_a_batch() -> None:
    (one,) = images(1)
    verdict = judge(FakeSession(first_for_all), feeds=[one, one, one])
    assert BATCH not in verdict.measured
    assert any("a mix-up would pass" in note for note in verdict.notes)


def test_label_maps_are_compared_by_share() -> None:
    labels = np.zeros((1, 2, 5), np.uint8)
    other = labels.copy()
    other[0, 0, 0] = 3
    assert difference({"labels": labels}, {"labels": other}) == pytest.approx(0.1)
    assert difference({"labels": labels}, {"logits": labels}) == float("inf")
    assert difference({"labels": labels}, {"labels": labels[:, :1]}) == float("inf")


@pytest.mark.parametrize(("share", "passes"), [(0.5, True), (2.0, False)])
@pytest.mark.parametrize("quantity", [BATCH, ORDER, REPEAT, SHAPE_THERE_AND_BACK, OTHER_SHAPE])
def test_every_limit_at_half_and_at_twice(quantity: str, share: float, *, passes: bool) -> None:
    """A fault of ``share`` times the limit, planted in the run that ``quantity`` judges (they come in a fixed order)."""
    limit, (other,) = 0.01, images(1, (4, 10), seed=1)
    first = np.ptp(network(images(1)[0]["image"]))
    runs = {BATCH: {6}, ORDER: {7}, REPEAT: {3}, SHAPE_THERE_AND_BACK: {10}, OTHER_SHAPE: {11}}[quantity]

    class Faulty(FakeSession):
        def run(self, feeds: Any) -> dict[str, Any]:
            logits = super().run(feeds)["logits"]
            fault = share * limit * (first if quantity != OTHER_SHAPE else np.ptp(logits))
            if self.runs - 1 in runs:
                logits[0, 0, 0, 0] += np.float32(fault)
            return {"logits": logits}

    limits = [Limit(quantity, at_most=limit, reason="a test")]
    verdict = judge(Faulty(), limits=limits, other_feeds=other, other_expected={"logits": network(other["image"])})
    assert verdict.measured[quantity] == pytest.approx(share * limit, rel=0.02)
    assert verdict.passed == passes


def test_feeds_must_be_of_one_shape_and_two_at_least() -> None:
    with pytest.raises(BadArgument, match="two or more images of one shape"):
        judge(FakeSession(), feeds=images(1))
    with pytest.raises(BadArgument, match="two or more images of one shape"):
        judge(FakeSession(), feeds=[*images(1), *images(1, (4, 4))])
