"""``segship diff``: the first divergence between PyTorch, graph and engine, by module path, on a real image."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from segship.core.backend import Feeds
from segship.core.errors import BadEngine, RunFailed
from segship.core.graph import Graph
from segship.core.progress import Progress, silent
from segship.core.spec import Frame
from segship.diff.engine import coarsest, diverging_step
from segship.diff.exported import diverging_graph
from segship.diff.inputs import compare_inputs
from segship.diff.kinds import ADVICE, Finding, Kind
from segship.diff.outputs import DENSE, disagreement, disagreement_limit, output_error
from segship.diff.ranges import HalfRisk, half_risks
from segship.diff.report import Report
from segship.diff.walk import Step
from segship.graph.export import export as export_module
from segship.graph.labels import label_map
from segship.graph.recipe import optimise
from segship.pipeline import ModelPredictor, check_made_of, load_model
from segship.predictor import EnginePredictor, Predictor, Prepared, load_engine, middle_window

__all__ = ["ADVICE", "Finding", "HalfRisk", "Kind", "Report", "Step", "diff", "diff_engine", "diff_graph"]

_ADDED_UP = (
    "no step goes wrong by itself; rounding adds up to a disagreement of {:.2g} % in the result (whether that is too much is for "
    "segship verify to say, and segship tune finds a plan that loses less)"
)


def diff(
    checkpoint: Path | str,
    engine: Path | str,
    image: Path | str,
    *,
    every_step: bool = False,
    progress: Progress = silent,
    **facts: Any,
) -> Report:
    """Compare an engine with its checkpoint on one image file.

    The result is compared first; only where it does not agree are tensors walked (or with ``every_step``, always).
    Raises :class:`BadArgument` when the engine was made of another checkpoint, and what loading either raises.
    """
    progress("load", 0, None)
    model = load_model(checkpoint, **facts)
    with load_engine(engine) as candidate:
        check_made_of(candidate.engine, model, checkpoint)
        return diff_engine(model, candidate, image, every_step=every_step, progress=progress)


def diff_graph(checkpoint: Path | str, image: Path | str, *, progress: Progress = silent, **facts: Any) -> Report:
    """Compare a checkpoint with its own exported graph on one image file, and find what float16 could not hold there.

    The graph has the image's size. Raises what loading the checkpoint and the image raises.
    """
    progress("load", 0, None)
    model = load_model(checkpoint, **facts)
    prepared = model.prepare(image)
    feeds = model_feeds(model, prepared)
    progress("export the graph", 0, None)
    graph = export_module(model.spec, model.model.module, (feeds["image"].shape[2], feeds["image"].shape[3]))
    finding = diverging_graph(model, graph, feeds, prepared.frame)
    progress("find ranges", 0, None)
    return Report(image=str(image), finding=finding, disagreement=None, risks=half_risks(graph, feeds))


def diff_engine(
    model: ModelPredictor,
    candidate: EnginePredictor,
    image: Path | str,
    *,
    graph: Graph | None = None,
    every_step: bool = False,
    progress: Progress = silent,
) -> Report:
    """:func:`diff` of what is loaded already; ``graph``: the model's optimised FP32 graph with the engine's signature."""
    finding = compare_inputs(model, candidate, image)
    if finding is not None:
        return Report(image=str(image), finding=finding, disagreement=None)
    reference = model.with_spec(msgspec.structs.replace(candidate.spec, image=model.spec.image))
    prepared = reference.prepare(image)
    several = [prepared, _mirrored(prepared)]
    progress("compare results", 0, None)
    limit = disagreement_limit(reference.spec.task, coarsest(candidate.engine))
    apart = _disagreement(reference, candidate, [prepared])
    beside = apart if apart is None or apart > limit else _disagreement(reference, candidate, several)
    agrees = apart is not None and beside is not None and max(apart, beside) <= limit
    if agrees and not every_step and _raw_agrees(reference, candidate, prepared):
        return Report(
            image=str(image),
            finding=None,
            disagreement=apart,
            notes=("the result agrees, alone and in a batch of 2: no tensor was looked at",),
        )
    alone = apart is None or apart > limit or agrees
    return _walked(reference, candidate, image, [prepared] if alone else several, graph, apart if alone else beside, progress)


def _walked(
    reference: ModelPredictor,
    candidate: EnginePredictor,
    image: Path | str,
    batch: list[Prepared],
    graph: Graph | None,
    apart: float | None,
    progress: Progress,
) -> Report:
    notes: tuple[str, ...] = ()
    if graph is None:
        progress("export the graph", 0, None)
        exported = export_module(reference.spec, reference.model.module, candidate.signature.input_size)
        finding = diverging_graph(reference, exported, model_feeds(reference, batch[0]), batch[0].frame)
        if finding is not None:
            return Report(image=str(image), finding=finding, disagreement=apart)
        notes = ("PyTorch and the exported graph agree",)
        labels = candidate.signature.output == "labels"
        graph = optimise(label_map(exported, candidate.signature.image_size) if labels else exported)
    finding, steps, more = diverging_step(candidate.engine, graph, model_feeds(candidate, *batch), progress)
    if finding is None and apart:
        more = (*more, _ADDED_UP.format(100 * apart))
    return Report(image=str(image), finding=finding, disagreement=apart, steps=steps, notes=(*notes, *more))


def model_feeds(predictor: Predictor, *batch: Prepared) -> Feeds:
    """What the predictor's network takes for prepared images of one size: of a sliding-window model, the middle window."""
    tensor = np.concatenate([middle_window(item.tensor, predictor.spec.slide) for item in batch])
    window = (tensor.shape[2], tensor.shape[3])
    sizes = batch[0].frame if predictor.spec.slide is None else Frame(window, window, window)
    return predictor.feeds(tensor, sizes)


def _mirrored(prepared: Prepared) -> Prepared:
    """Another image of the same sizes: left and right of the content swapped, padding where it was."""
    tensor = prepared.tensor.copy()
    height, width = prepared.frame.content
    tensor[:, :, :height, :width] = prepared.tensor[:, :, :height, :width][..., ::-1]
    return Prepared(tensor, prepared.frame)


def _disagreement(reference: Predictor, candidate: Predictor, batch: list[Prepared]) -> float | None:
    """None where the engine fails (some runtimes compile for each batch size, and fail then)."""
    try:
        return disagreement(reference, candidate, batch)
    except (RunFailed, BadEngine):
        return None


def _raw_agrees(reference: ModelPredictor, candidate: EnginePredictor, prepared: Prepared) -> bool:
    """Whether logits agree, too, where the engine gives them: labels hide what is below a class's margin."""
    if candidate.signature.output != "logits":
        return True
    expected = reference.session.run(model_feeds(reference, prepared))
    found = candidate.session.run(model_feeds(candidate, prepared))
    return output_error(reference.spec, expected, found, prepared.frame) <= DENSE[coarsest(candidate.engine)]
