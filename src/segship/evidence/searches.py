"""What the search found out: the source of the report's sensitivity chart, and of the plan's reasons."""

from __future__ import annotations

import msgspec

from segship.core.precision import PrecisionPlan
from segship.graph.int8_recipe import Recipe


class RecipeLoss(msgspec.Struct, frozen=True):
    """Agreement with PyTorch that is lost, in points, when every layer that can runs in INT8 by ``recipe``."""

    recipe: Recipe
    loss: float


class Sensitivity(msgspec.Struct, frozen=True):
    """Agreement with PyTorch that is lost, in points, when only this group of ``layers`` layers runs in INT8."""

    group: str
    layers: int
    loss: float


class Found(msgspec.Struct, frozen=True):
    """The search of one backend: how numbers were made, what each group costs (most sensitive first), the plan that was
    right, and how many engines were tried for it. ``plan`` is None where even the most careful one was not right."""

    backend: str
    probe_images: int
    recipes: tuple[RecipeLoss, ...]
    sensitivities: tuple[Sensitivity, ...]
    plan: PrecisionPlan | None
    recipe: Recipe
    engines: int
    stopped_early: bool = False
