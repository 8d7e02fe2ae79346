"""A step that amplifies rounding is told from one that is wrong, on an engine that is made up."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import pytest

from segship.core.backend import Array, Feeds
from segship.core.graph import Graph
from segship.core.precision import Precision
from segship.diff.inner import Held
from segship.diff.walk import State, walk
from unit.graph.networks import SIZE, Net

CONV, NORM = "conv", "logits"
EVEN, VARIED = 1e-4, 1.0
"""How far the pixels of an image lie apart: a norm of a row amplifies rounding, or does not."""


def normalised_rows() -> Graph:
    net = Net()
    conv = net.conv(net.image, "conv", 3, 3, side=1)
    conv.name = CONV
    norm = net.node("LayerNormalization", [conv, net.weight("norm.weight", SIZE[1])], "norm/LayerNormalization", 3, axis=-1)
    return net.done(norm, 3)


def norm(conv: Array, weight: Array, epsilon: float = 1e-5) -> Array:
    centred = conv - conv.mean(axis=-1, keepdims=True)
    return (centred / np.sqrt((centred**2).mean(axis=-1, keepdims=True) + epsilon) * weight).astype(np.float32)


class MadeUp:
    """Holds both tensors; ``last`` makes the second of the first."""

    def __init__(self, graph: Graph, last: Callable[[Array], Array]) -> None:
        self.held = {CONV: Held(CONV), NORM: Held(NORM)}
        self._last, weights = last, graph.ir.graph.initializers
        self._weight, self._bias = (weights[f"conv.{name}"].const_value.numpy() for name in ("weight", "bias"))

    def run(self, feeds: Feeds, names: Sequence[str]) -> dict[str, Array]:
        conv = np.einsum("oi,nihw->nohw", self._weight[:, :, 0, 0], feeds["image"]) + self._bias[:, None, None]
        found = {CONV: conv.astype(np.float32), NORM: self._last(conv)}
        return {name: found[name] for name in names}

    def effect(self, _feeds: Feeds) -> float:
        return 0.0


def state_of_norm(apart: float, precision: Precision, *, rounding: float = 0.0, epsilon: float = 1e-5) -> State:
    """What the walk says of the norm of an engine that rounds its input by ``rounding`` standard deviations."""
    graph, random = normalised_rows(), np.random.default_rng(3)
    weight = graph.ir.graph.initializers["norm.weight"].const_value.numpy()

    def last(conv: Array) -> Array:
        return norm(conv + rounding * conv.std() * random.standard_normal(conv.shape), weight, epsilon)

    image = (0.5 + apart * (random.random((1, 3, *SIZE)) - 0.5)).astype(np.float32)
    walked = walk(graph, MadeUp(graph, last), {"image": image}, precision=precision)
    conv, normed = walked.steps
    assert conv.state == "agrees"
    assert (walked.first is not None) == (normed.state == "diverges")
    return normed.state


@pytest.mark.parametrize(
    ("apart", "precision", "rounding", "state"),
    [
        (VARIED, "int8", 1e-2, "agrees"),
        (EVEN, "int8", 1e-2, "amplifies"),
        (EVEN, "fp16", 5e-4, "amplifies"),
        (EVEN, "fp32", 5e-4, "diverges"),  # a half where FP32 was asked for
        (VARIED, "int8", 0.5, "diverges"),  # 50 times what eight bits explain
    ],
)
def test_rounding_may_be_amplified_by_a_step_but_only_rounding_of_the_precision(
    apart: float, precision: Precision, rounding: float, state: State
) -> None:
    assert state_of_norm(apart, precision, rounding=rounding) == state


@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
def test_a_wrong_epsilon_is_no_rounding(precision: Precision) -> None:
    assert state_of_norm(VARIED, precision, epsilon=0.3) == "diverges"
