"""What an ONNX file holds, for a person: nothing is run."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import onnx_ir as ir

from segship.core.errors import BadInput
from segship.graph.passes.edit import place


def describe(path: Path) -> dict[str, Any]:
    """Inputs, outputs, operator counts, opset and number of weights of an ONNX file; by module path the operators in it."""
    if not path.is_file():
        raise BadInput(f"no file at {path}: give the path of an .onnx file")
    try:
        model = ir.load(path)
    except Exception as error:  # protobuf and onnx_ir raise their own kinds
        raise BadInput(f"{path} is no intact ONNX file ({str(error).partition(chr(10))[0]}): export it again") from error
    graph = model.graph
    return {
        "path": str(path),
        "opset": dict(model.opset_imports),
        "inputs": {value.name or "": f"{value.dtype} {value.shape}" for value in graph.inputs},
        "outputs": {value.name or "": f"{value.dtype} {value.shape}" for value in graph.outputs},
        "weights": sum(value.const_value.size for value in graph.initializers.values() if value.const_value is not None),
        "operators": dict(Counter(node.op_type for node in graph).most_common()),
        "modules": _modules(graph),
    }


def _modules(graph: ir.Graph) -> dict[str, str]:
    """The operators of each module: what a precision plan can name."""
    found: dict[str, dict[str, None]] = {}
    for node in graph:
        found.setdefault(place(node), {})[node.op_type] = None
    return {path: ", ".join(kinds) for path, kinds in found.items()}
