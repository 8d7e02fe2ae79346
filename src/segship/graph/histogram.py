"""How the values of a tensor are spread, collected image by image in constant memory, and the range that INT8 shall cover."""

from __future__ import annotations

import base64
import math
import zlib
from dataclasses import dataclass, field
from typing import Literal

import msgspec
import numpy as np
from numpy.typing import NDArray

from segship.graph.entropy import least_divergence

Method = Literal["minmax", "percentile", "mse", "entropy"]
"""How a range follows from a histogram.

``minmax``: everything that occurred. ``percentile``: all but one value in 100,000 at each end. ``mse``: the range whose
rounding and clipping together cost the least squared error. ``entropy``: the range whose levels keep most of how the values
are spread (least Kullback-Leibler divergence).
"""

BINS = 4096
"""Bins over [-limit, limit). The limit is at most twice the largest value, so that value is at least 1024 bins from zero:
four for each of uint8's levels."""

_TAIL = 1e-5
_SHRINK: list[float] = np.linspace(1.0, 0.3, 71).tolist()
_LEVELS = 255  # steps of uint8
_SMALLEST_EXPONENT = -126  # of a normal float32


class Range(msgspec.Struct, frozen=True):
    """The lowest and the highest value that INT8 shall represent; whatever lies outside is clipped."""

    low: float
    high: float


class Clipping(msgspec.Struct, frozen=True):
    """What a range clips of a tensor: the share of its values, and the power of the error over the tensor's own (0 to 1)."""

    share: float
    error: float


class PackedHistogram(msgspec.Struct, frozen=True):
    """A histogram as it is stored: ``counts`` is base64 of zlib of little-endian int64."""

    low: float
    high: float
    exponent: int
    counts: str


@dataclass
class Histogram:
    """Exact extremes, and counts of a sample of the values in ``BINS`` equal bins over [-2**exponent, 2**exponent).

    The limit is a power of two: when a larger value comes, bins merge in pairs and nothing counted so far is blurred twice.
    """

    low: float = math.inf
    high: float = -math.inf
    exponent: int = _SMALLEST_EXPONENT
    counts: NDArray[np.int64] = field(default_factory=lambda: np.zeros(BINS, np.int64))

    def add(self, low: float, high: float, sample: NDArray[np.float32]) -> None:
        """Count one image's values: its exact extremes, and a sample (any shape) that lies between them.

        Raises :class:`ValueError` when the extremes are not finite.
        """
        if not (math.isfinite(low) and math.isfinite(high)):
            raise ValueError(f"the values run from {low} to {high}")
        self.low, self.high = min(self.low, low), max(self.high, high)
        self._widen(max(-low, high))
        indices = np.floor(sample.ravel() / self._width).astype(np.int64) + BINS // 2
        self.counts += np.bincount(np.clip(indices, 0, BINS - 1), minlength=BINS)

    @property
    def _width(self) -> float:
        return 2.0 ** (self.exponent + 1) / BINS

    def _widen(self, largest: float) -> None:
        needed = math.frexp(largest)[1]  # the smallest exponent with largest < 2**exponent
        if needed <= self.exponent:
            return
        merged = 2 ** min(needed - self.exponent, BINS.bit_length() - 2)
        kept = self.counts.reshape(-1, merged).sum(axis=1)
        self.counts = np.zeros(BINS, np.int64)
        begin = BINS // 2 - len(kept) // 2
        self.counts[begin : begin + len(kept)] = kept
        self.exponent = needed

    def bounds(self, method: Method) -> Range:
        """The range that ``method`` chooses; it always holds zero, and never goes beyond what occurred."""
        everything = Range(min(self.low, 0.0), max(self.high, 0.0))
        if method == "minmax" or not self.counts.any():
            return everything
        if method == "entropy":
            return Range(*least_divergence(self.counts, self._width, (everything.low, everything.high)))
        return self._percentile(everything) if method == "percentile" else self._least_error(everything)

    def _percentile(self, everything: Range) -> Range:
        share = np.cumsum(self.counts) / self.counts.sum()
        first = int(np.searchsorted(share, _TAIL, side="right"))
        last = int(np.searchsorted(share, 1 - _TAIL, side="left"))
        low, high = (first - BINS // 2) * self._width, (last + 1 - BINS // 2) * self._width
        return Range(min(max(low, everything.low), 0.0), max(min(high, everything.high), 0.0))

    def _least_error(self, everything: Range) -> Range:
        centres: NDArray[np.float64] = (np.arange(BINS, dtype=np.float64) - BINS // 2 + 0.5) * self._width
        occurred = self.counts > 0
        candidates = [Range(everything.low * shrink, everything.high * shrink) for shrink in _SHRINK]
        errors = [_squared_error(centres[occurred], self.counts[occurred], candidate) for candidate in candidates]
        return candidates[int(np.argmin(errors))]

    def clipping(self, bounds: Range) -> Clipping:
        """What ``bounds`` cost those of the sampled values that they leave out, by the middles of bins."""
        middles = (np.arange(BINS, dtype=np.float64) - BINS // 2 + 0.5) * self._width
        beyond = np.maximum(np.maximum(bounds.low - middles, middles - bounds.high), 0.0)
        beyond[beyond <= max((bounds.high - bounds.low) / _LEVELS, self._width) / 2] = 0.0  # rounding moves any value as far
        total, power = float(self.counts.sum()), float(np.sum(self.counts * middles**2))
        share = float(self.counts[beyond > 0].sum()) / total if total else 0.0
        return Clipping(share, float(np.sum(self.counts * beyond**2)) / power if power else 0.0)

    def packed(self) -> PackedHistogram:
        """The histogram as plain values."""
        content = zlib.compress(self.counts.astype("<i8").tobytes(), 1)
        return PackedHistogram(self.low, self.high, self.exponent, base64.b64encode(content).decode())

    @classmethod
    def unpacked(cls, packed: PackedHistogram) -> Histogram:
        """The histogram that :meth:`packed` described. Raises :class:`ValueError` when the content is damaged."""
        try:
            counts = np.frombuffer(zlib.decompress(base64.b64decode(packed.counts)), "<i8").astype(np.int64)
        except zlib.error as error:
            raise ValueError(f"damaged counts: {error}") from error
        if counts.shape != (BINS,):
            raise ValueError(f"{counts.size} counts, expected {BINS}")
        return cls(packed.low, packed.high, packed.exponent, counts)


def _squared_error(centres: NDArray[np.float64], counts: NDArray[np.int64], bounds: Range) -> float:
    """Sum of squared differences between the values and what uint8 makes of them."""
    scale = (bounds.high - bounds.low) / _LEVELS
    if scale <= 0:
        return math.inf
    zero_point = np.rint(-bounds.low / scale)
    levels = np.clip(np.rint(centres / scale) + zero_point, 0, _LEVELS)
    return float(np.sum(counts * (centres - (levels - zero_point) * scale) ** 2))
