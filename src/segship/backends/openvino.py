"""OpenVINO on the CPU."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

import numpy as np

from segship.core.backend import PROFILE_RUNS, Array, Built, Feeds, Traits, check_feeds
from segship.core.environment import available_threads, exact_weight_bits, package_version
from segship.core.errors import BadEngine, BuildFailed, RunFailed
from segship.core.precision import LayerPrecision, compare_precisions
from segship.core.profile import Kernel, Profile, Role
from segship.core.spec import Signature, TensorSpec

if TYPE_CHECKING:
    from segship.core.graph import Graph

NAME = "openvino"

TRAITS = Traits(
    precisions=("fp32", "int8"),
    max_opset=20,
    activations="unsigned",  # signed activations gave wrong numbers in whole networks (2026.4: 7 dB where the same graph has 26)
    weight_bits=exact_weight_bits(),
    int8_ops=("Conv", "ConvTranspose", "MatMul", "Gemm", "MaxPool", "Concat"),
    float_results=("Conv", "MatMul", "Gemm"),
    channels_last=True,
    argmax="TopK",
)

MODEL = "model.xml"
"""The network in OpenVINO's own format, in the engine's directory of network files."""

_WEIGHTED_LAYERS = ("Convolution", "GroupConvolution", "Deconvolution", "MatMul", "FullyConnected")
_CONVERSIONS = ("Convert", "FakeQuantize", "Reorder")
_PRECISIONS = {"u8": "int8", "i8": "int8", "f32": "fp32", "f16": "fp16", "bf16": "bf16"}


def version() -> str:
    """Version of the runtime."""
    return package_version("openvino") or "unknown"


def probe() -> str | None:
    """Why OpenVINO cannot be used here; None when it can."""
    try:
        import openvino
    except ImportError as error:
        return f"{error}; install it with `pip install segship[openvino]`"
    if "CPU" not in openvino.Core().available_devices:
        return "OpenVINO finds no CPU device on this machine"
    return None


def build(source: Graph, into: Path) -> Built:
    """Convert the graph to OpenVINO's format, compile it once, and read back what each layer runs in."""
    import openvino

    try:
        openvino.save_model(openvino.Core().read_model(source.to_bytes()), into / MODEL, compress_to_fp16=False)
        session = load(into, source.signature)
    except RuntimeError as error:
        raise BuildFailed(f"OpenVINO cannot compile the graph: {error}") from error
    return Built(
        options={name: str(value) for name, value in properties(0).items() if name != "INFERENCE_NUM_THREADS"},
        version=version(),
        precision=compare_precisions(source.asked(), _layers(session.compiled)),
    )


def properties(threads: int) -> dict[str, Any]:
    """LATENCY uses all cores for one request; precision f32 stops a silent BF16 on processors that have it."""
    return {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": threads}


def _layers(compiled: Any) -> list[LayerPrecision]:
    """Weighted layers of the runtime's own graph."""
    found = []
    for node in compiled.get_runtime_model().get_ordered_ops():
        info = node.get_rt_info()
        kind = _text(info, "layerType")
        if kind in _WEIGHTED_LAYERS:
            precision = _text(info, "runtimePrecision")
            found.append(LayerPrecision(_node_name(info, node.friendly_name), kind, _PRECISIONS.get(precision, precision)))
    return found


def _text(info: Any, key: str) -> str:
    return str(info[key].astype(str)) if key in info else ""


def profile(
    directory: Path, signature: Signature, feeds: Feeds, *, threads: int | None = None, runs: int = PROFILE_RUNS
) -> Profile:
    """Median of each kernel's time, by OpenVINO's performance counters."""
    check_feeds(signature.inputs, feeds)
    session = OpenVinoSession(directory / MODEL, signature, threads or available_threads(), counted=True)
    ops = session.compiled.get_runtime_model().get_ordered_ops()
    names = {op.friendly_name: _node_name(op.get_rt_info(), op.friendly_name) for op in ops}
    recorded = [session.counted(feeds) for _ in range(2 + runs)][2:]
    kernels = []
    for steps in zip(*recorded, strict=True):
        ms = median(1000 * step.real_time.total_seconds() for step in steps)
        if ms > 0:  # what was fused away, or only renames memory
            kernels.append(Kernel(names.get(steps[0].node_name, steps[0].node_name), steps[0].node_type, _role(steps[0]), ms))
    return Profile(tuple(kernels))


def _node_name(info: Any, own: str) -> str:
    """The first ONNX node that a kernel does the work of; its ``own`` name where it was not in the graph."""
    originals = _text(info, "originalLayersNames").split(",")
    return next((original for original in originals if "/" in original), originals[0] or own)


def _role(step: Any) -> Role:
    if step.node_type in _CONVERSIONS:
        return "convert"
    return "int8" if step.exec_type.lower().endswith(("i8", "u8")) else "float"


def load(directory: Path, signature: Signature, *, threads: int | None = None) -> OpenVinoSession:
    """Open what :func:`build` left in ``directory``."""
    return OpenVinoSession(directory / MODEL, signature, threads or available_threads())


class OpenVinoSession:
    """An open OpenVINO model.

    Where height and width are fixed, the network is compiled for each batch size on its first use: OpenVINO runs a
    transformer with a free batch axis 1.5 times slower than with a fixed one.
    """

    def __init__(self, file: Path, signature: Signature, threads: int, *, counted: bool = False) -> None:
        self._file, self._properties = file, {**properties(threads), **({"PERF_COUNT": True} if counted else {})}
        self.inputs: tuple[TensorSpec, ...] = signature.inputs
        self.outputs: tuple[TensorSpec, ...] = signature.outputs
        self._fixed = signature.input_size is not None
        self._compiled: dict[int | None, Any] = {}
        self._requests: dict[int | None, Any] = {}
        self._compiled_for(1)

    def _compiled_for(self, batch: int) -> int | None:
        """Compile for the batch size unless that was done; gives the key of the compiled network."""
        import openvino

        key = batch if self._fixed else None
        if key not in self._compiled:
            try:
                model = openvino.Core().read_model(self._file)
                if key is not None:
                    model.reshape({self.inputs[0].name: [key, *self.inputs[0].shape[1:]]})
                self._compiled[key] = openvino.Core().compile_model(model, "CPU", self._properties)
            except RuntimeError as error:
                raise BadEngine(f"OpenVINO cannot open {self._file} ({error}): build the engine again") from error
            self._requests[key] = self._compiled[key].create_infer_request()
        return key

    @property
    def compiled(self) -> Any:
        """The network as compiled for one image."""
        return next(iter(self._compiled.values()))

    def counted(self, feeds: Feeds) -> list[Any]:
        """Run once; the runtime's performance counters."""
        key = self._compiled_for(len(feeds[self.inputs[0].name]))
        self.run(feeds)
        return list(self._requests[key].get_profiling_info())

    def run(self, feeds: Feeds) -> dict[str, Array]:
        """Run once, host to host."""
        check_feeds(self.inputs, feeds)
        request = self._requests[self._compiled_for(len(feeds[self.inputs[0].name]))]
        try:
            results = request.infer(dict(feeds), share_inputs=True, share_outputs=False)
        except RuntimeError as error:
            raise RunFailed(f"OpenVINO failed while running the engine: {str(error).partition(chr(10))[0]}") from error
        return {output.name: np.asarray(results[output.name]) for output in self.outputs}

    def bind(self, feeds: Feeds) -> Callable[[], None]:
        """A function that runs the network on fixed buffers."""
        import openvino

        check_feeds(self.inputs, feeds)
        request = self._compiled[self._compiled_for(len(feeds[self.inputs[0].name]))].create_infer_request()
        # a request does not keep the memory of shared tensors alive: the returned function must
        tensors = {name: openvino.Tensor(np.ascontiguousarray(array), shared_memory=True) for name, array in feeds.items()}
        for name, tensor in tensors.items():
            request.set_tensor(name, tensor)

        def execute(_alive: object = tensors) -> None:
            request.infer()

        return execute

    def close(self) -> None:
        """Give the requests' and the models' memory back."""
        self._requests.clear()
        self._compiled.clear()
