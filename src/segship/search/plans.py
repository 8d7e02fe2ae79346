"""Groups of layers as precision plans, with their reasons and measured effects; and a plan as a table of groups."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from segship.core.precision import Keep, PrecisionPlan
from segship.evidence.searches import Sensitivity, Stays
from segship.search.front import Item
from segship.search.groups import Group

FLOAT = PrecisionPlan("fp32")


def alone(group: Group, base: PrecisionPlan) -> PrecisionPlan:
    """Everything in float but this group; what can never run in INT8 stays float all the same."""
    chosen = tuple(Keep(pattern, "int8", "measured alone") for pattern in group.patterns)
    return PrecisionPlan("fp32", (*chosen, *base.keep))


def with_float(kept: Sequence[Item], base: PrecisionPlan) -> PrecisionPlan:
    """INT8 but for these groups, and for what can never run in it."""
    return PrecisionPlan(
        "int8", (*base.keep, *(exception for item in kept for exception in _exceptions(item))), recipe=base.recipe
    )


def _exceptions(item: Item) -> Iterator[Keep]:
    """One for each pattern of the group; the first holds the effects, so that they add up over a plan."""
    loss = None if item.loss is None else round(item.loss, 3)
    price = None if item.ms is None else round(item.ms, 3)
    for index, pattern in enumerate(item.group.patterns):
        yield Keep(pattern, "fp32", _reason(item), *((price, loss) if index == 0 else (None, None)))


def _reason(item: Item) -> str:
    if item.ms is not None and item.slower:
        return f"INT8 is {-item.ms:.2g} ms slower here than float"
    if item.loss is None:
        return "plans without it were not right; there was no time to measure what it loses alone"
    return f"alone in INT8 it loses {item.loss:.2f} points of agreement with PyTorch"


def sensitivities(items: Sequence[Item], kept: Sequence[Item]) -> tuple[Sensitivity, ...]:
    """The groups as records, the most sensitive first, and what each runs in where ``kept`` stays float."""
    found = [Sensitivity(item.group.name, len(item.group.layers), item.loss, item.ms, _stays(item, kept)) for item in items]
    return tuple(sorted(found, key=lambda entry: -(entry.loss if entry.loss is not None else -1.0)))


def _stays(item: Item, kept: Sequence[Item]) -> Stays:
    floats = {layer for each in kept for layer in each.group.layers}
    count = sum(layer in floats for layer in item.group.layers)
    if count == 0:
        return "int8"
    return "partly" if count < len(item.group.layers) else "slower" if item.slower else "float"
