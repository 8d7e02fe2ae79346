"""Precision, asked and found.

The plan decides, the graph records, the backend proves: a :class:`PrecisionPlan` says what each layer shall run in,
graph passes write it into the graph, and after the build the backend reads back what each layer really runs in.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from fnmatch import fnmatchcase
from typing import Annotated, Literal

import msgspec

from segship.core.errors import BadArgument

FloatPrecision = Literal["fp32", "fp16", "bf16"]
Precision = Literal["fp32", "fp16", "bf16", "int8"]

_Words = Annotated[str, msgspec.Meta(pattern=r"\S", description="text that says something")]


class Keep(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """An exception to the plan's default.

    ``where`` is a module path (shell pattern, for instance ``backbone.block4.*``) or, with the prefix ``op:``,
    an ONNX operator type (``op:ConvTranspose``). A reason is mandatory. ``effect_ms`` and ``effect_points`` say what the
    exception was measured to change: milliseconds per image and points of the task's metric, more is positive.
    """

    where: _Words
    precision: Precision
    reason: _Words
    effect_ms: float | None = None
    effect_points: float | None = None

    def covers(self, module_path: str, op_type: str) -> bool:
        """Whether this exception speaks of the node at ``module_path`` with ONNX type ``op_type``."""
        if self.where.startswith("op:"):
            return self.where[3:] == op_type
        return fnmatchcase(module_path, self.where)


class PrecisionPlan(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Default precision plus exceptions; the last exception that covers a node wins.

    ``rest`` is the precision of whatever INT8 cannot hold: other operators, and the float side of QuantizeLinear and
    DequantizeLinear. None means the default where that is a float precision, else FP32.
    ``recipe`` says how INT8's numbers are made, as text (:class:`segship.graph.int8_recipe.Recipe`); None means as usual.
    """

    default: Precision
    keep: tuple[Keep, ...] = ()
    rest: FloatPrecision | None = None
    recipe: str | None = None

    def precision_of(self, module_path: str, op_type: str) -> Precision:
        """Precision asked for the node at ``module_path`` with ONNX type ``op_type``."""
        exception = self.exception_of(module_path, op_type)
        return exception.precision if exception is not None else self.default

    def exception_of(self, module_path: str, op_type: str) -> Keep | None:
        """The exception that decides about a node, None where the default does."""
        return next((keep for keep in reversed(self.keep) if keep.covers(module_path, op_type)), None)

    def float_precision_of(self, module_path: str, op_type: str) -> FloatPrecision:
        """Precision of a node's floating-point tensors: what is asked for it, or beside INT8 the ``rest``."""
        asked = self.precision_of(module_path, op_type)
        return self._rest if asked == "int8" else asked

    @property
    def _rest(self) -> FloatPrecision:
        if self.rest is not None:
            return self.rest
        return "fp32" if self.default == "int8" else self.default

    @property
    def precisions(self) -> frozenset[Precision]:
        """Every precision that the plan may give to a node."""
        asked = {self.default, *(keep.precision for keep in self.keep)}
        return frozenset({*asked, self._rest} if "int8" in asked else asked)


def check_covered(plan: PrecisionPlan, nodes: Iterable[tuple[str, str]]) -> None:
    """Raise :class:`BadArgument` for an exception that covers none of ``nodes``, given as (module path, ONNX type)."""
    known = set(nodes)
    for keep in plan.keep:
        if not any(keep.covers(*node) for node in known):
            raise BadArgument(
                f"the exception {keep.where!r} of the precision plan covers nothing in the graph: `segship export` writes "
                "the graph and `segship inspect` lists its modules and operators; mend the pattern or take the exception out"
            )


def in_words(plan: PrecisionPlan) -> str:
    """The plan in one line, for instance ``fp16, 3 exceptions stay fp32: +0.20 ms, +3.10 points``."""
    parts = []
    for precision, count in Counter(keep.precision for keep in plan.keep).items():
        chosen = [keep for keep in plan.keep if keep.precision == precision]
        effects = [
            f"{sum(each for each in known):+.2f} {unit}"
            for unit, values in (
                ("ms", [keep.effect_ms for keep in chosen]),
                ("points", [keep.effect_points for keep in chosen]),
            )
            if (known := [value for value in values if value is not None])
        ]
        parts.append(
            f"{count} {'exception stays' if count == 1 else 'exceptions stay'} {precision}"
            + (f": {', '.join(effects)}" if effects else "")
        )
    return ", ".join([plan.default, *parts])


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
