"""INT8 graphs of one model: calibrated once, then written in the form that each backend runs in integer kernels."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from hashlib import sha256
from pathlib import Path

import msgspec

from segship.core import engine
from segship.core.backend import Traits
from segship.core.graph import Graph
from segship.core.precision import PrecisionPlan
from segship.core.progress import Progress, silent
from segship.graph.calibrate import Calibration, Ranges
from segship.graph.channels import ChannelStatistics, ChannelValues
from segship.graph.int8_recipe import DEFAULT, Recipe
from segship.graph.observe import channel_maxima_graph
from segship.graph.passes.correct_bias import has_biases, mean_error_graph
from segship.graph.passes.insert_qdq import tensors_to_quantise
from segship.graph.passes.smooth import tensors_to_smooth
from segship.graph.plan import int8_plan
from segship.graph.recipe import legalised, smoothed, written
from segship.observing import OnImages, on_images
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
        self.recipe, self._cache = recipe, cache
        self._ranges: dict[Recipe, Ranges] = {}

    def calibrate(self, recipe: Recipe | None = None) -> Ranges:
        """The ranges of every activation that INT8 may hold on any backend; computed on the first call for a recipe."""
        recipe = self._plain_of(recipe)
        if recipe not in self._ranges:
            graph = self._float_graph(smooth=recipe.smooth)
            tensors = tensors_to_quantise(graph, PrecisionPlan("int8"))
            calibration = Calibration(graph=graph, tensors=tensors, **self._on_images())
            self._ranges[recipe] = calibration.run(method=recipe.method, progress=self._progress)
        return self._ranges[recipe]

    def _plain_of(self, recipe: Recipe | None) -> Recipe:
        """The recipe as far as ranges depend on it."""
        return msgspec.structs.replace(recipe or self.recipe, correct_bias=False)

    def _float_graph(self, *, smooth: bool) -> Graph:
        """What is calibrated, and INT8 is written into."""
        return self._smoothed if smooth else self.graph

    @cached_property
    def _smoothed(self) -> Graph:
        watched = channel_maxima_graph(self.graph, tensors_to_smooth(self.graph))
        return smoothed(self.graph, ChannelStatistics(graph=watched, **self._on_images()).maxima(self._progress))

    def _mean_errors(self, recipe: Recipe, weight_bits: int) -> ChannelValues:
        """By node, what INT8 adds to each output channel in the mean over the calibration images."""
        watched = mean_error_graph(
            self._float_graph(smooth=recipe.smooth), self.calibrate(recipe).tensors, weight_bits=weight_bits
        )
        return ChannelStatistics(graph=watched, **self._on_images()).means(self._progress)

    def _on_images(self) -> OnImages:
        return on_images(self._model, self.graph, self.images, cache=self._cache)

    def plan(self, traits: Traits) -> PrecisionPlan:
        """INT8 wherever a backend of these traits has kernels and it makes sense."""
        return int8_plan(self.graph, traits)

    def quantised(self, traits: Traits, plan: PrecisionPlan | None = None, recipe: Recipe | None = None) -> Graph:
        """The INT8 graph for a backend of these traits, by its own plan or another."""
        return legalised(self.written(plan or self.plan(traits), recipe, traits.weight_bits), traits)

    def written(self, plan: PrecisionPlan, recipe: Recipe | None = None, weight_bits: int = 8) -> Graph:
        """The graph with a plan that has INT8 written into it, not yet in the form that one backend wants; ``weight_bits``
        as that backend multiplies exactly."""
        recipe = recipe or self.recipe
        ranges = self.calibrate(recipe).tensors
        errors = self._mean_errors(recipe, weight_bits) if recipe.correct_bias else None
        return written(self._float_graph(smooth=recipe.smooth), plan, ranges, errors, weight_bits=weight_bits)

    def plain(self, traits: Traits) -> Graph:
        """The FP32 graph for a backend of these traits."""
        return legalised(self.graph, traits)

    def refinements(self, recipe: Recipe) -> tuple[Recipe, ...]:
        """What can be done on top of ``recipe``, where this graph has a place for it."""
        smooth = (False, True) if tensors_to_smooth(self.graph) else (False,)
        correct = (False, True) if has_biases(self.graph) else (False,)
        combined = [msgspec.structs.replace(recipe, smooth=each, correct_bias=other) for each in smooth for other in correct]
        return tuple(each for each in combined if each != recipe)

    def record(self, recipe: Recipe | None = None) -> engine.Calibration:
        """How the numbers were made, for the manifest."""
        recipe, ranges = recipe or self.recipe, self.calibrate(recipe)
        return engine.Calibration(str(recipe), ranges.images, sha256(f"{ranges.sha256} {recipe}".encode()).hexdigest())
