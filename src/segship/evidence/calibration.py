"""What calibration was made of, and whether it was enough: the source of the report's section and of deploy's notes."""

from __future__ import annotations

import msgspec


class Check(msgspec.Struct, frozen=True):
    """One question about the calibration images: what was found, and where that is not good, what to do."""

    question: str
    passed: bool
    found: str
    advice: str = ""

    @property
    def note(self) -> str:
        """The finding and the advice in one line."""
        return f"calibration: {self.found}: {self.advice}"


class Saturation(msgspec.Struct, frozen=True):
    """A tensor whose range clips values: which layer makes it, percent of its values, the power of the error in dB of its own."""

    path: str
    tensor: str
    clipped: float
    error_db: float
    low: float
    high: float


class Diagnosis(msgspec.Struct, frozen=True, kw_only=True):
    """All checks of one calibration; ``saturated`` are the tensors that clipping harms most, the worst first."""

    recipe: str
    images: int
    checks: tuple[Check, ...]
    saturated: tuple[Saturation, ...] = ()

    @property
    def notes(self) -> tuple[str, ...]:
        """A line for each check that failed."""
        return tuple(check.note for check in self.checks if not check.passed)
