"""How far a difference between two models, measured on the same images, can be chance: the paired bootstrap over images."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import numpy as np
from numpy.typing import NDArray

Weights = NDArray[np.float64]
"""(resamples, images): how often each image is drawn in each resample."""

RESAMPLES: Final = 1000
_AT_ONCE: Final = 100


def paired_interval(
    change: Callable[[Weights], NDArray[np.float64]],
    n_images: int,
    *,
    resamples: int = RESAMPLES,
    seed: int = 0,
    percent: float = 95,
) -> tuple[float, float] | None:
    """Percentile interval (low, high) of ``change`` when the images are drawn again with replacement.

    ``change`` maps weights (r, images) to (r,) differences, candidate minus reference, of the metric over the weighted
    images; pairing is its doing: both models are judged on the same draw. None when every difference is NaN.
    Efron and Tibshirani, An Introduction to the Bootstrap (1993), chapter 13.
    """
    rng = np.random.default_rng(seed)
    evenly = np.full(n_images, 1 / n_images)
    values = np.empty(resamples)
    for start in range(0, resamples, _AT_ONCE):
        stop = min(start + _AT_ONCE, resamples)
        values[start:stop] = change(rng.multinomial(n_images, evenly, size=stop - start).astype(np.float64))
    finite = values[np.isfinite(values)]
    if not finite.size:
        return None
    low, high = np.percentile(finite, [(100 - percent) / 2, (100 + percent) / 2])
    return float(low), float(high)


def mean_iou(tallies: NDArray[np.float64]) -> NDArray[np.float64]:
    """mIoU in percent (...,) from tallies (..., 3, class) over the classes that occur; NaN where none does.

    A tally holds each class's pixels that are right, in the truth, and in the prediction: all of a confusion matrix
    that IoU needs, so a thousand images cost kilobytes each and not a matrix each.
    """
    right, truth, predicted = tallies[..., 0, :], tallies[..., 1, :], tallies[..., 2, :]
    union = truth + predicted - right
    occurs = union > 0
    each = np.divide(right, union, out=np.zeros_like(union), where=occurs)
    n = np.asarray(occurs.sum(-1))
    mean: NDArray[np.float64] = np.divide(100 * each.sum(-1), n, out=np.full(n.shape, np.nan), where=n > 0)
    return mean


def tally(confusion: NDArray[np.int64]) -> NDArray[np.float64]:
    """(3, class) from a confusion matrix (class, class), rows truth."""
    return np.stack([np.diag(confusion), confusion.sum(1), confusion.sum(0)]).astype(np.float64)


def weighted_mean_iou(weights: Weights, tallies: NDArray[np.float64]) -> NDArray[np.float64]:
    """mIoU (r,) of each row of ``weights`` (r, images) over ``tallies`` (images, 3, class)."""
    n_images, _, n_classes = tallies.shape
    return mean_iou((weights @ tallies.reshape(n_images, -1)).reshape(-1, 3, n_classes))
