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
