"""Precision, asked and found.

The plan decides, the graph records, the backend proves: a :class:`PrecisionPlan` says what each layer shall run in,
graph passes write it into the graph, and after the build the backend reads back what each layer really runs in.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from fnmatch import fnmatchcase
from typing import Literal

import msgspec

Precision = Literal["fp32", "fp16", "bf16", "int8"]


class Keep(msgspec.Struct, frozen=True):
    """An exception to the plan's default.

    ``where`` is a module path (shell pattern, for instance ``backbone.block4.*``) or, with the prefix ``op:``,
    an ONNX operator type (``op:ConvTranspose``). A reason is mandatory.
    """

    where: str
    precision: Precision
    reason: str

    def covers(self, module_path: str, op_type: str) -> bool:
        """Whether this exception speaks of the node at ``module_path`` with ONNX type ``op_type``."""
        if self.where.startswith("op:"):
            return self.where[3:] == op_type
        return fnmatchcase(module_path, self.where)


class PrecisionPlan(msgspec.Struct, frozen=True):
    """Default precision plus exceptions; the last exception that covers a node wins."""

    default: Precision
    keep: tuple[Keep, ...] = ()

    def precision_of(self, module_path: str, op_type: str) -> Precision:
        """Precision asked for the node at ``module_path`` with ONNX type ``op_type``."""
        for exception in reversed(self.keep):
            if exception.covers(module_path, op_type):
                return exception.precision
        return self.default


class LayerPrecision(msgspec.Struct, frozen=True):
    """One layer of a built engine: the runtime's name and type for it, and the precision it runs in."""

    name: str
    kind: str
    precision: str


class Disagreement(msgspec.Struct, frozen=True):
    """A layer that does not run in the precision that the graph asked for."""

    layer: str
    asked: str
    found: str


class PrecisionReport(msgspec.Struct, frozen=True):
    """What was asked of a backend and what it really does, weighted layers only (Conv, ConvTranspose, MatMul, Gemm).

    ``found`` is None when the backend cannot be asked.
    """

    asked: dict[str, int]
    found: dict[str, int] | None
    layers: tuple[LayerPrecision, ...]
    disagreements: tuple[Disagreement, ...]


def compare_precisions(asked: Mapping[str, Precision], found: Iterable[LayerPrecision]) -> PrecisionReport:
    """Report from what the graph asks for (by node name) and the weighted layers that the runtime lists.

    Layers are matched by name, whatever the runtime appends to it (``X/WithoutBiases``, ``X_token_7``). A node that the
    runtime does not list (it was fused away or split) is no disagreement in itself, but shows in the counts.
    """
    layers = tuple(found)
    matched = [(layer, node) for layer in layers if (node := _node_of(layer.name, asked)) is not None]
    disagreements = tuple(
        Disagreement(layer.name, asked[node], layer.precision) for layer, node in matched if asked[node] != layer.precision
    )
    return PrecisionReport(
        asked=dict(Counter(asked.values())),
        found=dict(Counter(layer.precision for layer in layers)),
        layers=layers,
        disagreements=disagreements,
    )


def _node_of(layer: str, nodes: Mapping[str, Precision]) -> str | None:
    """The longest node name that ``layer`` is, or begins with before a ``/`` or ``_`` of the runtime's own."""
    begins = [node for node in nodes if node and (layer == node or layer.startswith((f"{node}/", f"{node}_")))]
    return max(begins, key=len, default=None)
