"""What INT8 costs and saves, measured: the best recipe, and for each group of layers points lost and milliseconds saved."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property

import msgspec

from segship.backends import load_backend
from segship.core.precision import PrecisionPlan
from segship.core.progress import Progress
from segship.evidence.searches import RecipeLoss
from segship.graph.int8_recipe import DEFAULT, METHODS, Recipe
from segship.graph.passes.insert_qdq import quantisable_layers
from segship.quantiser import Quantiser
from segship.search.front import Item
from segship.search.groups import Group
from segship.search.plans import FLOAT, alone, with_float
from segship.search.spent import places_of_tensors, spent_ms
from segship.search.store import EngineStore

_SLOWER = 0.02
"""Part of all time won or lost by which INT8 must be slower in a group to be suspected; whole engines are timed then."""


class Deadline:
    """``at`` in ``time.monotonic()`` seconds, None for none; remembers whether anything had to be left out for it."""

    def __init__(self, at: float | None) -> None:
        self._at = at
        self.missed = False

    def passed(self) -> bool:
        """Whether time is up."""
        late = self._at is not None and time.monotonic() > self._at
        self.missed |= late
        return late


class Costs:
    """Measures one backend's engines of one graph, each thing when it is first asked for."""

    def __init__(self, quantiser: Quantiser, backend: str, store: EngineStore, progress: Progress, deadline: Deadline) -> None:
        self._quantiser, self._store, self._deadline = quantiser, store, deadline
        self._backend, self._progress = backend, progress
        self._places = places_of_tensors(quantiser.graph)
        self._plain = quantiser.plan(load_backend(backend).TRAITS)

    @property
    def layers(self) -> tuple[str, ...]:
        """Module paths of all that can run in INT8, in graph order."""
        return quantisable_layers(self._quantiser.graph, self._plain)

    @cached_property
    def recipe(self) -> Recipe:
        """The recipe that lost least."""
        return _best(self.recipes)

    @cached_property
    def base(self) -> PrecisionPlan:
        """Plain INT8, by the best recipe."""
        return msgspec.structs.replace(self._plain, recipe=str(self.recipe))

    @cached_property
    def recipes(self) -> list[RecipeLoss]:
        """What was lost by every way to choose ranges, then by what can be done on top of the best of them.

        The usual way comes first: it is what there is when time is up.
        """
        losses = self._losses([Recipe(method) for method in sorted(METHODS, key=lambda method: method != DEFAULT.method)], [])
        return self._losses(self._quantiser.refinements(_best(losses)), losses)

    def _losses(self, recipes: Sequence[Recipe], before: list[RecipeLoss]) -> list[RecipeLoss]:
        losses = list(before)
        for index, recipe in enumerate(recipes):
            if losses and self._deadline.passed():
                break
            self._progress(f"search {self._backend}: calibration recipes", index, len(recipes))
            losses.append(RecipeLoss(recipe, self._store.loss(self._plain, recipe)))
        return losses

    def timed(self, found: Sequence[Group]) -> list[Item]:
        """The groups with what INT8 saves on each, not yet with what it loses."""
        return self._without_false_alarms([Item(group, ms=ms) for group, ms in zip(found, self._saved(found), strict=True)])

    def measured(self, items: Sequence[Item]) -> list[Item]:
        """Timed groups with what each loses alone in INT8; where INT8 is slower, it stays float and loses nothing."""
        return [
            item if item.slower or self._deadline.passed() else replace(item, loss=self._loss(item.group, index, len(items)))
            for index, item in enumerate(items)
        ]

    def _loss(self, group: Group, index: int, count: int) -> float:
        self._progress(f"search {self._backend}: sensitivity", index, count)
        return self._store.loss(alone(group, self.base), self.recipe)

    def _saved(self, found: Sequence[Group]) -> list[float | None]:
        """Milliseconds that INT8 saves on each group: None where time is up, or the runtime has no clocks."""
        if self._deadline.passed():
            return [None] * len(found)
        self._progress(f"search {self._backend}: time of each layer", 0, None)
        ends = (FLOAT, self.base)
        totals = self._store.times(ends, self.recipe)
        profiles = [self._store.profile(plan, self.recipe) for plan in ends]
        if not all(profile.kernels for profile in profiles):
            return [None] * len(found)
        fp32, int8 = (spent_ms(found, *each, self._places) for each in zip(profiles, totals, strict=True))
        return [before - after for before, after in zip(fp32, int8, strict=True)]

    def _without_false_alarms(self, items: Sequence[Item]) -> list[Item]:
        """INT8 counts as slower in a group only beyond noise, and if the whole engine is faster without: casts cost, too.

        Where it is not with all that are suspected in float, the worse half of them is tried.
        """
        noise = -_SLOWER * sum(abs(item.ms or 0.0) for item in items)
        slower = sorted((item for item in items if item.slower and (item.ms or 0.0) < noise), key=lambda item: item.ms or 0.0)
        while slower and (self._deadline.passed() or not self._confirmed(slower)):
            slower = slower[: len(slower) // 2]
        return [item if item in slower or not item.slower else replace(item, ms=0.0) for item in items]

    def _confirmed(self, slower: Sequence[Item]) -> bool:
        plain, without = self._store.times([self.base, with_float(slower, self.base)], self.recipe)
        return without < plain


def _best(losses: Sequence[RecipeLoss]) -> Recipe:
    return min(losses, key=lambda each: each.loss).recipe
