"""Faults to plant in graphs, and what a test asks of the report on an engine that has one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import onnx_ir as ir
import torch

from golden.weights import tensor
from segship.core.graph import Graph
from segship.diff import Finding, Report, diff_engine
from segship.graph.passes.edit import new_node
from segship.models import build_module
from segship.pipeline import ModelPredictor, build
from segship.predictor import load_engine

SIZE = (32, 32)  # square, so that swapped sides change no shape
BACKENDS = ("onnxruntime", "openvino")
Edit = Callable[[ir.Graph], None]

UNET = {"n_channels": 3, "n_classes": 3, "widths": [4, 6, 8, 10, 12], "bilinear": False}
SEGFORMER = {
    "n_classes": 5,
    "dims": [8, 16, 20, 24],
    "depths": [1, 1, 1, 1],
    "heads": [1, 2, 4, 4],
    "hidden": [16, 32, 40, 48],
    "sr_ratios": [8, 4, 2, 1],
    "head_width": 16,
    "layer_norm_eps": 1e-6,
}


def state_of(family: str, hyperparameters: dict[str, Any]) -> dict[str, torch.Tensor]:
    state = build_module(family, hyperparameters).state_dict()
    return {key: torch.from_numpy(tensor(key, list(value.shape), 0)) for key, value in state.items()}


def edited(graph: Graph, edit: Edit) -> Graph:
    model = graph.ir.clone()
    edit(model.graph)
    return replace(graph, ir=model)


def named(graph: ir.Graph, name: str) -> ir.Node:
    return next(node for node in graph if node.name == name)


def insert_behind(graph: ir.Graph, value: ir.Value, kinds: list[tuple[str, list[ir.Value], dict[str, Any]]]) -> None:
    """Put one node for each of ``kinds`` (type, further inputs, attributes) between ``value`` and its readers."""
    uses, current = value.uses(), value
    nodes = []
    for index, (kind, inputs, attributes) in enumerate(kinds):
        dtype = ir.DataType(attributes["to"]) if kind == "Cast" else current.dtype
        nodes.append(new_node(kind, [current, *inputs], f"planted/{value.name}/{index}", dtype=dtype, attributes=attributes))
        current = nodes[-1].outputs[0]
    graph.insert_after(value.producer(), nodes)
    for node, index in uses:
        node.replace_input_with(index, current)


def found_in(
    model: ModelPredictor, planted: Graph, backend: str, image: Path, tmp_path: Path, *, clean: Graph, every_step: bool = False
) -> Report:
    engine = build(planted, backend, tmp_path / "planted.engine")
    with load_engine(engine.path) as candidate:
        return diff_engine(model, candidate, image, graph=clean, every_step=every_step)


def finding(report: Report) -> Finding:
    assert report.finding is not None
    assert not report.passed
    assert report.finding.advice
    return report.finding
