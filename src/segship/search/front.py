"""Which choices of float groups are worth trying: those that no other beats in both predicted loss and predicted time.

Losses and times of groups are taken to add up, roughly. That is good enough to order plans, and no plan is believed for it:
the judge sees the built engine.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from segship.search.groups import Group

_AT_MOST_STATES = 256
"""Choices kept while groups are added one by one: finer than any measurement."""
_NOISE_POINTS = 1e-3
"""Loss that every group is taken to have at least: a measured zero is luck on a few images."""
_NOISE_SHARE = 1e-3
"""Part of all time saved that every group is taken to save at least, unless it was found to be slower in INT8."""


@dataclass(frozen=True)
class Item:
    """A group with what it costs in INT8: ``loss`` in points, alone, and ``ms`` that INT8 saves on it; None: not measured."""

    group: Group
    loss: float | None = None
    ms: float | None = None

    @property
    def slower(self) -> bool:
        """Whether INT8 was measured to be slower than float here."""
        return self.ms is not None and self.ms < 0


@dataclass(frozen=True)
class Choice:
    """Items that stay in float, in their order. ``loss``: predicted of the rest in INT8; ``ms``: predicted price of float."""

    kept: tuple[Item, ...]
    loss: float
    ms: float


def front(items: Sequence[Item], at_most: int = 24) -> list[Choice]:
    """At most ``at_most`` choices, from the fastest to the most careful; not the one where everything stays in float.

    Where no times are known, groups count alike: the fewest stay in float. A group that there was no time to measure is taken
    to be as bad as the worst that was: a careful plan is worth more than none.
    """
    worst = max((item.loss for item in items if item.loss is not None), default=1.0)
    timed = any(item.ms is not None for item in items)
    least = _NOISE_SHARE * sum(max(item.ms or 0.0, 0.0) for item in items) or _NOISE_SHARE
    choices = [Choice((), 0.0, 0.0)]
    for item in items:
        price = (item.ms if item.slower else max(item.ms or 0.0, least)) if timed else 1.0
        assert price is not None
        loss = max(worst if item.loss is None and not item.slower else item.loss or 0.0, _NOISE_POINTS)
        kept = [Choice((*choice.kept, item), choice.loss, choice.ms + price) for choice in choices]
        choices = _unbeaten([replace(choice, loss=choice.loss + loss) for choice in choices] + kept, _AT_MOST_STATES)
    return _unbeaten([choice for choice in choices if len(choice.kept) < len(items)], at_most)


def _unbeaten(choices: Iterable[Choice], at_most: int) -> list[Choice]:
    """Those that nothing beats, the fastest first; of many, the most careful of each stretch of time."""
    found: list[Choice] = []
    for choice in sorted(choices, key=lambda each: (each.ms, each.loss)):
        if not found or choice.loss < found[-1].loss:
            found.append(choice)
    if len(found) <= at_most:
        return found
    first, last = found[0].ms, found[-1].ms
    stretches = {int((at_most - 2) * (choice.ms - first) / (last - first)): choice for choice in found[1:]}
    return [found[0], *stretches.values()]
