"""The embedded networks as small float32 graphs, and scenes as their inputs."""

from __future__ import annotations

from functools import cache
from importlib.resources import as_file, files

import msgspec
import numpy as np

from segship.core.graph import Graph
from segship.core.image import prepare
from segship.core.spec import KeepSize, ModelSpec
from segship.graph.export import export
from segship.graph.recipe import optimise
from segship.models import load_model
from segship.scenes import generate

NAMES = ("scenes-unet.pth", "scenes-segformer")
_SIZE = (128, 128)


@cache
def demo_graph(name: str) -> Graph:
    """The network for images of 128 x 128 pixels, whatever size its own images are resized to."""
    with as_file(files("segship") / "assets" / name) as checkpoint:
        model = load_model(checkpoint)
    return optimise(export(_unresized(model.spec), model.module, _SIZE))


def _unresized(spec: ModelSpec) -> ModelSpec:
    return msgspec.structs.replace(spec, image=msgspec.structs.replace(spec.image, resize=KeepSize()))


def scene_inputs(graph: Graph, count: int, seed: int = 60_000) -> list[np.ndarray]:
    """Network inputs (1, 3, 128, 128) of scenes that the networks were not trained on."""
    return [prepare(generate(seed + index, _SIZE).image, graph.spec.image) for index in range(count)]
