"""The tensors inside an engine, under the names that they have in the graph.

Only tensors that the engine's own file holds are asked for, so that the fusion stays what it is.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from importlib import import_module
from typing import Protocol, cast

import numpy as np

from segship.core.backend import Array, Feeds
from segship.core.engine import Engine
from segship.core.errors import BadArgument
from segship.core.graph import Graph
from segship.diff.segment import values_of
from segship.graph.channel_path import scaled_values, sites
from segship.graph.passes.edit import constant_of

_MODULES = {"onnxruntime": "segship.diff.inner_onnxruntime", "openvino": "segship.diff.inner_openvino"}


@dataclass(frozen=True)
class Held:
    """A value of the graph as the engine holds it: the engine's ``tensor``, and what turns it into the graph's value.

    ``scale`` and ``zero_point`` where it is quantised; ``channels_last`` where its axes are (n, h, w, c); ``unsqueezed``: axes of
    size 1 that the value has not.
    """

    tensor: str
    scale: float | None = None
    zero_point: int = 0
    channels_last: bool = False
    unsqueezed: tuple[int, ...] = ()

    def read(self, array: Array) -> Array:
        """The graph's value from the engine's tensor: real numbers, channels first."""
        if self.scale is not None:
            array = (array.astype(np.float32) - np.float32(self.zero_point)) * np.float32(self.scale)
        array = array.squeeze(self.unsqueezed) if self.unsqueezed else array
        return np.moveaxis(array, -1, 1) if self.channels_last else array


class Inner(Protocol):
    """An engine with its inner tensors in reach."""

    held: dict[str, Held]
    """By the graph's name, in the order of the graph."""

    def run(self, feeds: Feeds, names: Sequence[str]) -> dict[str, Array]:
        """The values ``names``; nothing that they do not need is computed. Raises :class:`RunFailed`."""
        ...

    def effect(self, feeds: Feeds) -> float:
        """How far the engine's own result moves when its inner tensors are asked for, as a relative error."""
        ...


def open_inner(engine: Engine, graph: Graph) -> Inner:
    """The inner tensors of an engine that was made of ``graph`` (in any precision)."""
    name = engine.manifest.backend
    if name not in _MODULES:
        raise BadArgument(
            f"{engine.path} is of the backend {name}, whose inner tensors cannot be read: {' or '.join(_MODULES)} can"
        )
    inner = cast(Inner, import_module(_MODULES[name]).open_inner(engine, graph))
    inner.held = _with_places(inner.held, graph)
    if smoothed(engine):
        scaled = {value.name for site in sites(graph.ir.graph) for value in scaled_values(site)}
        inner.held = {name: held for name, held in inner.held.items() if name not in scaled}
    return inner


def smoothed(engine: Engine) -> bool:
    """Whether the engine's plan moves outliers of channels into weights, so that tensors between such layers are scaled."""
    return "smooth" in (engine.manifest.plan.recipe or "")


def _with_places(held: dict[str, Held], graph: Graph) -> dict[str, Held]:
    """What is held, and the places of a TopK where only their Unsqueeze is.

    At a tie the engine may choose another place than the graph does, and be right: what follows must be computed from its choice.
    """
    found = dict(held)
    for places in [node.outputs[1] for node in graph.ir.graph if node.op_type == "TopK" and node.outputs[1].name not in held]:
        for reader in places.consumers():
            axes = constant_of(reader.inputs[1]) if reader.op_type == "Unsqueeze" else None
            if axes is not None and (other := held.get(reader.outputs[0].name or "")) is not None:
                found[places.name or ""] = replace(other, unsqueezed=tuple(axes.tolist()))
    return {name: found[name] for name in values_of(graph.ir.graph) if name in found}
