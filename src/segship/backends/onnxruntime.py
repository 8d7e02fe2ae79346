"""ONNX Runtime on the CPU.

The engine holds the graph as ONNX Runtime has optimised it for this processor, so what was read back at the build is
exactly what runs later, and opening an engine repeats no optimisation.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from segship.core.backend import Array, Built, Feeds, Traits, check_feeds
from segship.core.environment import available_threads
from segship.core.errors import BadEngine, BuildFailed, RunFailed
from segship.core.precision import LayerPrecision, compare_precisions
from segship.core.spec import Signature, TensorSpec

if TYPE_CHECKING:
    import onnx_ir

    from segship.core.graph import Graph

NAME = "onnxruntime"

TRAITS = Traits(
    precisions=("fp32", "int8"),
    max_opset=20,
    activations="unsigned",  # symmetric int8 around Conv and Relu runs in float, slower than FP32: tests show it
    int8_ops=("Conv", "MatMul", "Gemm", "MaxPool", "Concat"),  # ConvTranspose has no integer kernel
    quantised_conv_output=True,
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

    optimised = onnx_ir.load(into / MODEL)
    return Built(
        options={"graph_optimization_level": "ORT_ENABLE_ALL, applied at the build"},
        version=version(),
        precision=compare_precisions(source.asked(), _layers(optimised)),
    )


def _layers(model: onnx_ir.Model) -> list[LayerPrecision]:
    found = []
    for node in model.graph:
        if node.op_type in _INTEGER_KERNELS:
            found.append(LayerPrecision(node.name or "", node.op_type, "int8"))
        elif node.op_type in _FLOAT_KERNELS:
            kind = node.outputs[0].dtype
            found.append(LayerPrecision(node.name or "", node.op_type, "fp16" if kind and kind.name == "FLOAT16" else "fp32"))
    return found


def _session_options(threads: int) -> Any:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")  # idle threads would slow whatever runs beside
    options.log_severity_level = 3  # errors: saving an optimised model warns that it is for this processor, which we check
    return options


def load(directory: Path, signature: Signature, *, threads: int | None = None) -> OnnxRuntimeSession:
    """Open what :func:`build` left in ``directory``."""
    return OnnxRuntimeSession((directory / MODEL).read_bytes(), signature, threads or available_threads(), optimised=True)


class OnnxRuntimeSession:
    """An open ONNX Runtime session."""

    def __init__(self, model: bytes, signature: Signature, threads: int, *, optimised: bool) -> None:
        import onnxruntime

        options = _session_options(threads)
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

    def close(self) -> None:
        """Give the session's memory back."""
        del self._session


def open_graph(graph: Graph, *, threads: int | None = None) -> OnnxRuntimeSession:
    """A session straight from a graph, without an engine directory: for checks and calibration while building."""
    return OnnxRuntimeSession(graph.to_bytes(), graph.signature, threads or available_threads(), optimised=False)
