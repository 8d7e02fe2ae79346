"""What flows through a model's graph on image files: the model's own reading and preparing, joined to every observation."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypedDict

import msgspec

from segship.backends.onnxruntime import open_graph
from segship.core.backend import Array, Session
from segship.core.environment import cache_folder
from segship.core.errors import BadDataset
from segship.core.graph import Graph
from segship.core.spec import ModelSpec, Size
from segship.datasets import open_dataset
from segship.datasets.dataset import strided
from segship.datasets.images import image_size as size_of
from segship.predictor import Predictor

AT_MOST_IMAGES = 64


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


def images_of(data: Path, spec: ModelSpec, image_size: Size | None) -> list[Path]:
    """At most ``AT_MOST_IMAGES`` image files of a folder, evenly strided; labels are not read.

    ``image_size``: the (height, width) that a graph was made for, None where it takes any.
    Raises :class:`BadDataset` for a folder without images, and for images of another size.
    """
    samples = open_dataset(data, spec.task).samples
    images = [samples[index].image for index in strided(range(len(samples)), min(AT_MOST_IMAGES, len(samples)))]
    for image in images:
        found = size_of(image, exif_orientation=spec.image.exif_orientation)
        if image_size is not None and image_size != found:
            raise BadDataset(
                f"{image} has {found[0]} x {found[1]} pixels, the graph is made for {image_size[0]} x {image_size[1]} "
                "(height x width): give images of that size, or leave the size free"
            )
    return images
