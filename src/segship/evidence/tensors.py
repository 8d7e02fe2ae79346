"""Does the engine compute what PyTorch computes? Their outputs on the same few images, value by value.

A pixel whose two best classes are closer than the tie margin may fall either way by rounding; ``flipped`` leaves such
pixels out, ``flipped_with_ties`` counts them. Both are in percent of pixels, of the worst image.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Final, TypeVar

import numpy as np
from numpy.typing import NDArray

from segship.core.errors import BadArgument
from segship.core.predictions import LabelArray, Prediction
from segship.evidence.judge import verdict
from segship.evidence.records import ImageScore, Limit, Verdict
from segship.tasks import TaskModule
from segship.tasks.semantic import decide

FLIPPED: Final = "flipped"
FLIPPED_WITH_TIES: Final = "flipped_with_ties"
MAX_ABS_DIFFERENCE: Final = "max_abs_difference"
RELATIVE_DIFFERENCE: Final = "relative_difference"
"""Largest absolute difference over the spread (largest minus smallest) of the reference logits, of the worst image."""

DISAGREEMENT: Final = "disagreement"
"""100 minus the task's agreement in percent, of the worst image."""

Logits = NDArray[np.float32]
_Output = TypeVar("_Output", Logits, LabelArray)


def compare_logits(
    references: Iterable[Logits],
    candidates: Iterable[Logits],
    *,
    tie_margin: float,
    threshold: float | None,
    limits: Sequence[Limit],
    names: Iterable[str],
    title: str,
    reference: str,
    candidate: str,
) -> Verdict:
    """Judge logits (class, height, width), one array for each image.

    ``tie_margin``: in logits; ``threshold``: sigmoid probability of class 1, for one channel. A value that is not
    finite, and another shape, fails every limit.
    """

    def differences(want: Logits, have: Logits) -> list[float]:
        return [*_flips(want, decide(have, threshold), tie_margin, threshold), *_differences(want, have)]

    measured, worst, notes = _each(references, candidates, names, differences, lambda want: want.shape)
    quantities = (FLIPPED, FLIPPED_WITH_TIES, MAX_ABS_DIFFERENCE, RELATIVE_DIFFERENCE)
    return verdict(
        level="tensors",
        title=title,
        reference=reference,
        candidate=candidate,
        images=len(measured),
        measured=_worst_of(measured, quantities),
        limits=limits,
        worst=worst,
        notes=notes,
    )


def compare_labels(
    references: Iterable[Logits],
    candidates: Iterable[LabelArray],
    *,
    tie_margin: float,
    threshold: float | None,
    limits: Sequence[Limit],
    names: Iterable[str],
    title: str,
    reference: str,
    candidate: str,
) -> Verdict:
    """Judge label maps (height, width) of an engine that decides by itself.

    ``references``: the reference's logits (class, height, width) in the same frame, after the official resizes.
    """

    def differences(want: Logits, have: LabelArray) -> list[float]:
        return [*_flips(want, have, tie_margin, threshold)]

    measured, worst, notes = _each(references, candidates, names, differences, lambda want: want.shape[1:])
    return verdict(
        level="tensors",
        title=title,
        reference=reference,
        candidate=candidate,
        images=len(measured),
        measured=_worst_of(measured, (FLIPPED, FLIPPED_WITH_TIES)),
        limits=limits,
        worst=worst,
        notes=notes,
    )


def compare_objects(
    pairs: Sequence[tuple[Prediction, Prediction]],
    task: TaskModule,
    *,
    limits: Sequence[Limit],
    names: Sequence[str],
    title: str,
    reference: str,
    candidate: str,
) -> Verdict:
    """Judge predictions, (reference, candidate) for each image, by ``disagreement``: 100 minus the agreement, worst image."""
    shares = [100 * task.agreement(first, second) for first, second in pairs]
    scores = sorted(map(ImageScore, names, shares), key=lambda score: score.agreement)
    return verdict(
        level="tensors",
        title=title,
        reference=reference,
        candidate=candidate,
        images=len(pairs),
        measured=_worst_of([[100 - share] for share in shares], (DISAGREEMENT,)),
        limits=limits,
        worst=scores,
    )


def margin(logits: Logits, threshold: float | None) -> Logits:
    """(height, width): how far each pixel is from another label, in logits."""
    if logits.shape[0] == 1:
        limit = 0.5 if threshold is None else threshold
        distance: Logits = np.abs(logits[0] - np.float32(np.log(limit / (1 - limit))))
        return distance
    second, best = np.partition(logits, logits.shape[0] - 2, axis=0)[-2:]
    gap: Logits = best - second
    return gap


def _each(
    references: Iterable[Logits],
    candidates: Iterable[_Output],
    names: Iterable[str],
    differences: Callable[[Logits, _Output], list[float]],
    expected_shape: Callable[[Logits], tuple[int, ...]],
) -> tuple[list[list[float]], list[ImageScore], list[str]]:
    """For each image: its quantities (the first two are percent of flipped pixels), its score; and notes."""
    rows: list[list[float]] = []
    scores, notes = [], []
    for name, want, have in zip(names, references, candidates, strict=True):
        if have.shape != expected_shape(want):
            rows.append([])
            notes.append(f"{name}: the shape is {have.shape}, expected {expected_shape(want)}")
            continue
        if not np.isfinite(have).all():
            notes.append(f"{name}: {int((~np.isfinite(have)).sum())} values are not finite")
        rows.append(differences(want, have))
        scores.append(ImageScore(name, 100 - rows[-1][1]))
    return rows, sorted(scores, key=lambda score: score.agreement), notes


def _flips(want: Logits, have: LabelArray, tie_margin: float, threshold: float | None) -> tuple[float, float]:
    """Percent of all pixels whose label differs: beyond ties, and with them."""
    differs = decide(want, threshold) != have
    beyond = differs & (margin(want, threshold) > tie_margin)
    return 100 * float(beyond.mean()), 100 * float(differs.mean())


def _differences(want: Logits, have: Logits) -> tuple[float, float]:
    """Largest absolute difference, and the same over the reference's spread. NaN stays NaN."""
    with np.errstate(invalid="ignore", over="ignore"):
        largest = float(np.abs(want - have).max())
    spread = float(want.max() - want.min())
    if spread == 0:
        return largest, 0.0 if largest == 0 else float("inf")
    return largest, largest / spread


def _worst_of(rows: list[list[float]], quantities: Sequence[str]) -> dict[str, float]:
    """The largest value of each quantity; NaN for all when some image could not be compared at all."""
    if not rows:
        raise BadArgument("no image to compare on: give at least one")
    if not all(rows):
        return dict.fromkeys(quantities, float("nan"))
    return dict(zip(quantities, np.max(rows, axis=0).tolist(), strict=True))  # np.max keeps NaN
