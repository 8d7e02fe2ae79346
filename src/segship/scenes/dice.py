"""Random choices that come out the same on every machine and with every NumPy version."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, TypeVar

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

T = TypeVar("T")

_WORD: Final = (1 << 64) - 1
_STEP: Final = 0x9E3779B97F4A7C15


class Dice:
    """A stream of choices, fixed by its integer keys.

    Single choices come from SplitMix64 (Steele, Lea and Flood, 2014) in Python integers, which starts at once: a scene
    throws about a hundred independent dice. Noise comes from `PCG64.random_raw`, whose stream NumPy guarantees; it
    promises nothing about the distributions of `Generator`.
    """

    __slots__ = ("_state",)

    def __init__(self, *keys: int) -> None:
        self._state = 0
        for key in keys:
            self._state = (self._word() ^ key) & _WORD
        self._word()

    def _word(self) -> int:
        self._state = (self._state + _STEP) & _WORD
        word = self._state
        word = ((word ^ (word >> 30)) * 0xBF58476D1CE4E5B9) & _WORD
        word = ((word ^ (word >> 27)) * 0x94D049BB133111EB) & _WORD
        return word ^ (word >> 31)

    def unit(self) -> float:
        """A number in [0, 1)."""
        return (self._word() >> 11) * 2.0**-53

    def between(self, low: float, high: float) -> float:
        """A number in [low, high)."""
        return low + (high - low) * self.unit()

    def chance(self, probability: float) -> bool:
        """True with the probability given."""
        return self.unit() < probability

    def below(self, stop: int) -> int:
        """An integer in [0, stop)."""
        return int(self.unit() * stop)

    def pick(self, options: Sequence[T]) -> T:
        """One of the options, all equally likely."""
        return options[self.below(len(options))]

    def octets(self, *shape: int) -> NDArray[np.uint8]:
        """Independent bytes, uint8, of the shape given."""
        count = int(np.prod(shape))
        words = np.asarray(np.random.PCG64(self._word()).random_raw(-(-count // 8)))
        return words.astype("<u8", copy=False).view(np.uint8)[:count].reshape(shape)
