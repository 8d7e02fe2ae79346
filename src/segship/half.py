"""Half precision that holds the numbers: a plan made from what a model's tensors reach on image files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from segship.core.errors import BadDataset
from segship.core.graph import Graph
from segship.core.precision import PrecisionPlan
from segship.core.progress import Progress, silent
from segship.core.spec import Size
from segship.datasets import open_dataset
from segship.datasets.dataset import strided
from segship.graph.calibrate import Calibration
from segship.graph.inner_sums import tensors_for_half, with_inner_sums
from segship.graph.plan import half_plan
from segship.observing import on_images
from segship.pipeline import ModelPredictor
from segship.predictor import Predictor

AT_MOST_IMAGES = 64


def plan_on_folder(
    model: ModelPredictor,
    graph: Graph,
    data: Path,
    precision: Literal["fp16", "bf16"],
    *,
    image_size: Size | None = None,
    progress: Progress = silent,
) -> PrecisionPlan:
    """:func:`observed_plan` on at most ``AT_MOST_IMAGES`` images of a folder, evenly strided; labels are not read.

    ``image_size``: the size that ``graph`` was made for, if one. Raises :class:`BadDataset` for a folder without images, and for
    images of another size.
    """
    return observed_plan(model, graph, images_in(data, model, image_size), precision, progress=progress)


def images_in(data: Path, model: ModelPredictor, image_size: Size | None) -> list[Path]:
    """At most ``AT_MOST_IMAGES`` of a folder, evenly strided, all of ``image_size`` if it is one.

    Raises :class:`BadDataset` for a folder without images, and for images of another size.
    """
    samples = open_dataset(data, model.spec.task).samples
    images = [samples[index].image for index in strided(range(len(samples)), min(AT_MOST_IMAGES, len(samples)))]
    for image in images:
        _check_size(image, model.size_of(image), image_size)
    return images


def _check_size(image: Path, found: Size, wanted: Size | None) -> None:
    if wanted is not None and found != wanted:
        raise BadDataset(
            f"{image} has {found[0]} x {found[1]} pixels, the graph is made for {wanted[0]} x {wanted[1]} (height x width): "
            "give images of that size, or leave the size free"
        )


def observed_plan(
    model: Predictor,
    graph: Graph,
    images: Sequence[Path],
    precision: Literal["fp16", "bf16"] = "fp16",
    *,
    cache: Path | None = None,
    progress: Progress = silent,
) -> PrecisionPlan:
    """Half precision everywhere but where numbers on ``images``, or sums of them inside an operator, come near its end.

    ``graph`` is the model's optimised float32 graph. One image is in memory at a time, and what was observed is cached.
    Raises :class:`segship.core.errors.BuildFailed` without images, and where the network overflows float32 itself.
    """
    observed = with_inner_sums(graph)
    calibration = Calibration(graph=observed, tensors=tensors_for_half(graph), **on_images(model, observed, images, cache=cache))
    ranges = calibration.run(method="minmax", progress=progress)
    return half_plan(graph, ranges.tensors, precision)
