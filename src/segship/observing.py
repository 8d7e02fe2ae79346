"""What flows through a model's graph on image files: the model's own reading and preparing, joined to every observation."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypedDict

import msgspec

from segship.backends.onnxruntime import open_graph
from segship.core.backend import Array, Session
from segship.core.environment import cache_folder
from segship.core.graph import Graph
from segship.predictor import Predictor


class OnImages(TypedDict):
    """What :class:`segship.graph.calibrate.Calibration` and :class:`segship.graph.channels.ChannelStatistics` have in common."""

    images: Sequence[Path]
    prepare: Callable[[Path], dict[str, Array]]
    preprocessing: str
    open_session: Callable[[Graph], Session]
    cache: Path | None


def on_images(model: Predictor, graph: Graph, images: Sequence[Path], *, cache: Path | None = None) -> OnImages:
    """Image files as the network of ``graph``, which is the model's, takes them.

    What is learnt goes into ``cache``, or a folder of the user's own where one can be written.
    """
    kept = cache_folder()
    reader = Predictor(model.spec, model.session, graph.signature)  # the graph's inputs, which may be more than the model's
    return OnImages(
        images=images,
        prepare=reader.network_feeds,
        preprocessing=msgspec.json.encode((model.spec.image, model.spec.slide)).decode(),
        open_session=open_graph,
        cache=cache or (kept / "calibration" if kept is not None else None),
    )
