"""What a backend is: a few names in one module, and the session it opens.

A backend module satisfies :class:`Backend` as it is (no class needed); ``segship.backends.BACKENDS`` lists them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal, Protocol

import msgspec
import numpy as np
from numpy.typing import NDArray

from segship.core.precision import PrecisionReport
from segship.core.profile import Profile
from segship.core.spec import Signature, TensorSpec

PROFILE_RUNS = 9
"""How often a network is run for a profile, after two runs that do not count."""

Array = NDArray[np.generic]
Feeds = Mapping[str, Array]


class Traits(msgspec.Struct, frozen=True, kw_only=True):
    """What a backend can do, as data: graph passes adapt to it without knowing its name.

    ``source``: what it compiles, a graph or the PyTorch model itself.
    ``precisions``: what it really runs, not what it accepts (both CPU runtimes accept FP16 graphs and run them in FP32); empty
    where it computes nothing.
    ``activations``: the INT8 form it runs fast and right. ``"unsigned"`` is uint8 with any zero point (0 after ReLU, which
    then needs no kernel of its own); ``"symmetric"`` is int8 with zero point 0 (TensorRT).
    ``weight_bits``: how many bits of an INT8 weight its kernels multiply without overflow on this processor.
    ``int8_ops``: ONNX operators that have an INT8 kernel; Q/DQ around others is only cost.
    ``quantised_conv_output``: a Conv runs in INT8 only when its output is quantised, too.
    ``float_results``: operators whose INT8 kernel can give floats, so that the scores of classes keep all their steps.
    ``integer_bias``: a Gemm runs in INT8 only when its output is quantised, too, or its bias is int32.
    ``channels_last``: maps lie channels last in memory, so a Reshape that needs them channels first costs a copy.
    ``integers_channels_last``: so lie integer maps alone, and what stays float behind them is cheapest in their order.
    ``channels_last_resize``: bilinear resizes are fast only where the channels of a pixel lie side by side.
    ``argmax``: the operator that finds the best class fastest; both give the lowest class at a tie.
    """

    source: Literal["graph", "model"] = "graph"
    precisions: tuple[str, ...]
    max_opset: int = 20
    activations: Literal["unsigned", "symmetric", "none"] = "none"
    weight_bits: int = 8
    int8_ops: tuple[str, ...] = ()
    quantised_conv_output: bool = False
    float_results: tuple[str, ...] = ()
    integer_bias: bool = False
    channels_last: bool = False
    integers_channels_last: bool = False
    channels_last_resize: bool = False
    argmax: Literal["ArgMax", "TopK"] = "ArgMax"


class Built(msgspec.Struct, frozen=True, kw_only=True):
    """What a build left behind: options with all defaults filled in, the runtime's version, the precision read back."""

    options: dict[str, str]
    version: str
    precision: PrecisionReport


class Session(Protocol):
    """An open engine. Arrays are C-contiguous numpy arrays; the batch is the first axis."""

    @property
    def inputs(self) -> tuple[TensorSpec, ...]:
        """Input tensors, in order."""
        ...

    @property
    def outputs(self) -> tuple[TensorSpec, ...]:
        """Output tensors, in order."""
        ...

    def run(self, feeds: Feeds) -> dict[str, Array]:
        """Run once, host to host; the results belong to the caller.

        Raises :class:`segship.core.errors.BadArgument` for a wrong name, dtype or shape.
        """
        ...

    def bind(self, feeds: Feeds) -> Callable[[], None]:
        """A function that runs the network on ``feeds`` and waits for the end: for timing, nothing is copied or checked."""
        ...

    def close(self) -> None:
        """Give the runtime's memory back."""
        ...


class Backend(Protocol):
    """The names that a backend module has."""

    NAME: str
    TRAITS: Traits

    def version(self) -> str:
        """Version of the runtime."""
        ...

    def probe(self) -> str | None:
        """Why this backend cannot be used here, with what to do about it; None when it can."""
        ...

    def build(self, source: Any, into: Path) -> Built:
        """Compile ``source`` and leave every file the engine needs in the directory ``into``.

        ``source`` is a :class:`segship.core.graph.Graph`, or where ``TRAITS.source`` is ``"model"`` the PyTorch model.
        """
        ...

    def load(self, directory: Path, signature: Signature, *, threads: int | None = None) -> Session:
        """Open what :func:`build` left in ``directory``; ``threads`` None means all cores this process may use."""
        ...

    def profile(
        self, directory: Path, signature: Signature, feeds: Feeds, *, threads: int | None = None, runs: int = PROFILE_RUNS
    ) -> Profile:
        """Run what :func:`build` left in ``directory`` with the runtime's own clocks on: where the time goes, median of ``runs``.

        Empty where the runtime has no such clocks.
        """
        ...


def check_feeds(inputs: tuple[TensorSpec, ...], feeds: Feeds) -> None:
    """Raise :class:`BadArgument` unless ``feeds`` has exactly the names, dtypes and shapes of ``inputs``."""
    from segship.core.errors import BadArgument

    names = [spec.name for spec in inputs]
    if set(feeds) != set(names):
        raise BadArgument(f"the engine takes the inputs {names}, got {sorted(feeds)}: feed exactly these names")
    for spec in inputs:
        array = feeds[spec.name]
        fits = len(array.shape) == len(spec.shape) and all(
            isinstance(want, str) or want == have for want, have in zip(spec.shape, array.shape, strict=True)
        )
        if not fits or array.dtype != np.dtype(spec.dtype):
            raise BadArgument(
                f"input {spec.name!r} is {array.dtype} {tuple(array.shape)}, the engine takes {spec.dtype} {spec.shape}"
            )
