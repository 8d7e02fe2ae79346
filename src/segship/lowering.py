"""A graph by any plan, for any machine: where the plan has INT8, the ranges come from a folder of images."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from segship.core.engine import Calibration
from segship.core.graph import Graph
from segship.core.precision import PrecisionPlan
from segship.core.progress import Progress, silent
from segship.core.spec import Size
from segship.graph.int8_recipe import DEFAULT, parse_recipe
from segship.graph.plan import check_plan
from segship.observing import images_of
from segship.pipeline import ModelPredictor, with_plan
from segship.quantiser import Quantiser


class Lowered(NamedTuple):
    """A graph with its plan written into it, and how INT8's numbers were made, where it has any: for an engine's manifest."""

    graph: Graph
    calibration: Calibration | None


def lowered(
    model: ModelPredictor,
    graph: Graph,
    plan: PrecisionPlan,
    data: Path | None = None,
    *,
    image_size: Size | None = None,
    weight_bits: int = 8,
    progress: Progress = silent,
) -> Lowered:
    """``graph``, the model's optimised float32 graph, with ``plan`` written into it; INT8 by the plan's own recipe.

    It is in the one INT8 form of segship (decision 0004) and adapted to no backend: ``segship.build`` does that.
    ``data``: a folder of images that show the ranges of INT8; other plans need none. ``image_size``: the size that ``graph``
    was made for, if one. ``weight_bits``: see :class:`segship.core.backend.Traits`; 8 for a graph that is for any machine.
    Raises :class:`segship.core.errors.BadArgument` for a plan that covers nothing somewhere, for an unknown recipe, and for
    INT8 without images, :class:`segship.core.errors.BadDataset` for images that cannot be used.
    """
    if "int8" not in plan.precisions or data is None:
        return Lowered(with_plan(graph, plan), None)
    check_plan(graph, plan)
    recipe = parse_recipe(plan.recipe) if plan.recipe is not None else DEFAULT
    quantiser = Quantiser(model, graph, images_of(data, model.spec, image_size), progress, recipe=recipe)
    return Lowered(quantiser.written(plan, weight_bits=weight_bits), quantiser.record())
