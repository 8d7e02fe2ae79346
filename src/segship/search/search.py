"""The search itself: choose a recipe, measure what each group of layers loses and saves in INT8, find the fastest right plan.

Groups are measured on the calibration images, by their agreement with PyTorch, never on the images that the engine is
judged on: a plan fitted to its judge would prove nothing. What is right is decided by the judge's own verdicts, and what is
fastest by engines timed side by side.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

from segship.core.precision import PrecisionPlan
from segship.core.progress import Progress
from segship.evidence.searches import Found, JudgedPlan
from segship.graph.int8_recipe import Recipe
from segship.quantiser import Quantiser
from segship.search.costs import Costs, Deadline
from segship.search.front import Choice, Item, front
from segship.search.groups import groups
from segship.search.plans import FLOAT, sensitivities, with_float
from segship.search.store import EngineStore

AT_MOST_GROUPS = 24

_FEW = 3
"""So few groups in float are worth looking into, layer by layer."""
_AT_MOST_PARTS = 12
_AT_MOST_TIMED = 5
"""Right plans that are timed side by side at the end."""
_WRONG_TIMED = 3
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

    ``allowed``: points that may be lost. ``every_group``: measure what groups lose also where plain INT8 is right, by the best
    recipe. ``deadline`` (``time.monotonic()`` seconds, None for none) ends measuring; what was measured until then is judged, by
    few plans, and the best of them is timed.
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
        every_group: bool,
        deadline: float | None = None,
    ) -> None:
        self._backend, self._store, self._judge, self._progress = backend, store, judge, progress
        self._allowed, self._every_group, self._deadline = allowed, every_group, Deadline(deadline)
        self._costs = Costs(quantiser, backend, store, progress, self._deadline)
        self._judged: dict[PrecisionPlan, tuple[Choice, Judgement]] = {}

    def run(self, probe_images: int) -> Found:
        """The fastest plan that is right."""
        items, finer = self._costs.timed(groups(self._costs.layers, AT_MOST_GROUPS)), []
        if self._every_group or not self._right_at_once(items):
            items = self._costs.measured(items)
            self._seek(front(items))
            self._prune()
            finer = self._finer()
        plan, times = self._fastest()
        kept = self._judged[plan][0].kept if plan is not None else ()
        return Found(
            backend=self._backend,
            probe_images=probe_images,
            recipes=tuple(self._costs.recipes),
            sensitivities=sensitivities(items, kept),
            plan=plan,
            recipe=self._costs.recipe,
            engines=self._store.built,
            stopped_early=self._deadline.missed,
            finer=sensitivities(finer, kept),
            judged=tuple(
                JudgedPlan(tuple(item.group.name for item in choice.kept), *judgement, times.get(each), each == plan)
                for each, (choice, judgement) in self._judged.items()
            ),
            fp32_ms=times.get(FLOAT),
            int8_ms=times.get(self._costs.base),
        )

    def _right_at_once(self, items: Sequence[Item]) -> bool:
        """Whether nothing has to stay in float but what INT8 makes slower."""
        self._progress(f"search {self._backend}: judging plans", 0, None)
        slower = [item for item in items if item.slower]
        return self._prove(_choice(slower, [item for item in items if not item.slower])).right

    def _seek(self, choices: Sequence[Choice]) -> None:
        """Judge the fastest choice, then the one that its drop points to, then by bisection; more float is never less right."""
        low, high, place, late_ones = 0, len(choices), 0, 0
        while low < high and not (self._deadline.passed() and (late_ones == _LATE_ONES or self._right())):
            self._progress(f"search {self._backend}: judging plans", len(self._judged), None)
            late_ones += self._deadline.passed()
            judgement = self._prove(choices[place])
            low, high = (low, place) if judgement.right else (place + 1, high)
            middle = (low + high) // 2
            place = self._pointed_to(choices, judgement.drop, low, high, middle) if place == 0 else middle

    def _pointed_to(self, choices: Sequence[Choice], drop: float | None, low: int, high: int, middle: int) -> int:
        """The first choice that loses little enough if drops are in proportion to predicted losses, else ``middle``."""
        loss = self._allowed * choices[0].loss / drop if drop is not None and drop > 0 else -1.0
        return next((index for index in range(low, high) if choices[index].loss <= loss), middle)

    def _prove(self, choice: Choice) -> Judgement:
        plan = with_float(choice.kept, self._costs.base)
        if plan not in self._judged:
            self._judged[plan] = (choice, self._judge(plan, self._costs.recipe))
        return self._judged[plan][1]

    def _right(self) -> list[PrecisionPlan]:
        """Plans that are right, the fastest by prediction first."""
        right = [plan for plan, (_, judgement) in self._judged.items() if judgement.right]
        return sorted(right, key=lambda plan: self._judged[plan][0].ms)

    def _prune(self) -> None:
        """Give back what the best plan so far may not need, its least sensitive groups first: losses add up only roughly."""
        sensitive, slower = self._kept()
        if len(sensitive) < 2 or self._deadline.passed():
            return
        ordered = sorted(sensitive, key=lambda item: -(item.loss or 0.0))
        self._seek([_choice([*ordered[:count], *slower], ordered[count:]) for count in range(len(ordered))])

    def _kept(self) -> tuple[list[Item], list[Item]]:
        """What stays in float by the best plan so far: for its accuracy, and because INT8 is slower there."""
        right = self._right()
        kept = self._judged[right[0]][0].kept if right else ()
        return [item for item in kept if not item.slower], [item for item in kept if item.slower]

    def _finer(self) -> list[Item]:
        """Parts of the groups that must stay in float, where those are few: fewer layers may do."""
        sensitive, slower = self._kept()
        if self._deadline.passed():
            return []
        layers = [layer for item in sensitive for layer in item.group.layers]
        if not 0 < len(sensitive) <= _FEW or len(layers) <= len(sensitive):
            return []
        parts = self._costs.measured(self._costs.timed(groups(layers, _AT_MOST_PARTS)))
        self._seek(front([*parts, *slower]))
        return parts

    def _fastest(self) -> tuple[PrecisionPlan | None, dict[PrecisionPlan, float]]:
        """The fastest right plan, and the times of all that were timed in turns.

        FP32, plain INT8 and some wrong plans are timed beside, to show what is given up. Where time is up, the fastest is so by
        prediction, and it alone is timed beside FP32 and plain INT8: nobody should have to believe a plan without a time.
        """
        right, late = self._right(), self._deadline.passed()
        if late and not right:
            return None, {}
        self._progress(f"search {self._backend}: fastest plan", 0, None)
        wrong = [plan for plan, (_, judgement) in self._judged.items() if not judgement.right]
        beside = right[:1] if late else [*right[:_AT_MOST_TIMED], *wrong[-_WRONG_TIMED:]]
        timed = list(dict.fromkeys([FLOAT, self._costs.base, *beside]))
        times = dict(zip(timed, self._store.times(timed, self._costs.recipe), strict=True))
        return min((plan for plan in beside if plan in right), key=lambda plan: times[plan], default=None), times


def _choice(kept: Sequence[Item], rest: Sequence[Item]) -> Choice:
    price = sum(1.0 if item.ms is None else item.ms for item in kept)  # as in the front
    return Choice(tuple(kept), sum(item.loss or 0.0 for item in rest), price)
