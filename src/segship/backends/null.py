"""Answers zeros of the right shape: the whole pipeline runs on any machine, in no time, with this backend."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import numpy as np

from segship.core.backend import PROFILE_RUNS, Array, Built, Feeds, Traits, check_feeds
from segship.core.precision import PrecisionReport
from segship.core.profile import Profile
from segship.core.spec import Signature, TensorSpec

if TYPE_CHECKING:
    from segship.core.graph import Graph

NAME = "null"
TRAITS = Traits(precisions=())


def version() -> str:
    """Version of the runtime."""
    return "1.0"


def probe() -> str | None:
    """It always works."""
    return None


def build(source: Graph, into: Path) -> Built:
    """Keep nothing but the signature. What runs in which precision cannot be asked, so ``found`` is None."""
    (into / "signature.json").write_bytes(msgspec.json.encode(source.signature))
    asked = list(source.asked().values())
    report = PrecisionReport({name: asked.count(name) for name in sorted(set(asked))}, None, (), ())
    return Built(options={}, version=version(), precision=report)


def load(directory: Path, signature: Signature, *, threads: int | None = None) -> NullSession:
    """A session that answers zeros."""
    return NullSession(signature)


def profile(
    directory: Path, signature: Signature, feeds: Feeds, *, threads: int | None = None, runs: int = PROFILE_RUNS
) -> Profile:
    """Empty: there are no kernels."""
    check_feeds(signature.inputs, feeds)
    return Profile()


class NullSession:
    """Zeros of the right shape and dtype; free sizes of the output are taken from the input."""

    def __init__(self, signature: Signature) -> None:
        self.inputs: tuple[TensorSpec, ...] = signature.inputs
        self.outputs: tuple[TensorSpec, ...] = signature.outputs
        self._image_size = signature.image_size

    def run(self, feeds: Feeds) -> dict[str, Array]:
        """Zeros."""
        check_feeds(self.inputs, feeds)
        batch, _, height, width = feeds["image"].shape
        image_size = [int(side) for side in feeds["image_size"]] if "image_size" in feeds else self._image_size or (height, width)
        sizes = {"batch": batch, "height": height, "width": width, "height/4": -(-height // 4), "width/4": -(-width // 4)}
        sizes |= {"image_height": image_size[0], "image_width": image_size[1]}
        return {
            spec.name: np.zeros([sizes[side] if isinstance(side, str) else side for side in spec.shape], spec.dtype)
            for spec in self.outputs
        }

    def bind(self, feeds: Feeds) -> Callable[[], None]:
        """A function that does nothing worth timing."""
        check_feeds(self.inputs, feeds)
        return lambda: None

    def close(self) -> None:
        """Nothing to give back."""
