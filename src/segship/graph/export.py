"""From a PyTorch module to a graph: the only call of ``torch.onnx.export``."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from importlib import metadata

import numpy as np
import onnx_ir as ir
import torch
from torch.export import Dim

from segship.core.backend import Array, Session
from segship.core.errors import BuildFailed, ExportMismatch
from segship.core.graph import MODULE_PATH, Graph, PassRecord
from segship.core.spec import RAW_OUTPUT, ModelSpec, Signature, Size, TensorSpec
from segship.graph.translations import registered

OPSET = 20
"""Has LayerNormalization (17) and Gelu (20) as one node each, and every backend reads it."""

_FREE_EXAMPLE = (128, 160)  # any size whose sides differ, so that the exporter cannot take one for the other


def export(spec: ModelSpec, module: torch.nn.Module, input_size: Size | None) -> Graph:
    """The module as ONNX: input ``image`` (batch, channel, height, width) float32, outputs the raw network outputs.

    A module that takes ``content_size`` int64 (2,) gets it as its second input.

    The batch is free; height and width are ``input_size``, or free too when it is None. Node names lead back to the
    module path (``backbone.block1.0.attn.q/MatMul``), also kept in the node's metadata under ``segship.module_path``.
    Raises :class:`BuildFailed` when the exporter does.
    """
    channels = 1 if spec.image.channels == "gray" else 3
    size = input_size or _FREE_EXAMPLE
    free = {0: Dim.DYNAMIC} if input_size else {0: Dim.DYNAMIC, 2: Dim.DYNAMIC, 3: Dim.DYNAMIC}
    example: tuple[torch.Tensor, ...] = (torch.zeros(2, channels, *size),)
    shapes: tuple[dict[int, object], ...] = (free,)
    if spec.takes_content_size:
        example, shapes = (*example, torch.tensor(size)), (*shapes, {})
    with _quiet(), torch.no_grad():
        try:
            program = torch.onnx.export(
                module,
                example,
                dynamo=True,
                opset_version=OPSET,
                dynamic_shapes=shapes,
                input_names=["image", "content_size"][: len(example)],
                output_names=[output.name for output in spec.outputs],
                custom_translation_table=registered(),
                verbose=False,
            )
        except Exception as error:  # the exporter raises many types of its own
            raise BuildFailed(f"PyTorch cannot export {spec.variant}: {str(error).partition(chr(10))[0]}") from error
    assert program is not None  # None only when writing to a file
    model = _tidied(program.model)
    record = PassRecord("export", "export", {"opset": str(OPSET), "torch": metadata.version("torch")}, changed=True)
    return Graph(model, spec, _signature(spec, channels, input_size), history=(record,))


def _signature(spec: ModelSpec, channels: int, input_size: Size | None) -> Signature:
    sides: tuple[int | str, int | str] = input_size or ("height", "width")
    side_inputs = (TensorSpec("content_size", "int64", (2,)),) if spec.takes_content_size else ()
    return Signature(
        inputs=(TensorSpec("image", "float32", ("batch", channels, *sides)), *side_inputs),
        outputs=spec.outputs,
        output=RAW_OUTPUT[spec.task],
        input_size=input_size,
        image_size=None,
    )


@contextmanager
def _quiet() -> Iterator[None]:
    """The exporter warns about torchvision operators and its own deprecations: nothing a user can act on."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            yield
        finally:
            logger.setLevel(level)


def _tidied(model: ir.Model) -> ir.Model:
    """Module paths into node names and metadata; the exporter's own notes (source paths of this machine) out."""
    taken: dict[str, int] = {}
    for node in model.graph:
        path = _module_path(node)
        node.metadata_props.clear()
        node.metadata_props[MODULE_PATH] = path
        name = f"{path}/{node.op_type}" if path else node.op_type
        taken[name] = taken.get(name, -1) + 1
        node.name = f"{name}_{taken[name]}" if taken[name] else name
    for value in [*model.graph.inputs, *model.graph.outputs, *model.graph.initializers.values()]:
        value.metadata_props.clear()
    for node in model.graph:
        for value in node.outputs:
            value.metadata_props.clear()
    model.metadata_props.clear()
    model.graph.metadata_props.clear()
    model.producer_name = "segship"
    return model


def _module_path(node: ir.Node) -> str:
    """A weighted node's own parameter tells its module best (a folded BatchNorm would name itself); else the scope does."""
    for value in node.inputs:
        if value is not None and value.is_initializer() and value.name and value.name.endswith((".weight", ".weight_bn")):
            return value.name.rpartition(".")[0]
    scopes = node.metadata_props.get("pkg.torch.onnx.name_scopes", "[]")
    parts = [part.strip(" '\"") for part in scopes.strip("[]").split(",")]
    path = parts[-2] if len(parts) > 1 else ""
    return "" if path.startswith("_") else path


Difference = Callable[[Mapping[str, Array], Mapping[str, Array], Size], float]
"""How far two sets of raw outputs of one batch are apart, given the network input's (height, width)."""


def check_export(
    graph: Graph, module: torch.nn.Module, open_session: Callable[[Graph], Session], difference: Difference, *, limit: float
) -> float:
    """Run graph and module on the same noise, with a batch of 2 and of 1 (at another size where sizes are free).

    Returns the largest ``difference``, PyTorch's outputs first, and raises :class:`ExportMismatch` above ``limit``. The graph
    is run unquantised, in FP32.
    """
    rng = np.random.default_rng(0)
    session = open_session(graph)
    worst = 0.0
    for batch, size in _trial_shapes(graph.signature.input_size, graph.spec.image.divisor):
        feeds: dict[str, Array] = {
            "image": rng.standard_normal((batch, int(graph.signature.inputs[0].shape[1]), *size), dtype=np.float32)
        }
        if graph.spec.takes_content_size:
            feeds["content_size"] = np.array(size, np.int64)
        worst = max(worst, difference(_run_module(graph, module, feeds), session.run(feeds), size))
    session.close()
    if not worst <= limit:
        raise ExportMismatch(f"the exported graph differs from PyTorch by {worst:.2e}, allowed are {limit:.0e}")
    return worst


def _run_module(graph: Graph, module: torch.nn.Module, feeds: Mapping[str, Array]) -> dict[str, Array]:
    with torch.inference_mode():
        results = module(*(torch.from_numpy(feeds[spec.name]) for spec in graph.signature.inputs))
    several = results if isinstance(results, tuple) else (results,)
    return {spec.name: result.numpy() for spec, result in zip(graph.signature.outputs, several, strict=True)}


def dense_difference(expected: Mapping[str, Array], found: Mapping[str, Array], _size: Size) -> float:
    """Absolute difference that 99.9 % of the values keep to, in standard deviations of the expected values; infinite for
    another shape.

    One in a thousand may be a matter of rounding: networks that pick their most uncertain points pick others at ties.
    """
    worst = 0.0
    for name, want in expected.items():
        have = found[name]
        if have.shape != want.shape:
            return float("inf")
        apart = np.abs(have.astype(np.float64) - want.astype(np.float64))
        worst = max(worst, float(np.quantile(apart, 0.999) / (want.std() + 1e-12))) if np.isfinite(apart).all() else float("inf")
    return worst


def _trial_shapes(input_size: Size | None, divisor: int) -> list[tuple[int, Size]]:
    if input_size:
        return [(2, input_size), (1, input_size)]

    def whole(side: int) -> int:
        return -(-side // divisor) * divisor

    return [(2, (whole(96), whole(128))), (1, (whole(101), whole(75)))]
