"""The search itself: choose a recipe, measure what each group of layers loses and saves in INT8, find the fastest right plan.

Groups are measured on the calibration images, by their agreement with PyTorch, never on the images that the engine is
judged on: a plan fitted to its judge would prove nothing. What is right is decided by the judge's own verdicts, and what is
fastest by engines timed side by side.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import NamedTuple

import msgspec

from segship.backends import load_backend
from segship.core.precision import PrecisionPlan
from segship.core.progress import Progress
from segship.evidence.searches import Found, JudgedPlan, RecipeLoss
from segship.graph.int8_recipe import METHODS, Recipe
from segship.graph.passes.insert_qdq import quantisable_layers
from segship.quantiser import Quantiser
from segship.search.front import Choice, Item, front
from segship.search.groups import Group, groups
from segship.search.plans import FLOAT, alone, sensitivities, with_float
from segship.search.spent import places_of_tensors, spent_ms
from segship.search.store import EngineStore

AT_MOST_GROUPS = 24

_FEW = 3
"""So few groups in float are worth looking into, layer by layer."""
_AT_MOST_PARTS = 12
_AT_MOST_TIMED = 5
"""Right plans that are timed side by side at the end."""
_WRONG_TIMED = 3
_SLOWER = 0.02
"""Part of all time won or lost by which INT8 must be slower in a group to be suspected; whole engines are timed then."""
_LATE_ONES = 2
"""Plans that are judged although time is up, where none was right before: the one that measurements point to, a careful one."""


class Judgement(NamedTuple):
    """Whether every verdict on an engine holds, and the points that it loses."""

    right: bool
    drop: float | None = None


Judge = Callable[[PrecisionPlan, Recipe], Judgement]
"""Builds the engine of a plan and judges it."""


class PlanSearch:
    """Search for one backend.

    ``allowed``: points that may be lost. ``deadline`` (``time.monotonic()`` seconds, None for none) ends
    measuring; what was measured until then is judged, by few plans.
    """

    def __init__(
        self,
        quantiser: Quantiser,
        backend: str,
        store: EngineStore,
        judge: Judge,
        progress: Progress,
        *,
        allowed: float,
        deadline: float | None = None,
    ) -> None:
        self._quantiser, self._backend, self._store, self._judge = quantiser, backend, store, judge
        self._progress, self._allowed, self._deadline = progress, allowed, deadline
        self._base = quantiser.plan(load_backend(backend).TRAITS)
        self._places = places_of_tensors(quantiser.graph)
        self._judged: dict[PrecisionPlan, tuple[Choice, Judgement]] = {}
        self._stopped = False

    def run(self, probe_images: int) -> Found:
        """The fastest plan that is right."""
        recipes = self._compared_recipes()
        recipe = _best(recipes)
        self._base = msgspec.structs.replace(self._base, recipe=str(recipe))
        items = self._measured(groups(quantisable_layers(self._quantiser.graph, self._base), AT_MOST_GROUPS), recipe)
        self._seek(front(items), recipe)
        self._prune(recipe)
        finer = self._finer(recipe)
        plan, times = self._fastest(recipe)
        kept = self._judged[plan][0].kept if plan is not None else ()
        return Found(
            backend=self._backend,
            probe_images=probe_images,
            recipes=tuple(recipes),
            sensitivities=sensitivities(items, kept),
            plan=plan,
            recipe=recipe,
            engines=self._store.built,
            stopped_early=self._stopped,
            finer=sensitivities(finer, kept),
            judged=tuple(
                JudgedPlan(tuple(item.group.name for item in choice.kept), *judgement, times.get(each), each == plan)
                for each, (choice, judgement) in self._judged.items()
            ),
            fp32_ms=times.get(FLOAT),
            int8_ms=times.get(self._base),
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
            self._progress(f"search {self._backend}: calibration recipes", index, len(recipes))
            losses.append(RecipeLoss(recipe, self._store.loss(self._base, recipe)))
        return losses

    def _measured(self, found: Sequence[Group], recipe: Recipe) -> list[Item]:
        """What each group saves in INT8, and what it loses alone; where INT8 is slower, it stays float and loses nothing."""
        saved = self._saved(found, recipe)
        items = self._without_false_alarms([Item(group, ms=ms) for group, ms in zip(found, saved, strict=True)], recipe)
        return [
            item if item.slower or self._is_late() else replace(item, loss=self._loss(item.group, recipe, index, len(items)))
            for index, item in enumerate(items)
        ]

    def _loss(self, group: Group, recipe: Recipe, index: int, count: int) -> float:
        self._progress(f"search {self._backend}: sensitivity", index, count)
        return self._store.loss(alone(group, self._base), recipe)

    def _saved(self, found: Sequence[Group], recipe: Recipe) -> list[float | None]:
        """Milliseconds that INT8 saves on each group: None where time is up, or the runtime has no clocks."""
        if self._is_late():
            return [None] * len(found)
        self._progress(f"search {self._backend}: time of each layer", 0, None)
        ends = (FLOAT, self._base)
        totals = self._store.times(ends, recipe)
        profiles = [self._store.profile(plan, recipe) for plan in ends]
        if not all(profile.kernels for profile in profiles):
            return [None] * len(found)
        fp32, int8 = (spent_ms(found, *each, self._places) for each in zip(profiles, totals, strict=True))
        return [before - after for before, after in zip(fp32, int8, strict=True)]

    def _without_false_alarms(self, items: Sequence[Item], recipe: Recipe) -> list[Item]:
        """INT8 counts as slower in a group only beyond noise, and if the whole engine is faster without: casts cost, too."""
        noise = -_SLOWER * sum(abs(item.ms or 0.0) for item in items)
        slower = [item for item in items if item.slower and (item.ms or 0.0) < noise]
        if slower and not self._is_late():
            plain, without = self._store.times([self._base, with_float(slower, self._base)], recipe)
            slower = slower if without < plain else []
        return [item if item in slower or not item.slower else replace(item, ms=0.0) for item in items]

    def _seek(self, choices: Sequence[Choice], recipe: Recipe) -> None:
        """Judge the fastest choice, then the one that its drop points to, then by bisection; more float is never less right."""
        low, high, place, late_ones = 0, len(choices), 0, 0
        while low < high and not (self._is_late() and (late_ones == _LATE_ONES or self._right())):
            self._progress(f"search {self._backend}: judging plans", len(self._judged), None)
            late_ones += self._is_late()
            judgement = self._prove(choices[place], recipe)
            low, high = (low, place) if judgement.right else (place + 1, high)
            middle = (low + high) // 2
            place = self._pointed_to(choices, judgement.drop, low, high, middle) if place == 0 else middle

    def _pointed_to(self, choices: Sequence[Choice], drop: float | None, low: int, high: int, middle: int) -> int:
        """The first choice that loses little enough if drops are in proportion to predicted losses, else ``middle``."""
        loss = self._allowed * choices[0].loss / drop if drop is not None and drop > 0 else -1.0
        return next((index for index in range(low, high) if choices[index].loss <= loss), middle)

    def _prove(self, choice: Choice, recipe: Recipe) -> Judgement:
        plan = with_float(choice.kept, self._base)
        if plan not in self._judged:
            self._judged[plan] = (choice, self._judge(plan, recipe))
        return self._judged[plan][1]

    def _right(self) -> list[PrecisionPlan]:
        """Plans that are right, the fastest by prediction first."""
        right = [plan for plan, (_, judgement) in self._judged.items() if judgement.right]
        return sorted(right, key=lambda plan: self._judged[plan][0].ms)

    def _prune(self, recipe: Recipe) -> None:
        """Give back what the best plan so far may not need, its least sensitive groups first: losses add up only roughly."""
        sensitive, slower = self._kept()
        if len(sensitive) < 2 or self._is_late():
            return
        ordered = sorted(sensitive, key=lambda item: -(item.loss or 0.0))
        self._seek([_choice([*ordered[:count], *slower], ordered[count:]) for count in range(len(ordered))], recipe)

    def _kept(self) -> tuple[list[Item], list[Item]]:
        """What stays in float by the best plan so far: for its accuracy, and because INT8 is slower there."""
        right = self._right()
        kept = self._judged[right[0]][0].kept if right else ()
        return [item for item in kept if not item.slower], [item for item in kept if item.slower]

    def _finer(self, recipe: Recipe) -> list[Item]:
        """Parts of the groups that must stay in float, where those are few: fewer layers may do."""
        sensitive, slower = self._kept()
        if self._is_late():
            return []
        layers = [layer for item in sensitive for layer in item.group.layers]
        if not 0 < len(sensitive) <= _FEW or len(layers) <= len(sensitive):
            return []
        parts = self._measured(groups(layers, _AT_MOST_PARTS), recipe)
        self._seek(front([*parts, *slower]), recipe)
        return parts

    def _fastest(self, recipe: Recipe) -> tuple[PrecisionPlan | None, dict[PrecisionPlan, float]]:
        """The fastest right plan, and the times of all that were timed in turns; by prediction where time is up.

        FP32, plain INT8 and some wrong plans are timed beside, to show what is given up.
        """
        right = self._right()[:_AT_MOST_TIMED]
        if self._is_late():
            return (right[0] if right else None), {}
        self._progress(f"search {self._backend}: fastest plan", 0, None)
        wrong = [plan for plan, (_, judgement) in self._judged.items() if not judgement.right]
        timed = list(dict.fromkeys([FLOAT, self._base, *right, *wrong[-_WRONG_TIMED:]]))
        times = dict(zip(timed, self._store.times(timed, recipe), strict=True))
        return min(right, key=lambda plan: times[plan], default=None), times

    def _is_late(self) -> bool:
        late = self._deadline is not None and time.monotonic() > self._deadline
        self._stopped |= late
        return late


def _choice(kept: Sequence[Item], rest: Sequence[Item]) -> Choice:
    price = sum(1.0 if item.ms is None else item.ms for item in kept)  # as in the front
    return Choice(tuple(kept), sum(item.loss or 0.0 for item in rest), price)


def _best(losses: Sequence[RecipeLoss]) -> Recipe:
    return min(losses, key=lambda each: each.loss).recipe
