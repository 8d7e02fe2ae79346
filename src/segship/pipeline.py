"""The whole story: a checkpoint becomes a model, the model a graph, the graph an engine. Read this file first.

``deploy.py`` tells how the best engine is found and proved; ``predictor.py`` how it is used.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, Literal

import msgspec

from segship import __version__
from segship.backends import reference, usable_backend
from segship.backends.onnxruntime import open_graph
from segship.core.backend import Array, Built
from segship.core.engine import Calibration, Engine, Manifest, create_engine
from segship.core.environment import processor
from segship.core.errors import BadArgument
from segship.core.graph import Graph
from segship.core.image import frame
from segship.core.precision import PrecisionPlan, PrecisionReport
from segship.core.spec import RAW_OUTPUT, ExactResize, Frame, ModelSpec, Signature, Size, TensorSpec
from segship.datasets.images import image_size
from segship.graph.export import Difference, check_export, dense_difference
from segship.graph.export import export as export_module
from segship.graph.full_masks import full_masks
from segship.graph.labels import label_map
from segship.graph.plan import check_plan
from segship.graph.recipe import legalised, optimise, written
from segship.models import Model
from segship.models import load_model as load_torch_model
from segship.predictor import Predictor
from segship.tasks import task_of

EXPORT_LIMIT = 1e-3
"""Largest difference between graph and module, in standard deviations of the output: rounding of FP32 in another order
reaches 1e-5 in these networks, the mildest structural error seen (a LayerNorm epsilon of 1e-5 for 1e-6) 4e-3."""


EXPORT_DISAGREEMENT = 0.02
"""Largest disagreement of decoded predictions between graph and module, for networks that give lists of objects: on noise a
near-tie of scores may change the order, or a suppression; a structural error changes nearly every object."""


class ModelPredictor(Predictor):
    """A predictor over the PyTorch model itself, in FP32: the reference for every engine."""

    def __init__(self, model: Model, *, threads: int | None = None) -> None:
        signature = model_signature(model.spec)
        super().__init__(model.spec, reference.open_model(model, signature, threads=threads), signature)
        self.model, self._threads = model, threads

    def size_of(self, file: Path) -> Size:
        """(height, width) of an image file as this model sees it, from the file's header."""
        return image_size(file, exif_orientation=self.spec.image.exif_orientation)

    def named_after(self, classes: Sequence[str] | None, colors: Sequence[tuple[int, int, int]] | None) -> ModelPredictor:
        """The same model with a data set's class names and colours, where its own are only assumed."""
        assumed = [assumption for assumption in self.spec.assumed if assumption.fact != "classes"]
        if classes is None or len(assumed) == len(self.spec.assumed):
            return self
        spec = msgspec.structs.replace(
            self.spec, classes=tuple(classes), colors=tuple(colors) if colors else self.spec.colors, assumed=tuple(assumed)
        )
        return self.with_spec(spec)

    def with_spec(self, spec: ModelSpec) -> ModelPredictor:
        """The same weights, on as many threads, with another spec of the same network."""
        return ModelPredictor(Model(spec, self.model.module), threads=self._threads)


def load_model(path: Path | str, *, threads: int | None = None, **facts: Any) -> ModelPredictor:
    """Load a checkpoint of any known family; ``.predict(image)`` runs it in PyTorch.

    ``facts`` state what the file does not hold (``scale=1.0``, ``classes=[...]``); they beat what is read or assumed.
    Raises :class:`segship.core.errors.BadCheckpoint` and its kinds, and :class:`segship.core.errors.BadArgument`.
    """
    return ModelPredictor(load_torch_model(path, **facts), threads=threads)


def model_signature(spec: ModelSpec) -> Signature:
    """What the PyTorch module takes and gives: any size, raw outputs."""
    channels = 1 if spec.image.channels == "gray" else 3
    side_inputs = (TensorSpec("content_size", "int64", (2,)),) if spec.takes_content_size else ()
    return Signature(
        inputs=(TensorSpec("image", "float32", ("batch", channels, "height", "width")), *side_inputs),
        outputs=spec.outputs,
        output=RAW_OUTPUT[spec.task],
        input_size=None,
        image_size=None,
    )


def export(
    model: ModelPredictor, *, image_size: Size | None = None, output: Literal["logits", "labels", "instances"] | None = None
) -> Graph:
    """The model as an optimised FP32 graph, checked on the spot against PyTorch.

    ``image_size``: the (height, width) of all images to come, which fixes the network's input size; None keeps sizes free.
    ``output``: ``"labels"`` puts the resize and the decision into the graph, so that logits never leave it (the default of
    semantic models but for sliding-window ones, which need logits); ``"logits"`` is the raw network output of any task;
    ``"instances"`` pastes the masks of detections inside the graph.
    Raises :class:`segship.core.errors.BuildFailed` and its kinds.
    """
    spec = model.spec
    if spec.task != "semantic" and output == "labels":
        raise BadArgument(
            f"a label map is the answer of a semantic model, {spec.variant} is for the task {spec.task}: leave it out"
        )
    if spec.task != "instance" and output == "instances":
        raise BadArgument(f"full masks are of detections, {spec.variant} is for the task {spec.task}: leave them out")
    if spec.slide is not None and output == "labels":
        raise BadArgument(
            "a sliding-window model adds up the logits of its windows, so it cannot give labels: choose output logits"
        )
    input_size = network_size(spec, image_size)
    exported = export_module(spec, model.model.module, input_size)
    graph = optimise(exported)
    if spec.task == "semantic":
        check_export(graph, model.model.module, open_graph, dense_difference, limit=EXPORT_LIMIT)
    else:
        check_export(graph, model.model.module, open_graph, _decoded_difference(spec), limit=EXPORT_DISAGREEMENT)
    if output == "instances":
        return full_masks(graph, image_size)
    if output == "logits" or spec.slide is not None or spec.task != "semantic":
        return graph
    return optimise(label_map(exported, image_size))


def _decoded_difference(spec: ModelSpec) -> Difference:
    """1 minus the task's agreement of what the outputs mean, of the worst image."""
    task = task_of(spec)

    def difference(expected: Mapping[str, Array], found: Mapping[str, Array], size: Size) -> float:
        pairs = zip(*(task.decode(outputs, spec, Frame(size, size, size)) for outputs in (expected, found)), strict=True)
        return 1 - min(task.agreement(first, second) for first, second in pairs)

    return difference


def network_size(spec: ModelSpec, image_size: Size | None) -> Size | None:
    """Network input size for images of one size: the window's, for a sliding-window model."""
    if image_size is None:  # one size whatever the image's, or any
        return spec.image.resize.size if isinstance(spec.image.resize, ExactResize) and spec.slide is None else None
    resized = frame(spec.image, image_size).input
    if spec.slide is None:
        return resized
    return min(resized[0], spec.slide.crop[0]), min(resized[1], spec.slide.crop[1])


def build(graph: Graph, backend: str, path: Path | str, *, calibration: Calibration | None = None) -> Engine:
    """Compile a graph to an engine directory at ``path``.

    Raises :class:`segship.core.errors.BackendUnavailable`, :class:`segship.core.errors.BuildFailed`.
    """
    module = usable_backend(backend)
    check_precisions(graph.plan, backend)
    if module.TRAITS.source != "graph":
        raise BadArgument(f"the backend {backend} runs the PyTorch model, it compiles no graph: choose another")
    if not any(record.stage == "legalise" for record in graph.history):
        graph = legalised(graph, module.TRAITS)
    manifest = _manifest(graph.spec, graph.signature, backend, history=graph.history, plan=graph.plan, calibration=calibration)
    return create_engine(Path(path), manifest, lambda directory: module.build(graph, directory))


def with_plan(graph: Graph, plan: PrecisionPlan) -> Graph:
    """An optimised FP32 graph with a plan of float precisions written into it: right on every machine that has their kernels.

    Raises :class:`BadArgument` for a plan that covers nothing somewhere, or asks INT8, which needs images.
    """
    check_plan(graph, plan)
    if "int8" in plan.precisions:
        raise BadArgument(
            "a plan with INT8 needs images to learn ranges from, and none are given here: add --data to segship export or build, "
            "or use segship deploy --plan, which judges the engine, too"
        )
    return written(graph, plan)


def check_precisions(plan: PrecisionPlan, backend: str) -> None:
    """Raise :class:`BadArgument` for half precision or INT8 on a backend that would run it in FP32, and say nothing of it."""
    known = usable_backend(backend).TRAITS.precisions or ("fp32",)
    missing = sorted(plan.precisions - set(known))
    if missing:
        raise BadArgument(
            f"{backend} has no kernels for {' and '.join(missing)}, it runs {' and '.join(known)}: choose another precision "
            "or backend, or write the graph for another machine with segship export"
        )


def check_made_of(engine: Engine, model: ModelPredictor, checkpoint: Path | str) -> None:
    """Raise :class:`BadArgument` unless ``engine`` was made of this checkpoint, read with the same facts."""
    spec = engine.manifest.spec
    if model.spec.checkpoint.sha256 != spec.checkpoint.sha256:
        raise BadArgument(
            f"{checkpoint} is not the checkpoint that {engine.path} was made of ({spec.checkpoint.name}): give that one"
        )
    found, expected = model.spec.hyperparameters, spec.hyperparameters
    differing = ", ".join(
        f"{name} {found.get(name)} instead of {value}" for name, value in expected.items() if found.get(name) != value
    )
    if differing:
        raise BadArgument(
            f"{checkpoint} is read with other facts than {engine.path} was made with ({differing}): state the same with --fact"
        )


def build_reference(model: ModelPredictor, path: Path | str) -> Engine:
    """An engine directory that runs the PyTorch model itself in FP32, without its checkpoint: for comparisons elsewhere."""
    manifest = _manifest(model.spec, model.signature, reference.NAME)
    return create_engine(Path(path), manifest, lambda directory: reference.build(model.model, directory))


def _manifest(spec: ModelSpec, signature: Signature, backend: str, **more: Any) -> Manifest:
    """A manifest without its last facts: ``create_engine`` adds what the build found out."""
    return Manifest(
        segship=__version__,
        created=datetime.now(timezone.utc).isoformat(timespec="seconds"),
        spec=spec,
        signature=signature,
        backend=backend,
        built=Built(options={}, version="", precision=PrecisionReport({}, None, (), ())),
        processor=processor(),
        **more,
    )
