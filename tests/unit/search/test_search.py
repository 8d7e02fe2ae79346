"""The search keeps the most sensitive groups in float, as few as it takes; measurements are made of a rule here."""

from __future__ import annotations

import time
from typing import Any

import pytest

from segship.core.precision import Keep, PrecisionPlan
from segship.graph.int8_recipe import METHODS, Recipe
from segship.search.search import PlanSearch

SECRET = {"down": 0.1, "deep": 3.0, "up": 0.2, "wide": 1.0}
"""Points that each layer of the small UNet costs in INT8."""


def cost(plan: PrecisionPlan) -> float:
    return sum(points for layer, points in SECRET.items() if plan.precision_of(layer, "Conv") == "int8")


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
    """Losses by the rule; ``percentile`` ranges with corrected biases are the best."""

    def __init__(self) -> None:
        self.built, self.asked = 0, 0

    def loss(self, plan: PrecisionPlan, recipe: Recipe) -> float:
        self.asked += 1
        worse = 1.5 * (recipe.method != "percentile") + 0.5 * (not recipe.correct_bias)
        return cost(plan) * (1.0 + worse)


def search(allowed: float, deadline: float | None = None) -> Any:
    store, judged = Store(), []

    def is_right(plan: PrecisionPlan, recipe: Recipe) -> bool:
        judged.append(plan)
        return cost(plan) <= allowed

    found = PlanSearch(Quantiser(), "onnxruntime", store, lambda *_: None, deadline=deadline).run(is_right, 4)
    return found, judged, store


@pytest.mark.parametrize(
    ("allowed", "kept"), [(5.0, set()), (1.5, {"deep"}), (0.9, {"deep", "wide"}), (0.15, {"deep", "wide", "up"})]
)
def test_the_fewest_groups_stay_in_float(allowed: float, kept: set[str]) -> None:
    found, judged, _ = search(allowed)
    assert found.recipe == Recipe("percentile", correct_bias=True)
    assert [each.recipe for each in found.recipes[: len(METHODS)]] == [Recipe(method) for method in METHODS]
    assert [str(each.recipe) for each in found.recipes[len(METHODS) :]] == ["percentile + smooth", "percentile + bias"]
    assert [entry.group for entry in found.sensitivities] == ["deep", "wide", "up", "down"]
    assert {keep.where for keep in found.plan.keep} - {"last"} == kept
    assert cost(found.plan) <= allowed
    assert len(judged) <= 3  # bisection over four groups
    assert all("points" in keep.reason for keep in found.plan.keep if keep.where in SECRET)


def test_nothing_is_right() -> None:
    found, _, _ = search(-1.0)
    assert found.plan is None


def test_no_time_left_measures_no_group_and_still_judges() -> None:
    found, judged, store = search(1.5, deadline=time.monotonic() - 1)
    assert found.stopped_early
    assert store.asked == 1
    assert judged
