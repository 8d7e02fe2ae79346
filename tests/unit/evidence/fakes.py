"""Small sessions that compute a known network, each with one planted fault or none."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from segship.core.spec import TensorSpec

WEIGHTS = np.array([[1.0, -0.5, 0.2], [-0.3, 0.8, 0.1], [0.2, 0.1, -0.9], [0.0, 0.4, 0.6]], np.float32)
"""Four classes from three channels."""


def network(image: np.ndarray) -> np.ndarray:
    """(n, 3, h, w) to logits (n, 4, h, w), float32; no image sees another."""
    return np.einsum("kc,nchw->nkhw", WEIGHTS, image).astype(np.float32)


class FakeSession:
    """A session around ``compute``, which maps (n, 3, h, w) to the only output."""

    def __init__(self, compute: Callable[[np.ndarray], np.ndarray] = network, batch: int | str = "batch") -> None:
        self._compute = compute
        self.runs = 0
        self.inputs = (TensorSpec("image", "float32", (batch, 3, "height", "width")),)
        self.outputs = (TensorSpec("logits", "float32", (batch, 4, "height", "width")),)

    def run(self, feeds: Mapping[str, Any]) -> dict[str, Any]:
        self.runs += 1
        return {"logits": self._compute(feeds["image"])}

    def bind(self, feeds: Mapping[str, Any]) -> Callable[[], None]:
        return lambda: None

    def close(self) -> None:
        return None


def first_for_all(image: np.ndarray) -> np.ndarray:
    """A batch dimension that was fixed to 1 and repeated."""
    return np.repeat(network(image[:1]), len(image), axis=0)


def batch_statistics(image: np.ndarray) -> np.ndarray:
    """A normalisation left in training mode: it takes the mean over the batch."""
    return network(image - image.mean((0, 2, 3), keepdims=True))


def two_at_most(image: np.ndarray) -> np.ndarray:
    """An engine that computes two images and answers zeros for the others."""
    logits = network(image)
    logits[2:] = 0
    return logits


def images(n: int, size: tuple[int, int] = (6, 8), seed: int = 0) -> list[dict[str, np.ndarray]]:
    """``n`` different feeds of one image each."""
    rng = np.random.default_rng(seed)
    return [{"image": rng.normal(size=(1, 3, *size)).astype(np.float32)} for _ in range(n)]
