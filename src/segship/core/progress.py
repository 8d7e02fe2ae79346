"""How long work tells where it is."""

from __future__ import annotations

from typing import Protocol


class Progress(Protocol):
    """Called as work goes on: the stage's name, how many steps are done, how many there are (None: not known)."""

    def __call__(self, stage: str, done: int, total: int | None) -> None:
        """Tell where the work is."""
        ...


def silent(stage: str, done: int, total: int | None) -> None:
    """Tell nobody."""
