"""The value between model and engine: a strongly typed ONNX graph with its history."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from hashlib import sha256
from typing import TYPE_CHECKING, Literal

import msgspec

from segship.core.precision import Precision, PrecisionPlan
from segship.core.spec import ModelSpec, Signature

if TYPE_CHECKING:
    import onnx_ir

Stage = Literal["export", "simplify", "fuse", "precision", "legalise"]

MODULE_PATH = "segship.module_path"
"""Key of the node metadata that holds the PyTorch module path a node came from, for instance ``backbone.block1.0.attn.q``."""


class PassRecord(msgspec.Struct, frozen=True):
    """One pass that was applied: its stage, its options, and whether it changed anything."""

    name: str
    stage: Stage
    options: dict[str, str]
    changed: bool


WEIGHTED_OPS = ("Conv", "ConvTranspose", "Gemm", "MatMul")
"""Operators that hold nearly all of a segmentation network's arithmetic; precision is asked for and read back at these."""


@dataclass(frozen=True)
class Graph:
    """An ONNX graph, what it takes and gives, and how it came to be. Passes return a new one."""

    ir: onnx_ir.Model
    spec: ModelSpec
    signature: Signature
    plan: PrecisionPlan = field(default_factory=lambda: PrecisionPlan("fp32"))
    history: tuple[PassRecord, ...] = ()

    def after(self, ir: onnx_ir.Model, record: PassRecord, **changes: Signature | PrecisionPlan) -> Graph:
        """The graph after one pass: new ONNX, and the record appended to the history."""
        return replace(self, ir=ir, history=(*self.history, record), **changes)  # type: ignore[arg-type]

    def to_bytes(self) -> bytes:
        """The graph as a serialised ONNX ModelProto (weights inside; protobuf's limit is 2 GiB)."""
        import onnx_ir

        content: bytes = onnx_ir.to_proto(self.ir).SerializeToString()
        return content

    def asked(self) -> dict[str, Precision]:
        """Precision that the graph asks for at each weighted node, by node name (Conv, ConvTranspose, Gemm, MatMul)."""
        return {node.name or "": _asked_of(node) for node in self.ir.graph if node.op_type in WEIGHTED_OPS}

    def sha256(self) -> str:
        """Hash of the serialised graph."""
        return sha256(self.to_bytes()).hexdigest()


def _asked_of(node: onnx_ir.Node) -> Precision:
    """INT8 when the weight comes from a DequantizeLinear, else the type of the result.

    The activation is not asked: operators that only move values (MaxPool) may stand between it and its DequantizeLinear.
    """
    weight = node.inputs[1].producer() if node.inputs[1] is not None else None
    if weight is not None and weight.op_type == "DequantizeLinear":
        return "int8"
    kind = node.outputs[0].dtype
    names: dict[str, Precision] = {"FLOAT16": "fp16", "BFLOAT16": "bf16"}
    return names.get(kind.name, "fp32") if kind is not None else "fp32"
