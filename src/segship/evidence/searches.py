"""What the search found out: the source of the report's sensitivity chart, and of the plan's reasons."""

from __future__ import annotations

from typing import Literal

import msgspec

from segship.core.precision import PrecisionPlan
from segship.graph.int8_recipe import Recipe

Stays = Literal["int8", "float", "partly", "slower"]
"""What a group runs in by the plan found; ``slower``: in float, because INT8 is slower there."""


class RecipeLoss(msgspec.Struct, frozen=True):
    """Agreement with PyTorch that is lost, in points, when every layer that can runs in INT8 by ``recipe``."""

    recipe: Recipe
    loss: float


class Sensitivity(msgspec.Struct, frozen=True):
    """One group of ``layers`` layers.

    ``loss``: agreement with PyTorch that is lost, in points, when only it runs in INT8. ``saved_ms``: what INT8 saves on it,
    by the profiles of the FP32 and the INT8 engine. None: there was no time to measure it, or nothing to measure it by.
    """

    group: str
    layers: int
    loss: float | None
    saved_ms: float | None = None
    stays: Stays = "int8"


class JudgedPlan(msgspec.Struct, frozen=True):
    """One plan that was built and judged. ``kept``: groups in float; ``drop`` as the judge measured it, in points.

    ``network_ms``: measured side by side with the other plans; None where it was not right, or not among the fastest.
    """

    kept: tuple[str, ...]
    right: bool
    drop: float | None
    network_ms: float | None = None
    chosen: bool = False


class Found(msgspec.Struct, frozen=True):
    """The search of one backend: how numbers were made, what each group costs (most sensitive first), what was judged, the
    fastest plan that was right, and how many engines were built. ``plan`` is None where no plan was right.

    ``finer``: parts of the groups that had to stay in float, measured in their turn. ``fp32_ms``, ``int8_ms``: the network in
    FP32 and in plain INT8, side by side.
    """

    backend: str
    probe_images: int
    recipes: tuple[RecipeLoss, ...]
    sensitivities: tuple[Sensitivity, ...]
    plan: PrecisionPlan | None
    recipe: Recipe
    engines: int
    stopped_early: bool = False
    finer: tuple[Sensitivity, ...] = ()
    judged: tuple[JudgedPlan, ...] = ()
    fp32_ms: float | None = None
    int8_ms: float | None = None
