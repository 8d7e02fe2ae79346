"""Which numbers flow through a model's graph on image files: the model's own reading and preparing, joined to calibration."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import msgspec

from segship.backends.onnxruntime import open_graph
from segship.core.environment import cache_folder
from segship.core.graph import Graph
from segship.graph.calibrate import Calibration
from segship.predictor import Predictor


def calibration_of(
    model: Predictor, graph: Graph, tensors: tuple[str, ...], images: Sequence[Path], *, cache: Path | None = None
) -> Calibration:
    """The calibration of ``tensors`` of the model's ``graph``, not run yet.

    What is learnt goes into ``cache``, or a folder of the user's own where one can be written.
    """
    kept = cache_folder()
    reader = Predictor(model.spec, model.session, graph.signature)  # the graph's inputs, which may be more than the model's
    return Calibration(
        graph=graph,
        tensors=tensors,
        images=images,
        prepare=reader.network_feeds,
        preprocessing=msgspec.json.encode((model.spec.image, model.spec.slide)).decode(),
        open_session=open_graph,
        cache=cache or (kept / "calibration" if kept is not None else None),
    )
