"""Half precision that holds the numbers: a plan made from what a model's tensors reach on image files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from segship.core.graph import Graph
from segship.core.precision import PrecisionPlan
from segship.core.progress import Progress, silent
from segship.core.spec import Size
from segship.graph.calibrate import Calibration
from segship.graph.inner_sums import tensors_for_half, with_inner_sums
from segship.graph.plan import half_plan
from segship.observing import images_of, on_images
from segship.predictor import Predictor


def plan_on_folder(
    model: Predictor,
    graph: Graph,
    data: Path,
    precision: Literal["fp16", "bf16"],
    *,
    image_size: Size | None = None,
    progress: Progress = silent,
) -> PrecisionPlan:
    """:func:`observed_plan` on the images of a folder that :func:`segship.observing.images_of` chooses, and with its errors.

    ``image_size``: the size that ``graph`` was made for, if one.
    """
    return observed_plan(model, graph, images_of(data, model.spec, image_size), precision, progress=progress)


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
