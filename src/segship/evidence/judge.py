"""From measured quantities and limits to a verdict."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence

from segship.core.errors import BadArgument
from segship.evidence.records import ClassScore, ImageScore, Level, Limit, Verdict


def verdict(
    *,
    level: Level,
    title: str,
    reference: str,
    candidate: str,
    images: int,
    measured: Mapping[str, float],
    limits: Sequence[Limit],
    skipped: Collection[str] = (),
    interval: tuple[float, float] | None = None,
    classes: Sequence[ClassScore] = (),
    worst: Sequence[ImageScore] = (),
    notes: Sequence[str] = (),
) -> Verdict:
    """The verdict on ``measured``. ``skipped`` quantities could not be measured, which ``notes`` must say; they are not judged.

    A value that is not finite fails its limit; it becomes a note, since JSON has no such number.
    """
    lost = [f"{quantity} is not a finite number ({value})" for quantity, value in measured.items() if not math.isfinite(value)]
    return Verdict(
        level=level,
        title=title,
        reference=reference,
        candidate=candidate,
        images=images,
        measured={quantity: value for quantity, value in measured.items() if math.isfinite(value)},
        limits=tuple(limits),
        passed=holds(measured, limits, skipped=skipped),
        interval=interval,
        classes=tuple(classes),
        worst=tuple(worst),
        notes=(*notes, *lost),
    )


def holds(measured: Mapping[str, float], limits: Sequence[Limit], *, skipped: Collection[str] = ()) -> bool:
    """Whether every limit holds; a value that is not finite never does.

    Raises :class:`BadArgument` for limits that judge nothing: none at all, one without a bound or a reason, one of a
    quantity that is not measured.
    """
    for limit in limits:
        _check(limit, {*measured, *skipped})
    judged = [limit for limit in limits if limit.quantity not in skipped]
    if not judged:
        raise BadArgument("no limit to judge by: state at least one for a quantity that can be measured here")
    return all(math.isfinite(measured[limit.quantity]) and limit.holds(measured[limit.quantity]) for limit in judged)


def _check(limit: Limit, quantities: set[str]) -> None:
    if limit.at_most is None and limit.at_least is None:
        raise BadArgument(f"the limit of {limit.quantity!r} has no bound: state at_most or at_least")
    if not limit.reason:
        raise BadArgument(f"the limit of {limit.quantity!r} has no reason: say why it is where it is")
    if limit.quantity not in quantities:
        raise BadArgument(f"no quantity {limit.quantity!r} is measured here: limit one of {', '.join(sorted(quantities))}")
