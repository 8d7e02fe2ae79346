"""From values to positions: a linear and a logarithmic scale with ticks at round numbers."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise

_STEPS = ((1, 10), (1, 3, 10), (1, 2, 5, 10), (1, 2, 3, 5, 7, 10), (1, 1.5, 2, 3, 4, 5, 6, 7, 8, 9, 10))
"""Mantissas of ticks on a logarithmic axis, from sparse to dense."""


@dataclass(frozen=True)
class Scale:
    """``low`` maps to ``start`` and ``high`` to ``end``, in pixels; logarithmic in between when ``log``."""

    low: float
    high: float
    start: float
    end: float
    log: bool = False

    def __call__(self, value: float) -> float:
        """Position of a value, in pixels."""
        low, high, at = (math.log(v) if self.log else v for v in (self.low, self.high, value))
        return self.start + (at - low) / (high - low) * (self.end - self.start)

    def ticks(self, most: int) -> list[float]:
        """Round values within the scale, at most ``most``."""
        return self._log_ticks(most) if self.log else _linear_ticks(self.low, self.high, most)

    def _log_ticks(self, most: int) -> list[float]:
        decades = range(math.floor(math.log10(self.low)), math.ceil(math.log10(self.high)) + 1)
        choices = [
            sorted({m * 10.0**decade for decade in decades for m in steps if self.low <= m * 10.0**decade <= self.high})
            for steps in _STEPS
        ]
        fitting = [ticks for ticks in choices if 2 <= len(ticks) <= most]
        return fitting[-1] if fitting else _linear_ticks(self.low, self.high, most)


def _linear_ticks(low: float, high: float, most: int) -> list[float]:
    """Multiples of 1, 2 or 5 times a power of ten."""
    magnitude = 10.0 ** math.floor(math.log10((high - low) / most))
    step = next(m * magnitude for m in (1, 2, 5, 10, 20) if (high - low) / (m * magnitude) <= most)
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [index * step for index in range(first, last + 1)]


def decimals(ticks: list[float]) -> int:
    """Decimals that tell neighbouring ticks apart."""
    gap = min((b - a for a, b in pairwise(ticks)), default=1.0)
    return max(0, -math.floor(math.log10(gap) + 1e-9))
