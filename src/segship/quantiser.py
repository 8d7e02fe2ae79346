"""INT8 graphs of one model: calibrated once, then written in the form that each backend runs in integer kernels."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import msgspec

from segship.backends.onnxruntime import open_graph
from segship.core import engine
from segship.core.backend import Array, Traits
from segship.core.environment import cache_folder
from segship.core.graph import Graph
from segship.core.precision import PrecisionPlan
from segship.core.progress import Progress, silent
from segship.graph.calibrate import Calibration, Ranges
from segship.graph.histogram import Method
from segship.graph.passes.insert_qdq import tensors_to_quantise
from segship.graph.plan import int8_plan
from segship.graph.recipe import legalised, quantised
from segship.pipeline import ModelPredictor
from segship.predictor import middle_window

METHOD: Method = "mse"


class Quantiser:
    """Calibrates a graph on image files and gives its INT8 form for any backend.

    What was learnt is kept in a cache folder, if one can be written, by the hash of graph, images and preprocessing; an
    interrupted calibration goes on where it stopped.
    """

    def __init__(
        self,
        model: ModelPredictor,
        graph: Graph,
        images: Sequence[Path],
        progress: Progress = silent,
        *,
        method: Method = METHOD,
        cache: Path | None = None,
    ) -> None:
        self._model, self._graph, self._images, self._progress = model, graph, list(images), progress
        kept = cache_folder()
        self._method, self._cache = method, cache or (kept / "calibration" if kept is not None else None)
        self._ranges: Ranges | None = None

    def calibrate(self) -> Ranges:
        """The ranges of every activation that INT8 may hold on any backend; computed on the first call."""
        if self._ranges is None:
            spec = self._model.spec
            calibration = Calibration(
                graph=self._graph,
                tensors=tensors_to_quantise(self._graph, PrecisionPlan("int8")),
                images=self._images,
                prepare=self._prepare,
                preprocessing=msgspec.json.encode((spec.image, spec.slide)).decode(),
                open_session=open_graph,
                cache=self._cache,
            )
            self._ranges = calibration.run(method=self._method, progress=self._progress)
        return self._ranges

    def _prepare(self, image: Path) -> dict[str, Array]:
        """What the network takes: of sliding-window models, the window in the middle of the image."""
        prepared = self._model.prepare(image)
        return self._model.feeds(middle_window(prepared.tensor, self._model.spec.slide), prepared.frame)

    def quantised(self, traits: Traits) -> Graph:
        """The INT8 graph for a backend of these traits."""
        return quantised(self._graph, self.calibrate().tensors, int8_plan(self._graph, traits), traits)

    def plain(self, traits: Traits) -> Graph:
        """The FP32 graph for a backend of these traits."""
        return legalised(self._graph, traits)

    @property
    def record(self) -> engine.Calibration:
        """Where the ranges came from, for the manifest."""
        ranges = self.calibrate()
        return engine.Calibration(ranges.method, ranges.images, ranges.sha256)
