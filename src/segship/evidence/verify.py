"""Is the engine's answer still right? Label maps of engine and PyTorch on the same images, against the truth if there is one.

Everything streams: one image's maps are alive at a time. Quantities are in percent of pixels or points of mIoU.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from segship.core.errors import BadArgument, BadDataset
from segship.core.predictions import LabelArray, SemanticMap
from segship.evidence.bootstrap import RESAMPLES, Weights, paired_interval, tally, weighted_mean_iou
from segship.evidence.judge import verdict
from segship.evidence.records import ClassScore, ImageScore, Limit, Verdict
from segship.tasks.semantic import agreement, confusion, iou

REFERENCE_MIOU: Final = "reference_miou"
CANDIDATE_MIOU: Final = "candidate_miou"
DROP: Final = "drop"
"""mIoU of the reference minus that of the candidate; without truth, 100 minus the agreement."""
WORST_CLASS_DROP: Final = "worst_class_drop"
AGREEMENT: Final = "agreement"

_FEW_IMAGES: Final = 20


def max_drop(points: float, reason: str) -> Limit:
    """The limit that ``--max-drop`` sets: at most ``points`` of mIoU lost (without truth: of agreement)."""
    return Limit(DROP, at_most=points, reason=reason)


def compare_predictions(
    reference_maps: Iterable[SemanticMap],
    candidate_maps: Iterable[SemanticMap],
    truths: Iterable[LabelArray] | None,
    *,
    classes: Sequence[str],
    ignore: int | None,
    limits: Sequence[Limit],
    names: Iterable[str],
    title: str,
    reference: str,
    candidate: str,
    n_worst: int = 8,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Verdict:
    """Judge ``candidate`` beside ``reference`` on images given in the same order by all iterables.

    With ``truths`` (height, width) the level is ``dataset``: mIoU of both, IoU of each class, the change with its 95 %
    paired-bootstrap interval over images. Without, it is ``predictions``: the reference takes the truth's place, and the
    interval is that of agreement minus 100.
    """
    sums = _Sums(len(classes), ignore)
    if truths is None:
        for name, first, second in zip(names, reference_maps, candidate_maps, strict=True):
            sums.add(name, first, second, first.labels)
    else:
        for name, first, second, truth in zip(names, reference_maps, candidate_maps, truths, strict=True):
            sums.add(name, first, second, truth)
    if not sums.names:
        raise BadArgument("no image to compare on: give at least one")
    scores = sums.class_scores(classes)
    measured = sums.measured(scores, labelled=truths is not None)
    return verdict(
        level="predictions" if truths is None else "dataset",
        title=title,
        reference=reference,
        candidate=candidate,
        images=len(sums.names),
        measured=measured,
        limits=limits,
        interval=sums.interval(labelled=truths is not None, resamples=resamples, seed=seed),
        classes=scores,
        worst=sums.worst(n_worst),
        notes=sums.notes(scores),
    )


class _Sums:
    """What is kept of each image: two tallies (3, class), pixels that agree, pixels in all."""

    def __init__(self, n_classes: int, ignore: int | None) -> None:
        self._n_classes, self._ignore = n_classes, ignore
        self.names: list[str] = []
        self._reference, self._candidate = (np.zeros((n_classes, n_classes), np.int64) for _ in range(2))
        self._tallies: list[tuple[NDArray[np.float64], NDArray[np.float64]]] = []
        self._pixels: list[tuple[float, int]] = []

    def add(self, name: str, reference: SemanticMap, candidate: SemanticMap, truth: LabelArray) -> None:
        """Count one image."""
        for role, labels in (
            ("PyTorch's labels", reference.labels),
            ("the engine's labels", candidate.labels),
            ("the truth", truth),
        ):
            self._check(name, role, labels, truth.shape, ignore=self._ignore if role == "the truth" else None)
        first = confusion(truth, reference.labels, self._n_classes, self._ignore)
        second = confusion(truth, candidate.labels, self._n_classes, self._ignore)
        self._reference += first
        self._candidate += second
        self._tallies.append((tally(first), tally(second)))
        self._pixels.append((agreement(reference, candidate) * truth.size, truth.size))
        self.names.append(name)

    def _check(self, name: str, role: str, labels: LabelArray, size: tuple[int, ...], *, ignore: int | None) -> None:
        if labels.shape != size:
            raise BadDataset(
                f"{name}: {role} have {labels.shape} pixels, the truth has {size}: give labels of the images' own size"
            )
        known = labels if ignore is None else labels[labels != ignore]
        if known.size and known.max() >= self._n_classes:
            raise BadDataset(
                f"{name}: {role} hold the class id {known.max()}, there are {self._n_classes} classes: mend the classes"
            )

    def class_scores(self, classes: Sequence[str]) -> tuple[ClassScore, ...]:
        """IoU of each class for both, None where a class occurs in neither truth nor prediction."""
        first, second = iou(self._reference).per_class, iou(self._candidate).per_class
        pixels = self._reference.sum(1)
        return tuple(ClassScore(name, _score(first[i]), _score(second[i]), int(pixels[i])) for i, name in enumerate(classes))

    def measured(self, scores: Sequence[ClassScore], *, labelled: bool) -> dict[str, float]:
        """Quantity name to value."""
        first, second = iou(self._reference).mean, iou(self._candidate).mean
        agreeing = 100 * sum(same for same, _ in self._pixels) / sum(size for _, size in self._pixels)
        drops = [drop for score in scores if (drop := _drop(score)) is not None]
        return {
            REFERENCE_MIOU: first,
            CANDIDATE_MIOU: second,
            DROP: first - second if labelled else 100 - agreeing,
            WORST_CLASS_DROP: max(drops, default=float("nan")),
            AGREEMENT: agreeing,
        }

    def interval(self, *, labelled: bool, resamples: int, seed: int) -> tuple[float, float] | None:
        """95 % interval of the change, candidate minus reference."""
        first, second = (np.stack([pair[side] for pair in self._tallies]) for side in (0, 1))
        same, size = np.array(self._pixels, np.float64).T

        def change(weights: Weights) -> NDArray[np.float64]:
            if labelled:
                return weighted_mean_iou(weights, second) - weighted_mean_iou(weights, first)
            lost: NDArray[np.float64] = 100 * (weights @ same) / (weights @ size) - 100
            return lost

        return paired_interval(change, len(self.names), resamples=resamples, seed=seed)

    def worst(self, n: int) -> tuple[ImageScore, ...]:
        """The images on which the two differ most; ties keep the images' order."""
        scores = [ImageScore(name, 100 * same / size) for name, (same, size) in zip(self.names, self._pixels, strict=True)]
        return tuple(sorted(scores, key=lambda score: score.agreement)[:n])

    def notes(self, scores: Sequence[ClassScore]) -> tuple[str, ...]:
        """Facts that a reader of the numbers must know."""
        notes = []
        falling = [(drop, score) for score in scores if (drop := _drop(score)) is not None]
        drop, worst = max(falling, key=lambda entry: entry[0], default=(0.0, None))
        if worst is not None and drop > 0:
            notes.append(f"the class that loses most is {worst.name}: {worst.reference:.2f} to {worst.candidate or 0:.2f}")
        absent = [score.name for score in scores if score.reference is None and score.candidate is None]
        if absent:
            notes.append(f"classes that never occur: {', '.join(absent)}")
        if len(self.names) < _FEW_IMAGES:
            notes.append(f"{len(self.names)} images are few: the interval is rough")
        return tuple(notes)


def _score(value: np.float64) -> float | None:
    return None if np.isnan(value) else float(value)


def _drop(score: ClassScore) -> float | None:
    if score.reference is None:
        return None
    return score.reference - (score.candidate if score.candidate is not None else 0.0)
