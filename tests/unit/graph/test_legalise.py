"""A legalised graph means the same, and runs in integer kernels; the graph it replaces shows why it is needed."""

from __future__ import annotations

import numpy as np
import pytest

from segship.backends import load_backend
from segship.core.backend import Built, Traits
from segship.core.errors import BuildFailed
from segship.core.graph import Graph
from segship.core.precision import PrecisionPlan
from segship.graph.labels import label_map
from segship.graph.passes.edit import constant_of
from segship.graph.passes.insert_qdq import insert_qdq
from segship.graph.passes.legalise import legalise
from segship.graph.plan import int8_plan
from unit.graph.networks import SIZE, PlainSession, images, kinds, named, small_unet
from unit.graph.test_insert_qdq import NOISE_LIMIT, noise, ranges_of

NO_UPSAMPLING = ("Conv", "MatMul", "Gemm", "MaxPool", "Concat")
EVERYTHING = ("Conv", "ConvTranspose", "MatMul", "Gemm", "MaxPool", "Concat")


def traits(**changes: object) -> Traits:
    return Traits(**{"precisions": ("fp32", "int8"), "activations": "unsigned", "int8_ops": EVERYTHING, **changes})


def quantised_for(chosen: Traits) -> tuple[Graph, Graph]:
    """The float graph and its legalised INT8 form."""
    graph = small_unet()
    plan = int8_plan(graph, chosen)
    return graph, legalise(insert_qdq(graph, ranges_of(graph, plan), plan), chosen)


def build(backend: str, graph: Graph, factory: pytest.TempPathFactory) -> tuple[Built, np.ndarray]:
    """What the backend made of the graph, and its logits for one image."""
    module = load_backend(backend)
    if problem := module.probe():
        pytest.skip(problem)
    directory = factory.mktemp(backend)
    built = module.build(graph, directory)
    session = module.load(directory, graph.signature, threads=1)
    return built, session.run({"image": images(1, seed=9)[0]})["logits"]


@pytest.mark.parametrize("backend", ["onnxruntime", "openvino"])
def test_every_layer_but_the_last_runs_in_int8(backend: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    graph, ready = quantised_for(load_backend(backend).TRAITS)
    built, found = build(backend, ready, tmp_path_factory)
    assert built.precision.found == {"int8": 4, "fp32": 1}
    expected = PlainSession(graph).run({"image": images(1, seed=9)[0]})["logits"]
    assert (found - expected).std() < NOISE_LIMIT * expected.std()


def test_symmetric_pairs_around_relu_run_in_float_on_onnxruntime(tmp_path_factory: pytest.TempPathFactory) -> None:
    symmetric = traits(
        activations="symmetric", int8_ops=("Conv", "MatMul", "Gemm", "MaxPool", "Concat"), quantised_conv_output=True
    )
    _, ready = quantised_for(symmetric)
    built, _ = build("onnxruntime", ready, tmp_path_factory)
    assert built.precision.found == {"fp32": 5}


def test_a_scale_shared_by_a_concat_costs_onnxruntime_integer_kernels(tmp_path_factory: pytest.TempPathFactory) -> None:
    chosen = load_backend("onnxruntime").TRAITS
    graph = small_unet()
    plan = int8_plan(graph, chosen)
    ranges = ranges_of(graph, plan)
    joined = ranges["join/Concat/out"]
    assert joined.low < 0
    shared = {**ranges, "down/Relu/out": joined}
    built, _ = build("onnxruntime", legalise(insert_qdq(graph, shared, plan), chosen), tmp_path_factory)
    assert built.precision.found == {"int8": 3, "fp32": 2}


def test_symmetric_means_no_zero_point_and_covers_the_range() -> None:
    graph, ready = quantised_for(traits(activations="symmetric"))
    ranges = ranges_of(graph)
    pairs = [node for node in ready.ir.graph if node.op_type == "QuantizeLinear"]
    assert pairs
    for pair in pairs:
        bounds = ranges[pair.inputs[0].name]
        zero_point = constant_of(pair.inputs[2])
        assert zero_point.dtype == np.int8
        assert zero_point == 0
        assert float(constant_of(pair.inputs[1])) * 127 == pytest.approx(max(-bounds.low, bounds.high), rel=0.01)
    assert noise(graph, ready) < 2 * NOISE_LIMIT


def test_an_operator_without_a_kernel_is_refused_not_undone() -> None:
    graph = small_unet()
    asked = insert_qdq(graph, ranges_of(graph), PrecisionPlan("int8"))
    with pytest.raises(BuildFailed, match="op:Conv "):
        legalise(asked, traits(int8_ops=("ConvTranspose",)))
    with pytest.raises(BuildFailed, match="no INT8 kernel"):
        legalise(asked, traits(precisions=("fp32",)))


def test_outputs_of_convolutions_are_quantised_only_where_the_kernel_needs_it() -> None:
    chosen = {needed: quantised_for(traits(quantised_conv_output=needed))[1] for needed in (True, False)}
    last = {needed: named(graph, "last/Conv").inputs[0].producer().op_type for needed, graph in chosen.items()}
    assert last == {True: "DequantizeLinear", False: "Relu"}
    assert int(chosen[False].history[-1].options["pairs_dropped"]) == 1


def test_pairs_around_a_concat_without_a_kernel_are_dropped_but_for_its_reader() -> None:
    _, ready = quantised_for(traits(int8_ops=("Conv", "ConvTranspose", "MaxPool")))
    upsampled = named(ready, "join/Concat").inputs[1]
    assert upsampled.producer().op_type == "ConvTranspose"
    assert [reader.op_type for reader in named(ready, "join/Concat").outputs[0].consumers()] == ["QuantizeLinear"]


def test_argmax_becomes_topk_where_that_is_faster() -> None:
    labels = label_map(small_unet(), SIZE)
    ready = legalise(labels, traits(argmax="TopK"))
    assert "ArgMax" not in kinds(ready)
    assert kinds(ready).count("TopK") == 1
    image = images(1)[0]
    assert np.array_equal(*(PlainSession(graph).run({"image": image})["labels"] for graph in (labels, ready)))
    assert not legalise(labels, traits(argmax="ArgMax")).history[-1].changed


def test_a_float_graph_is_left_alone_and_twice_is_once() -> None:
    chosen = traits(quantised_conv_output=False)
    assert not legalise(small_unet(), chosen).history[-1].changed
    _, ready = quantised_for(chosen)
    again = legalise(ready, chosen)
    assert not again.history[-1].changed
    assert again.sha256() == ready.sha256()
