"""Does an image's result depend on its company? Batch 1 against N, order in the batch, repeated runs, other shapes.

Engines have been shipped whose results are right for one image and silently wrong for a batch
(https://github.com/NVIDIA/TensorRT/issues/4853). The difference of two outputs is, for floats, the largest absolute
difference over the spread (largest minus smallest) of the expected output; for integers (label maps), the share of
entries that differ. Both are 0 for equal outputs.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from typing import Final

import numpy as np

from segship.core.backend import Array, Feeds, Session
from segship.core.errors import BadArgument
from segship.evidence.judge import verdict
from segship.evidence.records import Limit, Verdict

BATCH: Final = "batch_1_against_n"
ORDER: Final = "batch_order"
REPEAT: Final = "repeated_runs"
OTHER_SHAPE: Final = "other_shape"
SHAPE_THERE_AND_BACK: Final = "shape_there_and_back"

Outputs = Mapping[str, Array]
Apart = Callable[[Outputs, Outputs], float]
"""How far two outputs of one image are apart, 0 for equal ones, 1 for nothing in common."""

_QUANTITIES = (BATCH, ORDER, REPEAT, SHAPE_THERE_AND_BACK, OTHER_SHAPE)
_REPEATS = 3


def check_invariance(
    session: Session,
    feeds: Sequence[Feeds],
    *,
    limits: Sequence[Limit],
    title: str,
    engine: str,
    other_feeds: Feeds | None = None,
    other_expected: Outputs | None = None,
    apart: Apart | None = None,
    other_apart: Apart | None = None,
) -> Verdict:
    """Judge a session by itself. ``feeds``: at least two different images, batch 1, of one shape.

    Quantities: ``batch_1_against_n`` all images in one run against one by one; ``batch_order`` the same images in
    another order; ``repeated_runs`` the first image three times; with ``other_feeds`` (one image of another shape)
    ``shape_there_and_back``, the first image again after the other shape, and with ``other_expected`` (what the reference
    gives for it) ``other_shape``. What cannot be measured is noted and not judged; a run that fails, fails its limit.
    ``apart`` measures two outputs of one image where :func:`difference` says too little (lists of objects, whose order
    rounding may change), ``other_apart`` at the other shape.
    """
    _check_feeds(session, feeds)
    apart = apart or difference
    singles = [session.run(each) for each in feeds]
    found = _Findings()
    found.measure(REPEAT, lambda: _repeated(session, feeds[0], singles[0], apart))
    _measure_batches(found, session, feeds, singles, limits, apart)
    _measure_way_back(found, session, feeds[0], singles[0], other_feeds, apart)
    _measure_other_shape(found, session, other_feeds, other_expected, other_apart or apart)
    return verdict(
        level="invariance",
        title=title,
        reference=f"{engine}, one image at a time",
        candidate=engine,
        images=len(feeds),
        measured=found.measured,
        limits=limits,
        skipped=[quantity for quantity in _QUANTITIES if quantity not in found.measured],
        notes=found.notes,
    )


@dataclass(frozen=True)
class _Findings:
    """What was measured so far, and what a reader must know about it."""

    measured: dict[str, float] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def measure(self, quantity: str, run: Callable[[], float]) -> None:
        """Record what ``run`` measures; infinite, with a note, when the engine fails to run at all."""
        try:
            self.measured[quantity] = run()
        except Exception as error:  # each runtime raises its own kinds; the failure is the finding
            self.notes.append(f"{quantity}: the engine failed ({str(error).partition(chr(10))[0]})")
            self.measured[quantity] = float("inf")


def _measure_batches(
    found: _Findings,
    session: Session,
    feeds: Sequence[Feeds],
    singles: Sequence[Outputs],
    limits: Sequence[Limit],
    apart: Apart,
) -> None:
    reason = _why_no_batch(session, singles, limits, apart)
    if reason is not None:
        found.notes.append(f"batches were not judged: {reason}")
        return
    found.measure(BATCH, lambda: _batched(session, feeds, singles, apart))
    found.measure(ORDER, lambda: _reordered(session, feeds, apart))


def _measure_way_back(
    found: _Findings, session: Session, feeds: Feeds, expected: Outputs, other_feeds: Feeds | None, apart: Apart
) -> None:
    if other_feeds is not None:
        found.measure(SHAPE_THERE_AND_BACK, lambda: _there_and_back(session, feeds, expected, other_feeds, apart))
        return
    free = any(isinstance(side, str) for spec in session.inputs for side in spec.shape[1:])
    found.notes.append(f"other shapes were not judged: {'none was given' if free else 'the engine takes one shape'}")


def _measure_other_shape(found: _Findings, session: Session, feeds: Feeds | None, expected: Outputs | None, apart: Apart) -> None:
    if feeds is not None and expected is not None:
        found.measure(OTHER_SHAPE, lambda: apart(expected, session.run(feeds)))
    elif feeds is not None:
        found.notes.append("the result at the other shape was not judged: there is nothing to compare it with")


def difference(expected: Outputs, found: Outputs) -> float:
    """The largest difference of any output; infinite for other names or shapes, NaN when a value is NaN."""
    if set(expected) != set(found):
        return float("inf")
    return float(np.max([_one(np.asarray(expected[name]), np.asarray(found[name])) for name in expected]))


def _one(expected: Array, found: Array) -> float:
    if expected.shape != found.shape:
        return float("inf")
    if expected.dtype.kind != "f":
        return float(np.mean(expected != found))
    wide, other = expected.astype(np.float64), found.astype(np.float64)
    with np.errstate(invalid="ignore", over="ignore"):
        largest, spread = float(np.abs(wide - other).max()), float(np.ptp(wide))
    if largest == 0:
        return 0.0
    return largest / spread if spread else float("inf")


def _check_feeds(session: Session, feeds: Sequence[Feeds]) -> None:
    shapes = [{name: array.shape for name, array in each.items()} for each in feeds]
    if len(feeds) < 2 or any(shape != shapes[0] for shape in shapes):
        raise BadArgument(f"invariance needs two or more images of one shape, got {shapes}: give such images")
    for name in [name for name in feeds[0] if not _is_batched(session, name)]:
        if _batch_is_free(session) and any(not np.array_equal(feeds[0][name], each[name]) for each in feeds):
            raise BadArgument(f"the images differ in {name!r}, which one batch shares: give images of one size")


def _why_no_batch(session: Session, singles: Sequence[Outputs], limits: Sequence[Limit], apart: Apart) -> str | None:
    """Why batches cannot be judged, or None: a fixed batch, or images whose outputs are too alike to betray a mix-up."""
    if not _batch_is_free(session):
        return f"the engine's batch is fixed at {session.inputs[0].shape[0]}"
    allowed = max((limit.at_most or 0.0 for limit in limits if limit.quantity in (BATCH, ORDER)), default=0.0)
    nearest = min(apart(first, second) for first, second in combinations(singles, 2))
    if not nearest > 2 * allowed:
        return f"two images give outputs that differ by only {nearest:.2g}, so a mix-up would pass the limit of {allowed:.2g}"
    return None


def _batch_is_free(session: Session) -> bool:
    return any(_is_batched(session, spec.name) for spec in session.inputs)


def _is_batched(session: Session, name: str) -> bool:
    """Whether the first axis of an input is the batch: it has a symbolic size."""
    return any(spec.name == name and bool(spec.shape) and isinstance(spec.shape[0], str) for spec in session.inputs)


def _joined(session: Session, feeds: Sequence[Feeds]) -> dict[str, Array]:
    """One batch of several feeds; inputs without a batch axis (an image size) are taken from the first."""
    first = feeds[0]
    return {name: np.concatenate([each[name] for each in feeds]) if _is_batched(session, name) else first[name] for name in first}


def _row(outputs: Outputs, index: int) -> dict[str, Array]:
    return {name: array[index : index + 1] for name, array in outputs.items()}


def _batched(session: Session, feeds: Sequence[Feeds], singles: Sequence[Outputs], apart: Apart) -> float:
    together = session.run(_joined(session, feeds))
    return float(np.max([apart(single, _row(together, index)) for index, single in enumerate(singles)]))


def _reordered(session: Session, feeds: Sequence[Feeds], apart: Apart) -> float:
    """The batch against the same batch moved round by one, so that every image changes its place."""
    n = len(feeds)
    straight = session.run(_joined(session, feeds))
    moved = session.run(_joined(session, [feeds[(index + 1) % n] for index in range(n)]))
    return float(np.max([apart(_row(straight, (index + 1) % n), _row(moved, index)) for index in range(n)]))


def _repeated(session: Session, feeds: Feeds, expected: Outputs, apart: Apart) -> float:
    return float(np.max([apart(expected, session.run(feeds)) for _ in range(_REPEATS)]))


def _there_and_back(session: Session, feeds: Feeds, expected: Outputs, other_feeds: Feeds, apart: Apart) -> float:
    session.run(other_feeds)
    return apart(expected, session.run(feeds))
