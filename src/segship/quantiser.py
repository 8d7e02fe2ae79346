"""INT8 graphs of one model: calibrated once, then written in the form that each backend runs in integer kernels."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from segship.core import engine
from segship.core.backend import Traits
from segship.core.graph import Graph
from segship.core.precision import PrecisionPlan
from segship.core.progress import Progress, silent
from segship.graph.calibrate import Ranges
from segship.graph.int8_recipe import DEFAULT, Recipe
from segship.graph.passes.insert_qdq import tensors_to_quantise
from segship.graph.plan import int8_plan
from segship.graph.recipe import legalised, quantised
from segship.observing import calibration_of
from segship.pipeline import ModelPredictor


class Quantiser:
    """Calibrates a graph on image files and gives its INT8 form for any backend and plan.

    What was learnt is kept in a cache folder, if one can be written, by the hash of graph, images and preprocessing; an
    interrupted calibration goes on where it stopped, and another recipe that only differs in its method runs nothing.
    """

    def __init__(
        self,
        model: ModelPredictor,
        graph: Graph,
        images: Sequence[Path],
        progress: Progress = silent,
        *,
        recipe: Recipe = DEFAULT,
        cache: Path | None = None,
    ) -> None:
        self.graph = graph
        self.images = list(images)
        self._model, self._progress = model, progress
        self._recipe, self._cache = recipe, cache
        self._ranges: dict[Recipe, Ranges] = {}

    def calibrate(self, recipe: Recipe | None = None) -> Ranges:
        """The ranges of every activation that INT8 may hold on any backend; computed on the first call for a recipe."""
        recipe = recipe or self._recipe
        if recipe not in self._ranges:
            tensors = tensors_to_quantise(self.graph, PrecisionPlan("int8"))
            calibration = calibration_of(self._model, self.graph, tensors, self.images, cache=self._cache)
            self._ranges[recipe] = calibration.run(method=recipe.method, progress=self._progress)
        return self._ranges[recipe]

    def plan(self, traits: Traits) -> PrecisionPlan:
        """INT8 wherever a backend of these traits has kernels and it makes sense."""
        return int8_plan(self.graph, traits)

    def quantised(self, traits: Traits, plan: PrecisionPlan | None = None, recipe: Recipe | None = None) -> Graph:
        """The INT8 graph for a backend of these traits, by its own plan or another."""
        ranges = self.calibrate(recipe).tensors
        return quantised(self.graph, ranges, plan or self.plan(traits), traits)

    def plain(self, traits: Traits) -> Graph:
        """The FP32 graph for a backend of these traits."""
        return legalised(self.graph, traits)

    def refinements(self, recipe: Recipe) -> tuple[Recipe, ...]:
        """What can be done on top of ``recipe`` where this graph has a place for it."""
        return ()

    def record(self, recipe: Recipe | None = None) -> engine.Calibration:
        """How the numbers were made, for the manifest."""
        ranges = self.calibrate(recipe)
        return engine.Calibration(str(recipe or self._recipe), ranges.images, ranges.sha256)
