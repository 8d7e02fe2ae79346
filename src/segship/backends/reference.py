"""PyTorch eager in FP32: the oracle that every other backend is compared with.

The engine holds the weights as safetensors and the hyper-parameters that rebuild the module, so nothing in it is
executed when it is read. This is the one backend that compiles the model instead of the graph, hence the one import
of ``segship.models`` below ``pipeline`` (docs/decisions).
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np

from segship.core.backend import PROFILE_RUNS, Array, Built, Feeds, Traits, check_feeds
from segship.core.environment import available_threads, package_version
from segship.core.errors import BadEngine
from segship.core.precision import LayerPrecision, PrecisionReport
from segship.core.profile import Kernel, Profile
from segship.core.spec import Signature, TensorSpec

if TYPE_CHECKING:
    import torch

    from segship.models import Model

NAME = "reference"
TRAITS = Traits(source="model", precisions=("fp32",))

_WEIGHTS = "weights.safetensors"
_NETWORK = "network.json"


class _Network(msgspec.Struct):
    family: str
    hyperparameters: dict[str, int | float | bool | str | list[Any]]


def version() -> str:
    """Version of the runtime."""
    return package_version("torch") or "unknown"


def probe() -> str | None:
    """Why PyTorch cannot be used here; None when it can."""
    try:
        import torch  # noqa: F401
    except ImportError as error:
        return f"{error}; install PyTorch as https://pytorch.org says for your machine"
    return None


def build(source: Model, into: Path) -> Built:
    """Store the weights and what rebuilds the module."""
    from safetensors.torch import save_file

    save_file({key: value.contiguous() for key, value in source.module.state_dict().items()}, into / _WEIGHTS)
    network = _Network(source.spec.family, source.spec.hyperparameters)
    (into / _NETWORK).write_bytes(msgspec.json.encode(network))
    return Built(options={}, version=version(), precision=_precision(source.module))


def _precision(module: torch.nn.Module) -> PrecisionReport:
    weighted = ("Conv2d", "ConvTranspose2d", "Linear")
    layers = tuple(
        LayerPrecision(name, type(part).__name__, "fp32")
        for name, part in module.named_modules()
        if type(part).__name__ in weighted
    )
    return PrecisionReport({"fp32": len(layers)}, {"fp32": len(layers)}, layers, ())


def load(directory: Path, signature: Signature, *, threads: int | None = None) -> ReferenceSession:
    """Rebuild the module and load its weights."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    from segship.models import build_module

    try:
        network = msgspec.json.decode((directory / _NETWORK).read_bytes(), type=_Network)
        module = build_module(network.family, network.hyperparameters)
        module.load_state_dict(load_file(directory / _WEIGHTS))
    except (OSError, ValueError, TypeError, RuntimeError, SafetensorError, msgspec.DecodeError) as error:
        raise BadEngine(f"{directory} holds no network that PyTorch can rebuild ({error}): build the engine again") from error
    return ReferenceSession(module.eval(), signature, threads or available_threads())


def profile(
    directory: Path, signature: Signature, feeds: Feeds, *, threads: int | None = None, runs: int = PROFILE_RUNS
) -> Profile:
    """Time by PyTorch operator, mean of ``runs``: its profiler adds up, and knows no module paths."""
    import torch

    run = load(directory, signature, threads=threads).bind(feeds)
    run()
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as recorded:
        for _ in range(runs):
            run()
    averages = recorded.key_averages()
    return Profile(tuple(Kernel("", each.key, "float", each.self_cpu_time_total / 1000 / runs) for each in averages))


def open_model(model: Model, signature: Signature, *, threads: int | None = None) -> ReferenceSession:
    """A session straight from a model, without an engine directory."""
    return ReferenceSession(model.module, signature, threads or available_threads())


class ReferenceSession:
    """A PyTorch module behind the session protocol."""

    def __init__(self, module: torch.nn.Module, signature: Signature, threads: int) -> None:
        self._module, self._threads = module, threads
        self.inputs: tuple[TensorSpec, ...] = signature.inputs
        self.outputs: tuple[TensorSpec, ...] = signature.outputs

    def run(self, feeds: Feeds) -> dict[str, Array]:
        """Run once, host to host."""
        import torch

        check_feeds(self.inputs, feeds)
        torch.set_num_threads(self._threads)
        with torch.inference_mode():
            results = self._module(*self._tensors(feeds))
        several = results if isinstance(results, tuple) else (results,)
        return {spec.name: result.numpy() for spec, result in zip(self.outputs, several, strict=True)}

    def _tensors(self, feeds: Feeds) -> list[torch.Tensor]:
        """The module's arguments, in order."""
        import torch

        return [torch.from_numpy(np.ascontiguousarray(feeds[spec.name])) for spec in self.inputs]

    def bind(self, feeds: Feeds) -> Callable[[], None]:
        """A function that runs the module on a fixed tensor."""
        import torch

        check_feeds(self.inputs, feeds)
        torch.set_num_threads(self._threads)
        tensors = self._tensors(feeds)

        def execute() -> None:
            with torch.inference_mode():
                self._module(*tensors)

        return execute

    def close(self) -> None:
        """Give the module back."""
        del self._module
