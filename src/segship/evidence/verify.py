"""Is the engine's answer still right? Predictions of engine and PyTorch on the same images, against the truth if there is one.

Everything streams: one image's predictions are alive at a time. Quantities are in percent, or points of the task's metric.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from segship.core.errors import BadArgument, BadDataset
from segship.core.predictions import Instances, Prediction, SemanticMap
from segship.evidence.bootstrap import RESAMPLES, Weights, paired_interval
from segship.evidence.judge import verdict
from segship.evidence.records import ClassScore, ImageScore, Limit, Verdict
from segship.tasks import Scores, TaskModule

REFERENCE_METRIC: Final = "reference_metric"
CANDIDATE_METRIC: Final = "candidate_metric"
DROP: Final = "drop"
"""Metric of the reference minus that of the candidate; without truth, 100 minus the agreement."""
WORST_CLASS_DROP: Final = "worst_class_drop"
AGREEMENT: Final = "agreement"
MATCHED_IOU: Final = "matched_iou"
OBJECT_IOU: Final = "object_iou"
"""Mask IoU of the objects that reference and candidate are both sure of, in percent: of all their pixels together, and the mean
over objects (docs/decisions/0018); left out where there are none."""

_FEW_IMAGES: Final = 20


def max_drop(points: float, reason: str) -> Limit:
    """The limit that ``--max-drop`` sets: at most ``points`` of the metric lost (without truth: of agreement)."""
    return Limit(DROP, at_most=points, reason=reason)


def compare_predictions(
    references: Iterable[Prediction],
    candidates: Iterable[Prediction],
    truths: Iterable[Prediction] | None,
    *,
    task: TaskModule,
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
    """Judge ``candidates`` beside ``references`` on images given in the same order by all iterables.

    With ``truths`` the level is ``dataset``: the task's metric of both, each class's, the change with its 95 %
    paired-bootstrap interval over images. Without, it is ``predictions``: the reference takes the truth's place, and the
    interval is that of agreement minus 100.
    """
    sums = _Sums(task, len(classes), ignore)
    if truths is None:
        for name, first, second in zip(names, references, candidates, strict=True):
            sums.add(name, first, second, first)
    else:
        for name, first, second, truth in zip(names, references, candidates, truths, strict=True):
            sums.add(name, first, second, truth)
    if not sums.names:
        raise BadArgument("no image to compare on: give at least one")
    first_scores, second_scores = sums.scores()
    scores = class_scores(classes, first_scores, second_scores)
    labelled = truths is not None
    return verdict(
        level="dataset" if labelled else "predictions",
        title=title,
        reference=reference,
        candidate=candidate,
        images=len(sums.names),
        measured=_measured(first_scores, second_scores, scores, sums.agreement, labelled=labelled) | sums.matched_iou,
        limits=limits,
        interval=sums.interval(labelled=labelled, resamples=resamples, seed=seed),
        classes=scores,
        worst=sums.worst(n_worst),
        notes=_notes(scores, len(sums.names)),
    )


class _Sums:
    """What is kept of the images: the metric's sums of both sides, and how far they agree on each image."""

    def __init__(self, task: TaskModule, n_classes: int, ignore: int | None) -> None:
        self._task, self._n_classes, self._ignore = task, n_classes, ignore
        self._reference, self._candidate = task.scorer(n_classes, ignore), task.scorer(n_classes, ignore)
        self.names: list[str] = []
        self._agreements: list[tuple[float, int]] = []
        self._overlaps: list[tuple[int, int]] = []

    def add(self, name: str, reference: Prediction, candidate: Prediction, truth: Prediction) -> None:
        """Count one image."""
        for role, each in (("PyTorch's answer", reference), ("the engine's answer", candidate), ("the truth", truth)):
            self._check(name, role, each, truth.size, ignore=self._ignore if role == "the truth" else None)
        self._reference.add(truth, reference)
        self._candidate.add(truth, candidate)
        self._agreements.append((self._task.agreement(reference, candidate), truth.size[0] * truth.size[1]))
        self._overlaps += self._task.overlaps(reference, candidate)
        self.names.append(name)

    def _check(self, name: str, role: str, each: Prediction, size: tuple[int, int], *, ignore: int | None) -> None:
        if each.size != size:
            raise BadDataset(
                f"{name}: {role} has {each.size[0]} x {each.size[1]} pixels, the truth {size[0]} x {size[1]}: "
                "give labels of the images' own size"
            )
        highest = _highest_class(each, ignore)
        if highest >= self._n_classes:
            raise BadDataset(
                f"{name}: {role} holds the class id {highest}, there are {self._n_classes} classes: mend the classes"
            )

    def scores(self) -> tuple[Scores, Scores]:
        """The metric of both."""
        return self._reference.scores(), self._candidate.scores()

    @property
    def agreement(self) -> float:
        """In percent; an image counts by its pixels."""
        return 100 * sum(share * size for share, size in self._agreements) / sum(size for _, size in self._agreements)

    @property
    def matched_iou(self) -> dict[str, float]:
        """Mask IoU in percent of the objects found by both, by pixels and by objects; empty where there are none."""
        if not self._overlaps:
            return {}
        both, either = np.array(self._overlaps, np.float64).T
        return {MATCHED_IOU: 100 * float(both.sum() / either.sum()), OBJECT_IOU: 100 * float(np.mean(both / either))}

    def interval(self, *, labelled: bool, resamples: int, seed: int) -> tuple[float, float] | None:
        """95 % interval of the change, candidate minus reference."""
        share, size = np.array(self._agreements, np.float64).T

        def change(weights: Weights) -> NDArray[np.float64]:
            if labelled:
                return self._candidate.resampled(weights) - self._reference.resampled(weights)
            lost: NDArray[np.float64] = 100 * (weights @ (share * size)) / (weights @ size) - 100
            return lost

        return paired_interval(change, len(self.names), resamples=resamples, seed=seed)

    def worst(self, n: int) -> tuple[ImageScore, ...]:
        """The images on which the two differ most; ties keep the images' order."""
        scores = [ImageScore(name, 100 * share) for name, (share, _) in zip(self.names, self._agreements, strict=True)]
        return tuple(sorted(scores, key=lambda score: score.agreement)[:n])


def _highest_class(prediction: Prediction, ignore: int | None) -> int:
    if isinstance(prediction, SemanticMap):
        known = prediction.labels if ignore is None else prediction.labels[prediction.labels != ignore]
        return int(known.max()) if known.size else -1
    if isinstance(prediction, Instances):
        return int(prediction.classes.max()) if len(prediction) else -1
    return max((segment.class_id for segment in prediction.segments), default=-1)


def class_scores(classes: Sequence[str], first: Scores, second: Scores) -> tuple[ClassScore, ...]:
    """The metric of each class for both, None where a class occurs in neither truth nor prediction."""
    return tuple(
        ClassScore(name, _score(first.per_class[i]), _score(second.per_class[i]), int(first.support[i]))
        for i, name in enumerate(classes)
    )


def _measured(
    first: Scores, second: Scores, scores: Sequence[ClassScore], agreement: float, *, labelled: bool
) -> dict[str, float]:
    """Quantity name to value."""
    drops = [drop for score in scores if (drop := _drop(score)) is not None]
    return {
        REFERENCE_METRIC: first.mean,
        CANDIDATE_METRIC: second.mean,
        DROP: first.mean - second.mean if labelled else 100 - agreement,
        WORST_CLASS_DROP: max(drops, default=float("nan")),
        AGREEMENT: agreement,
    }


def _notes(scores: Sequence[ClassScore], n_images: int) -> tuple[str, ...]:
    """Facts that a reader of the numbers must know."""
    notes = []
    falling = [(drop, score) for score in scores if (drop := _drop(score)) is not None]
    drop, worst = max(falling, key=lambda entry: entry[0], default=(0.0, None))
    if worst is not None and drop > 0:
        notes.append(f"the class that loses most is {worst.name}: {worst.reference:.2f} to {worst.candidate or 0:.2f}")
    absent = [score.name for score in scores if score.reference is None and score.candidate is None]
    if absent:
        notes.append(f"classes that never occur: {', '.join(absent)}")
    if n_images < _FEW_IMAGES:
        notes.append(f"{n_images} images are few: the interval is rough")
    return tuple(notes)


def _score(value: np.float64) -> float | None:
    return None if np.isnan(value) else float(value)


def _drop(score: ClassScore) -> float | None:
    if score.reference is None:
        return None
    return score.reference - (score.candidate if score.candidate is not None else 0.0)
