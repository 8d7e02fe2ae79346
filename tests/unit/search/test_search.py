"""The search finds the fastest plan that is right; what is measured is made of a rule here."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from itertools import pairwise
from typing import Any

import pytest

import segship.search.costs as costs_module
import segship.search.search as search_module
from segship.core.precision import Keep, PrecisionPlan
from segship.core.profile import Kernel, Profile
from segship.graph.int8_recipe import DEFAULT, METHODS, Recipe
from segship.search.search import Judgement, PlanSearch

LAYERS = ("down", "deep", "up", "wide")
POINTS = {"down": 0.1, "deep": 3.0, "up": 0.2, "wide": 1.0}
"""What each layer of the small UNet costs in INT8."""
EVEN = dict.fromkeys(LAYERS, 1.0)
FLOAT_MS, REST_MS = 5.0, 2.0
"""Each layer takes so long in float; INT8 saves on it what a test says. Everything else takes 2 ms."""


def points(plan: PrecisionPlan) -> float:
    return sum(lost for layer, lost in POINTS.items() if plan.precision_of(layer, "Conv") == "int8")


class Quantiser:
    """What the search asks of a quantiser."""

    def __init__(self) -> None:
        from unit.graph.networks import small_unet

        self.graph = small_unet()

    def plan(self, _traits: Any) -> PrecisionPlan:
        return PrecisionPlan("int8", (Keep("last", "fp32", "gives the logits"),))

    def refinements(self, recipe: Recipe) -> tuple[Recipe, ...]:
        return (Recipe(recipe.method, smooth=True), Recipe(recipe.method, correct_bias=True))


class Store:
    """Losses and times by rule; ``percentile`` ranges with corrected biases are the best.

    ``saved``: milliseconds that INT8 saves on each layer. ``casts``: what every change of precision between neighbours costs,
    which no profile shows.
    """

    def __init__(self, saved: Mapping[str, float], casts: float) -> None:
        self.built, self.losses, self._saved, self._casts = 0, 0, saved, casts

    def loss(self, plan: PrecisionPlan, recipe: Recipe) -> float:
        self.losses += 1
        worse = 1.5 * (recipe.method != "percentile") + 0.5 * (not recipe.correct_bias)
        return points(plan) * (1.0 + worse)

    def profile(self, plan: PrecisionPlan, _recipe: Recipe) -> Profile:
        layers = [Kernel(f"{layer}/Conv", "Conv", "float", 1.5 * self._ms(plan, layer)) for layer in LAYERS]
        return Profile((*layers, Kernel("last/Conv", "Conv", "float", 1.5 * REST_MS)))

    def times(self, plans: list[PrecisionPlan], _recipe: Recipe) -> list[float]:
        return [self._total(plan) for plan in plans]

    def _ms(self, plan: PrecisionPlan, layer: str) -> float:
        return FLOAT_MS - self._saved[layer] * (plan.precision_of(layer, "Conv") == "int8")

    def _total(self, plan: PrecisionPlan) -> float:
        asked = [plan.precision_of(layer, "Conv") for layer in LAYERS]
        changes = sum(first != second for first, second in pairwise(asked))
        return REST_MS + sum(self._ms(plan, layer) for layer in LAYERS) + self._casts * changes


def search(
    allowed: float,
    saved: Mapping[str, float] = EVEN,
    *,
    casts: float = 0.0,
    deadline: float | None = None,
    drop: Callable[[PrecisionPlan], float] = points,
    every_group: bool = True,
) -> Any:
    """``drop``: what the judge sees, which need not be what was measured on the calibration images."""
    store, judged = Store(saved, casts), []

    def judge(plan: PrecisionPlan, _recipe: Recipe) -> Judgement:
        judged.append(plan)
        return Judgement(drop(plan) <= allowed, drop(plan))

    told = lambda *_: None  # noqa: E731
    quantiser, limits = Quantiser(), {"allowed": allowed, "every_group": every_group, "deadline": deadline}
    found = PlanSearch(quantiser, "onnxruntime", store, judge, told, **limits).run(4)  # type: ignore[arg-type]
    return found, judged, store


def kept(plan: PrecisionPlan) -> set[str]:
    return {keep.where for keep in plan.keep} - {"last"}


@pytest.mark.parametrize(
    ("allowed", "expected"), [(5.0, set()), (1.5, {"deep"}), (0.9, {"deep", "wide"}), (0.15, {"deep", "wide", "up"})]
)
def test_where_all_save_alike_the_fewest_groups_stay_in_float(allowed: float, expected: set[str]) -> None:
    found, judged, _ = search(allowed)
    assert found.recipe == Recipe("percentile", correct_bias=True)
    assert {each.recipe for each in found.recipes[: len(METHODS)]} == {Recipe(method) for method in METHODS}
    assert [entry.group for entry in found.sensitivities] == ["deep", "wide", "up", "down"]
    assert kept(found.plan) == expected
    assert {entry.group for entry in found.sensitivities if entry.stays == "float"} == expected
    assert points(found.plan) <= allowed
    assert len(judged) <= 3
    assert all("points" in keep.reason for keep in found.plan.keep if keep.where in POINTS)


def test_where_a_recipe_is_enough_no_group_is_measured_unless_asked() -> None:
    found, judged, store = search(5.0, every_group=False)
    assert len(judged) == 1
    assert kept(found.plan) == set()
    assert store.losses == len(METHODS) + 2
    assert all(entry.loss is None and entry.saved_ms is not None for entry in found.sensitivities)
    found, _, _ = search(1.5, every_group=False)
    assert kept(found.plan) == {"deep"}


def test_the_group_that_is_cheap_in_float_is_given_up_first() -> None:
    """Without `deep` the others lose 1.3 points, a little too much: of them goes the one that costs little time."""
    found, _, _ = search(1.25, {"down": 4.0, "deep": 1.0, "up": 0.1, "wide": 4.0})
    assert kept(found.plan) == {"deep", "up"}
    found, _, _ = search(1.25, {"down": 4.0, "deep": 1.0, "up": 4.0, "wide": 0.1})
    assert kept(found.plan) == {"deep", "wide"}


def test_a_group_that_is_slower_in_int8_stays_float_and_says_so() -> None:
    found, _, store = search(5.0, {**EVEN, "up": -0.3})
    (exception,) = (keep for keep in found.plan.keep if keep.where == "up")
    assert exception.reason == "INT8 is 0.3 ms slower here than float"
    assert exception.effect_ms == pytest.approx(-0.3)
    assert [entry.group for entry in found.sensitivities if entry.stays == "slower"] == ["up"]
    assert store.losses == len(METHODS) + 2 + 3  # recipes, and the groups that may run in INT8


def test_casts_around_a_group_can_cost_more_than_it_loses() -> None:
    found, _, _ = search(5.0, {**EVEN, "up": -0.3}, casts=0.5)
    assert kept(found.plan) == set()


def only_deep(plan: PrecisionPlan) -> float:
    return 3.0 * (plan.precision_of("deep", "Conv") == "int8")


def test_what_the_judge_does_not_miss_is_given_back() -> None:
    """By prediction, the cheap groups go first; by the judge, they were not needed."""
    found, _, _ = search(0.5, {"down": 0.1, "deep": 4.0, "up": 0.1, "wide": 0.1}, drop=only_deep)
    assert kept(found.plan) == {"deep"}


def test_a_group_that_must_stay_float_is_looked_into(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(search_module, "AT_MOST_GROUPS", 2)
    found, _, _ = search(0.5, drop=only_deep)
    assert [entry.group for entry in found.sensitivities] == ["down to deep", "up to wide"]
    assert [entry.stays for entry in found.sensitivities] == ["partly", "int8"]
    assert [(entry.group, entry.stays) for entry in found.finer] == [("deep", "float"), ("down", "int8")]
    assert kept(found.plan) == {"deep"}


def test_of_several_suspects_the_worse_ones_are_tried_without_the_others() -> None:
    """Both ends of the network are slower in INT8, but float at `down` pays for a cast that it does not save."""
    found, _, _ = search(5.0, {"down": -0.15, "deep": 1.0, "up": 1.0, "wide": -0.5}, casts=0.4)
    assert kept(found.plan) == {"wide"}


def test_effects_add_up_to_what_was_measured() -> None:
    found, _, _ = search(0.9, {"down": 1.0, "deep": 2.0, "up": 1.0, "wide": 0.5})
    assert sum(keep.effect_ms or 0.0 for keep in found.plan.keep) == pytest.approx(2.5)
    assert sum(keep.effect_points or 0.0 for keep in found.plan.keep) == pytest.approx(4.0)
    chosen = next(each for each in found.judged if each.chosen)
    assert chosen.network_ms - found.int8_ms == pytest.approx(2.5)
    assert found.fp32_ms == pytest.approx(22.0)


def test_nothing_is_right() -> None:
    found, judged, _ = search(-1.0)
    assert found.plan is None
    assert all(kept(plan) < set(LAYERS) for plan in judged)  # all of them in float is FP32, a candidate of its own
    assert not any(each.right for each in found.judged)


def test_no_time_left_measures_no_group_and_still_judges() -> None:
    found, judged, store = search(1.5, deadline=time.monotonic() - 1)
    assert found.stopped_early
    assert store.losses == 1
    assert found.recipe == DEFAULT
    assert 1 <= len(judged) <= 2
    assert all(entry.loss is None for entry in found.sensitivities)


def test_no_time_left_still_times_the_plan_that_is_found() -> None:
    found, _, store = search(5.0, deadline=time.monotonic() - 1)
    chosen = next(each for each in found.judged if each.chosen)
    assert chosen.network_ms == found.int8_ms == store.times([found.plan], found.recipe)[0]
    assert found.fp32_ms == pytest.approx(22.0)
    nothing, _, _ = search(-1.0, deadline=time.monotonic() - 1)
    assert nothing.plan is None
    assert nothing.fp32_ms is None


def test_what_was_not_measured_is_taken_to_be_bad() -> None:
    """Time ends while groups are measured: a plan that keeps all unknown ones in float is still found."""
    end = time.monotonic() + 60
    clock = iter([0.0] * (len(METHODS) + 2) + [0.0] * 2 + [end + 1] * 99)  # recipes and layer times, two groups, then no more
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(costs_module.time, "monotonic", lambda: next(clock))
        found, judged, _ = search(0.4, deadline=end)
    measured = {entry.group for entry in found.sensitivities if entry.loss is not None}
    assert found.stopped_early
    assert len(measured) == 2
    assert len(judged) == 2
    assert found.plan is not None
    assert {"deep", "wide"} <= kept(found.plan)
