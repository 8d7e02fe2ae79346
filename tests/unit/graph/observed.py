"""What calibration would learn of a small graph, read from plain runs of it: ranges, channel maxima, mean errors."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from segship.core.graph import Graph
from segship.core.precision import PrecisionPlan
from segship.graph.histogram import Histogram, Range
from segship.graph.observe import CHANNELS, channel_maxima_graph, tensors_graph
from segship.graph.passes.correct_bias import correct_bias, mean_error_graph
from segship.graph.passes.insert_qdq import insert_qdq, tensors_to_quantise
from segship.graph.passes.smooth import smooth, tensors_to_smooth
from unit.graph.networks import PlainSession

INT8 = PrecisionPlan("int8")


def runs(graph: Graph, inputs: Sequence[np.ndarray]) -> list[dict[str, np.ndarray]]:
    session = PlainSession(graph)
    return [session.run({"image": image} if graph.signature.inputs else {}) for image in inputs]


def extremes(graph: Graph, inputs: Sequence[np.ndarray]) -> dict[str, Range]:
    names = tensors_to_quantise(graph, INT8)
    found = {name: Histogram() for name in names}
    watched = tensors_graph(graph, [name for name in names if name != "image"])
    for image, seen in zip(inputs, runs(watched, inputs), strict=True):
        for name, histogram in found.items():
            value = image if name == "image" else seen[name]
            histogram.add(float(value.min()), float(value.max()), value)
    return {name: histogram.bounds("minmax") for name, histogram in found.items()}


def maxima(graph: Graph, inputs: Sequence[np.ndarray]) -> dict[str, np.ndarray]:
    found = runs(channel_maxima_graph(graph, tensors_to_smooth(graph)), inputs)
    return {name.removesuffix(CHANNELS): np.max([each[name] for each in found], axis=0) for name in found[0]}


def smoothed(graph: Graph, inputs: Sequence[np.ndarray]) -> Graph:
    return smooth(graph, maxima(graph, inputs))


def mean_errors(graph: Graph, inputs: Sequence[np.ndarray]) -> dict[str, np.ndarray]:
    found = runs(mean_error_graph(graph, extremes(graph, inputs)), inputs)
    return {name.removesuffix(CHANNELS): np.mean([each[name] for each in found], axis=0, dtype=np.float64) for name in found[0]}


def in_int8(graph: Graph, inputs: Sequence[np.ndarray], *, correct: bool = False, plan: PrecisionPlan = INT8) -> Graph:
    quantised = insert_qdq(graph, extremes(graph, inputs), plan)
    return correct_bias(quantised, mean_errors(graph, inputs)) if correct else quantised


def logits(graph: Graph, inputs: Sequence[np.ndarray]) -> np.ndarray:
    return np.concatenate([each[graph.signature.outputs[0].name] for each in runs(graph, inputs)])


def signal_to_noise(graph: Graph, candidate: Graph, inputs: Sequence[np.ndarray]) -> float:
    """Of the candidate's result against the graph's, in dB."""
    expected, found = logits(graph, inputs), logits(candidate, inputs)
    return float(10 * np.log10(np.mean(expected.astype(np.float64) ** 2) / np.mean((found - expected).astype(np.float64) ** 2)))
