"""Which layers must not run in INT8, found by measuring: the smallest set of exceptions that makes the engine right."""

from __future__ import annotations

from segship.search.mixed import mixed_candidate

__all__ = ["mixed_candidate"]
