"""What the search found out: the source of the report's sensitivity chart, and of the plan's reasons."""

from __future__ import annotations

import msgspec

from segship.core.precision import PrecisionPlan
from segship.graph.histogram import Method


class MethodLoss(msgspec.Struct, frozen=True):
    """Agreement with PyTorch that is lost, in points, when every layer that can runs in INT8 with ranges by ``method``."""

    method: Method
    loss: float


class Sensitivity(msgspec.Struct, frozen=True):
    """Agreement with PyTorch that is lost, in points, when only this group of ``layers`` layers runs in INT8."""

    group: str
    layers: int
    loss: float


class Found(msgspec.Struct, frozen=True):
    """The search of one backend: how ranges were chosen, what each group costs (most sensitive first), the plan that was
    right, and how many engines were tried for it. ``plan`` is None where even the most careful one was not right."""

    backend: str
    probe_images: int
    methods: tuple[MethodLoss, ...]
    sensitivities: tuple[Sensitivity, ...]
    plan: PrecisionPlan | None
    method: Method
    engines: int
    stopped_early: bool = False
