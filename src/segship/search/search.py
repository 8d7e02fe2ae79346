"""The search itself: choose a recipe, measure each group of layers alone, keep the worst in float until it is right.

Groups are measured on the calibration images, by their agreement with PyTorch, never on the images that the engine is
judged on: a plan fitted to its judge would prove nothing. What is right is decided by the judge's own verdicts.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from segship.backends import load_backend
from segship.core.precision import Keep, PrecisionPlan
from segship.core.progress import Progress
from segship.evidence.searches import Found, RecipeLoss, Sensitivity
from segship.graph.int8_recipe import METHODS, Recipe
from segship.graph.passes.insert_qdq import quantisable_layers
from segship.quantiser import Quantiser
from segship.search.groups import Group, groups
from segship.search.store import EngineStore

AT_MOST_GROUPS = 24

Judge = Callable[[PrecisionPlan, Recipe], bool]
"""Builds the engine of a plan and says whether every verdict on it holds."""


class PlanSearch:
    """Search for one backend. ``deadline`` (``time.monotonic()`` seconds, None for none) ends measuring, not judging."""

    def __init__(
        self, quantiser: Quantiser, backend: str, store: EngineStore, progress: Progress, *, deadline: float | None = None
    ) -> None:
        self._quantiser, self._backend, self._store, self._progress = quantiser, backend, store, progress
        self._deadline = deadline
        self._base = quantiser.plan(load_backend(backend).TRAITS)
        self._stopped = False

    def run(self, is_right: Judge, probe_images: int) -> Found:
        """The plan with the fewest groups in float that ``is_right``; groups are given up in the order of their loss."""
        recipes = self._compared_recipes()
        recipe = _best(recipes)
        ordered = self._ordered(groups(quantisable_layers(self._quantiser.graph, self._base), AT_MOST_GROUPS), recipe)
        plan = self._fewest([group for group, _ in ordered], [entry for _, entry in ordered], recipe, is_right)
        return Found(
            backend=self._backend,
            probe_images=probe_images,
            recipes=tuple(recipes),
            sensitivities=tuple(entry for _, entry in ordered),
            plan=plan,
            recipe=recipe,
            engines=self._store.built,
            stopped_early=self._stopped,
        )

    def _compared_recipes(self) -> list[RecipeLoss]:
        """Every way to choose ranges, then what can be done on top of the best of them."""
        losses = self._losses([Recipe(method) for method in METHODS], [])
        return self._losses(self._quantiser.refinements(_best(losses)), losses)

    def _losses(self, recipes: Sequence[Recipe], before: list[RecipeLoss]) -> list[RecipeLoss]:
        losses = list(before)
        for index, recipe in enumerate(recipes):
            if losses and self._is_late():
                break
            self._progress(f"search {self._backend}: calibration by {recipe}", index, len(recipes))
            losses.append(RecipeLoss(recipe, self._store.loss(self._base, recipe)))
        return losses

    def _ordered(self, found: Sequence[Group], recipe: Recipe) -> list[tuple[Group, Sensitivity]]:
        """Groups with their losses, the largest first; those that there was no time to measure come last."""
        measured = []
        for index, group in enumerate(found):
            self._progress(f"search {self._backend}: sensitivity of {group.name or 'all layers'}", index, len(found))
            loss = 0.0 if self._is_late() else self._store.loss(self._alone(group), recipe)
            measured.append((group, Sensitivity(group.name, len(group.layers), loss)))
        return sorted(measured, key=lambda entry: -entry[1].loss)

    def _fewest(
        self, ordered: Sequence[Group], losses: Sequence[Sensitivity], recipe: Recipe, is_right: Judge
    ) -> PrecisionPlan | None:
        """Bisection over how many groups stay in float: more float is never less right, but for chance."""
        low, high, best = 0, len(ordered), None
        while low < high:
            middle = (low + high) // 2
            plan = self._without(ordered[:middle], losses[:middle])
            self._progress(
                f"search {self._backend}: {middle} of {len(ordered)} groups in float", len(ordered) - (high - low), None
            )
            if is_right(plan, recipe):
                high, best = middle, plan
            else:
                low = middle + 1
        return best

    def _alone(self, group: Group) -> PrecisionPlan:
        """Everything in float but this group; what can never run in INT8 stays float all the same."""
        chosen = tuple(Keep(pattern, "int8", "measured alone") for pattern in group.patterns)
        return PrecisionPlan("fp32", (*chosen, *self._base.keep))

    def _without(self, kept: Sequence[Group], losses: Sequence[Sensitivity]) -> PrecisionPlan:
        reasons = [f"alone in INT8 it loses {entry.loss:.2f} points of agreement with PyTorch" for entry in losses]
        exceptions = [
            Keep(pattern, "fp32", reason) for group, reason in zip(kept, reasons, strict=True) for pattern in group.patterns
        ]
        return PrecisionPlan("int8", (*self._base.keep, *exceptions))

    def _is_late(self) -> bool:
        late = self._deadline is not None and time.monotonic() > self._deadline
        self._stopped |= late
        return late


def _best(losses: Sequence[RecipeLoss]) -> Recipe:
    return min(losses, key=lambda each: each.loss).recipe
