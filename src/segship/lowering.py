"""A graph by a plan with INT8, for any machine: the ranges come from a folder of images."""

from __future__ import annotations

from pathlib import Path

from segship.core.graph import Graph
from segship.core.precision import PrecisionPlan
from segship.core.progress import Progress, silent
from segship.core.spec import Size
from segship.graph.int8_recipe import DEFAULT, parse_recipe
from segship.graph.plan import check_plan
from segship.half import images_in
from segship.pipeline import ModelPredictor
from segship.quantiser import Quantiser


def with_int8(
    model: ModelPredictor,
    graph: Graph,
    plan: PrecisionPlan,
    data: Path,
    *,
    image_size: Size | None = None,
    progress: Progress = silent,
) -> Graph:
    """``graph``, the model's optimised float32 graph, with ``plan`` written into it by the plan's own recipe.

    It is in the one INT8 form of segship (decision 0004) and adapted to no backend: ``segship.build`` does that.
    ``image_size``: the size that ``graph`` was made for, if one. Raises :class:`segship.core.errors.BadArgument` for a plan that
    covers nothing somewhere and for an unknown recipe, :class:`segship.core.errors.BadDataset` for images that cannot be used.
    """
    check_plan(graph, plan)
    recipe = parse_recipe(plan.recipe) if plan.recipe is not None else DEFAULT
    return Quantiser(model, graph, images_in(data, model, image_size), progress, recipe=recipe).written(plan)
