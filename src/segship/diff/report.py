"""What ``segship diff`` has found."""

from __future__ import annotations

from typing import Any

import msgspec

from segship.diff.kinds import Finding
from segship.diff.ranges import HalfRisk
from segship.diff.walk import Step


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """The outcome: ``finding`` is the first divergence, None where there is none; ``steps`` the tensors compared on the way.

    ``risks``: what float16 could not hold, from :func:`segship.diff.diff_graph`.
    ``disagreement``: 1 minus the task's agreement of the engine's prediction with PyTorch's, None where it gave none.
    """

    image: str
    finding: Finding | None
    disagreement: float | None
    steps: tuple[Step, ...] = ()
    risks: tuple[HalfRisk, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def passed(self) -> bool:
        """Whether nothing diverges."""
        return self.finding is None

    def as_json(self) -> dict[str, Any]:
        """Plain values; what is infinite becomes None, as JSON has no infinity."""
        finding = None if self.finding is None else {**msgspec.to_builtins(self.finding), "advice": self.finding.advice}
        plain = {**msgspec.to_builtins(self), "passed": self.passed, "finding": finding}
        return msgspec.json.decode(msgspec.json.encode(plain), type=dict[str, Any])
