"""The range whose INT8 levels tell most of how the values were spread: least Kullback-Leibler divergence.

S. Migacz, "8-bit Inference with TensorRT", GTC 2017, slides 36 to 38; ONNX Runtime's ``HistogramCollector.get_entropy_threshold``
does the same. As there, the reference P holds the outliers in its outermost bins, and the candidate Q is made without them,
which is the price of clipping. What differs is for uint8: 255 steps between two ends, each of which is moved by itself, so that
a tensor without negative values (after ReLU) uses all steps, and one with a longer tail on one side is clipped only there.
Zeros are not counted, as in NVIDIA's pytorch-quantization (``calib/histogram.py``): zero is always one of the levels, and half of
a ReLU's values would outweigh everything else.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

LEVELS = 256
_SHRINK = np.geomspace(1.0, 1 / 8, 64)
"""Below an eighth, a step of uint8 could be narrower than a bin, and Q would be P whatever is lost."""

_MOST_CLIPPED = 0.01
"""Share of the values that may be clipped. P holds what is clipped in one bin: with too much of it there, any range fits."""

Ends = tuple[float, float]


def least_divergence(counts: NDArray[np.int64], width: float, whole: Ends) -> Ends:
    """The (low, high) inside ``whole`` that divides ``counts`` (bins of ``width``, zero at the middle edge) with least loss.

    ``whole`` holds zero, and so does the answer. First the upper end is chosen, then the lower one.
    """
    low, high = whole
    middle = len(counts) // 2
    counts = counts.copy()
    counts[middle] = min(counts[middle], counts[middle + 1])
    if not counts.any():
        return whole
    if high > 0:
        high *= _SHRINK[np.argmin(_divergences(counts, width, np.full(len(_SHRINK), low), high * _SHRINK))]
    if low < 0:
        low *= _SHRINK[np.argmin(_divergences(counts, width, low * _SHRINK, np.full(len(_SHRINK), high)))]
    return float(low), float(high)


def _divergences(
    counts: NDArray[np.int64], width: float, lows: NDArray[np.float64], highs: NDArray[np.float64]
) -> NDArray[np.float64]:
    """KL(P || Q) of each candidate range, shape (candidates,).

    A level holds neighbouring bins, so everything about it is a difference of cumulated sums: no candidate walks the bins.
    """
    occurred = np.flatnonzero(counts)
    held = counts[occurred].astype(np.float64)
    centres = (occurred - len(counts) // 2 + 0.5) * width
    scales = (highs - lows) / (LEVELS - 1)
    zeros = np.rint(-lows / scales)
    steps = np.arange(LEVELS + 1) - 0.5  # edges between levels, the outermost half a step beyond the ends
    edges = np.searchsorted(centres, (steps - zeros[:, None]) * scales[:, None])
    mass = np.diff(_cumulated(held)[edges])
    bins = np.diff(edges)
    first, last = edges[:, 0], edges[:, -1]
    inside = mass.sum(axis=1)
    below = _cumulated(held)[first]
    above = held.sum() - _cumulated(held)[last]
    outermost = held[np.minimum(first, len(held) - 1)], held[np.maximum(last - 1, 0)]
    told = np.diff(_cumulated(held * np.log(held))[np.stack([first, last])], axis=0)[0]  # sum of P log P, all but outliers
    for outliers, bin_count in zip((below, above), outermost, strict=True):
        told += (bin_count + outliers) * np.log(bin_count + outliers) - bin_count * np.log(bin_count)
    spread = np.log(np.maximum(mass, 1) / np.maximum(bins, 1))  # of each level: the logarithm of Q in all of its bins
    first_level, last_level = (bins > 0).argmax(axis=1), LEVELS - 1 - (bins[:, ::-1] > 0).argmax(axis=1)
    rows = np.arange(len(lows))
    expected = (mass * spread).sum(axis=1) + below * spread[rows, first_level] + above * spread[rows, last_level]
    total = held.sum()
    divergence = (told - expected) / total - np.log(total) + np.log(np.maximum(inside, 1))
    return np.where(inside < (1 - _MOST_CLIPPED) * total, np.inf, divergence)


def _cumulated(content: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.concatenate([[0.0], np.cumsum(content)])
