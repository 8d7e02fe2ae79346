"""ONNX Runtime on the CPU.

The engine holds the graph as ONNX Runtime has optimised it for this processor, so what was read back at the build is
exactly what runs later, and opening an engine repeats no optimisation.
"""

from __future__ import annotations

import json
import tempfile
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

import numpy as np

from segship.core.backend import PROFILE_RUNS, Array, Built, Feeds, Traits, check_feeds
from segship.core.environment import available_threads, exact_weight_bits
from segship.core.errors import BadEngine, BuildFailed, RunFailed
from segship.core.precision import LayerPrecision, compare_precisions
from segship.core.profile import Kernel, Profile, Role
from segship.core.spec import Signature, TensorSpec

if TYPE_CHECKING:
    import onnx_ir

    from segship.core.graph import Graph

NAME = "onnxruntime"

TRAITS = Traits(
    precisions=("fp32", "int8"),
    max_opset=20,
    activations="unsigned",  # symmetric int8 around Conv and Relu runs in float, slower than FP32: tests show it
    weight_bits=exact_weight_bits(),
    int8_ops=("Conv", "MatMul", "Gemm", "MaxPool", "Concat"),  # ConvTranspose has no integer kernel
    quantised_conv_output=True,
    float_results=("MatMul", "Gemm"),
    integer_bias=True,
    integers_channels_last=True,
    channels_last_resize=True,
)

MODEL = "model.onnx"
"""The optimised graph, in the engine's directory of network files."""

_SLOWER_FUSIONS = ["SkipLayerNormFusion"]
"""Fusions whose kernel takes longer than the single operators: for 16384 tokens of 32 channels 1.9 ms against 0.5."""

_INTEGER_KERNELS = {
    "QLinearConv": "Conv",
    "ConvInteger": "Conv",
    "QLinearMatMul": "MatMul",
    "MatMulInteger": "MatMul",
    "MatMulIntegerToFloat": "MatMul",
    "DynamicQuantizeMatMul": "MatMul",
    "QGemm": "Gemm",
}
_FLOAT_KERNELS = {
    "Conv": "Conv",
    "FusedConv": "Conv",
    "ConvTranspose": "ConvTranspose",
    "MatMul": "MatMul",
    "FusedMatMul": "MatMul",
    "Gemm": "Gemm",
    "FusedGemm": "Gemm",
}


_SPIN_US = "50"
"""How long a thread waits for the next operator before it sleeps. Waking it costs more than many operators take (6 to 12 % of a
network); without an end, though, waiting threads take the cores that others need: twice the time on a busy machine."""

_CONVERSIONS = ("Cast", "DequantizeLinear", "QuantizeLinear", "ReorderInput", "ReorderOutput")


def version() -> str:
    """Version of the runtime."""
    import onnxruntime  # its distribution has several names (onnxruntime, onnxruntime-gpu), so the module is asked

    return str(onnxruntime.__version__)


def probe() -> str | None:
    """Why ONNX Runtime cannot be used here; None when it can."""
    try:
        import onnxruntime
    except ImportError as error:
        return f"{error}; install it with `pip install segship[onnxruntime]`"
    if "CPUExecutionProvider" not in onnxruntime.get_available_providers():
        return "this build of onnxruntime has no CPU execution provider; install the package onnxruntime"
    return None


def build(source: Graph, into: Path) -> Built:
    """Optimise the graph for this processor, save it, and read back the kernels that were chosen."""
    import onnxruntime

    options = _session_options(available_threads())
    options.optimized_model_filepath = str(into / MODEL)
    try:
        onnxruntime.InferenceSession(
            source.to_bytes(), options, providers=["CPUExecutionProvider"], disabled_optimizers=_SLOWER_FUSIONS
        )
    except Exception as error:  # the binding raises its own types and RuntimeError
        raise BuildFailed(f"ONNX Runtime cannot compile the graph: {error}") from error
    import onnx_ir

    from segship.backends.onnxruntime_fusions import fuse

    optimised = onnx_ir.load(into / MODEL)
    fuse(optimised.graph)
    onnx_ir.save(optimised, into / MODEL)
    return Built(
        options={
            "graph_optimization_level": "ORT_ENABLE_ALL, applied at the build",
            "disabled_optimizers": ", ".join(_SLOWER_FUSIONS),
            "fused_afterwards": "biases of MatMulIntegerToFloat",
        },
        version=version(),
        precision=compare_precisions(source.asked(), _layers(optimised)),
    )


def _layers(model: onnx_ir.Model) -> list[LayerPrecision]:
    found = []
    for node in model.graph:
        if node.op_type in _INTEGER_KERNELS:
            found.append(LayerPrecision(_node_name(node), node.op_type, "int8"))
        elif node.op_type in _FLOAT_KERNELS:
            kind = node.outputs[0].dtype
            found.append(LayerPrecision(_node_name(node), node.op_type, "fp16" if kind and kind.name == "FLOAT16" else "fp32"))
    return found


def _node_name(node: onnx_ir.Node) -> str:
    """The ONNX node's name. Blocked convolutions (NCHWc) are called after what they compute; their bias keeps the module's."""
    name = (node.name or "").removeprefix("fused ")
    if "/" in name or node.op_type not in _FLOAT_KERNELS:
        return name
    biases = (value.name for value in node.inputs if value is not None and value.name and value.name.endswith("bias"))
    module = next(biases, name).rpartition(".")[0] or name.removesuffix("_nchwc")
    return f"{module}/{node.op_type}"


def profile(
    directory: Path, signature: Signature, feeds: Feeds, *, threads: int | None = None, runs: int = PROFILE_RUNS
) -> Profile:
    """Median of each kernel's time, by ONNX Runtime's own profiler."""
    import onnx_ir

    check_feeds(signature.inputs, feeds)
    names = {node.name: _node_name(node) for node in onnx_ir.load(directory / MODEL).graph}
    with tempfile.TemporaryDirectory() as folder:
        events = _recorded(directory, signature, feeds, threads or available_threads(), 2 + runs, Path(folder) / "profile")
    steps: defaultdict[str, list[dict[str, Any]]] = defaultdict(list)
    for event in events:
        if event["name"].endswith("_kernel_time"):
            steps[event["args"]["node_index"]].append(event)
    return Profile(tuple(_kernel(each[2:], names) for each in steps.values()))


def _recorded(directory: Path, signature: Signature, feeds: Feeds, threads: int, runs: int, prefix: Path) -> list[dict[str, Any]]:
    """The events of ``runs`` runs, as ONNX Runtime writes them into a file."""
    session = OnnxRuntimeSession((directory / MODEL).read_bytes(), signature, threads, optimised=True, profile=prefix)
    for _ in range(runs):
        session.run(feeds)
    events: list[dict[str, Any]] = json.loads(Path(session.end_profile()).read_text("utf-8"))
    return events


def _kernel(events: list[dict[str, Any]], names: dict[str | None, str]) -> Kernel:
    """One kernel from its events, one for each run."""
    arguments = events[0]["args"]
    own = events[0]["name"].removesuffix("_kernel_time")
    name, kind = names.get(own, own), arguments["op_name"]
    integers = any("int8" in dtype for output in arguments["output_type_shape"] for dtype in output)
    role: Role = "int8" if kind in _INTEGER_KERNELS or integers else "float"
    if kind in _CONVERSIONS or (kind == "Transpose" and "/" not in name):  # a layout that a kernel asks for
        role = "convert"
    return Kernel(name, kind, role, median(event["dur"] for event in events) / 1000)


def _session_options(threads: int) -> Any:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.add_session_config_entry("session.intra_op.allow_spinning", "1")
    options.add_session_config_entry("session.intra_op.spin_duration_us", _SPIN_US)
    options.add_session_config_entry("session.force_spinning_stop", "1")  # for releases that do not know the duration
    options.log_severity_level = 3  # errors: saving an optimised model warns that it is for this processor, which we check
    return options


def load(directory: Path, signature: Signature, *, threads: int | None = None) -> OnnxRuntimeSession:
    """Open what :func:`build` left in ``directory``."""
    return OnnxRuntimeSession((directory / MODEL).read_bytes(), signature, threads or available_threads(), optimised=True)


class OnnxRuntimeSession:
    """An open ONNX Runtime session."""

    def __init__(self, model: bytes, signature: Signature, threads: int, *, optimised: bool, profile: Path | None = None) -> None:
        import onnxruntime

        options = _session_options(threads)
        if profile is not None:
            options.enable_profiling, options.profile_file_prefix = True, str(profile)
        if optimised:
            options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
        else:  # while building, peak memory counts more than the last percent of speed
            options.enable_cpu_mem_arena = False
        try:
            self._session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        except Exception as error:
            raise BadEngine(f"ONNX Runtime cannot open the engine ({error}): build it again") from error
        self.inputs: tuple[TensorSpec, ...] = signature.inputs
        self.outputs: tuple[TensorSpec, ...] = signature.outputs
        self._output_names = [output.name for output in signature.outputs]

    def run(self, feeds: Feeds) -> dict[str, Array]:
        """Run once, host to host."""
        check_feeds(self.inputs, feeds)
        try:
            results = self._session.run(self._output_names, dict(feeds))
        except Exception as error:  # the binding raises its own types
            raise RunFailed(f"ONNX Runtime failed while running the engine: {str(error).partition(chr(10))[0]}") from error
        return dict(zip(self._output_names, results, strict=True))

    def bind(self, feeds: Feeds) -> Callable[[], None]:
        """A function that runs the network on fixed buffers."""
        check_feeds(self.inputs, feeds)
        binding = self._session.io_binding()
        for name, array in feeds.items():
            binding.bind_cpu_input(name, np.ascontiguousarray(array))
        for name in self._output_names:
            binding.bind_output(name)
        return lambda: self._session.run_with_iobinding(binding)

    def end_profile(self) -> str:
        """The file of events that a session opened with ``profile`` has written."""
        return str(self._session.end_profiling())

    def close(self) -> None:
        """Give the session's memory back."""
        del self._session


def open_graph(graph: Graph, *, threads: int | None = None) -> OnnxRuntimeSession:
    """A session straight from a graph, without an engine directory: for checks and calibration while building."""
    return OnnxRuntimeSession(graph.to_bytes(), graph.signature, threads or available_threads(), optimised=False)


def open_as_written(graph: Graph, *, threads: int | None = None) -> OnnxRuntimeSession:
    """A session that runs the graph node by node, nothing fused and no cast taken away: what the graph itself says."""
    return OnnxRuntimeSession(graph.to_bytes(), graph.signature, threads or available_threads(), optimised=True)
