"""Q/DQ stands where it must, the numbers stay close, and the plan is obeyed."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest

from segship.backends import load_backend
from segship.core.backend import Traits
from segship.core.errors import BuildFailed
from segship.core.graph import Graph
from segship.core.precision import Keep, PrecisionPlan
from segship.graph.histogram import Histogram, Range
from segship.graph.passes.edit import constant, constant_of, place
from segship.graph.passes.insert_qdq import insert_qdq, scale_and_zero_point, tensors_to_quantise, weight_scale
from segship.graph.passes.legalise import legalise
from segship.graph.plan import int8_plan
from unit.graph.networks import SIZE, Net, PlainSession, images, kinds, named, small_unet
from unit.graph.observed import extremes

ALL = PrecisionPlan("int8")
NOISE_LIMIT = 0.05
"""Noise that 8 bits may add to the logits, in their standard deviations: 0.01 to 0.02 are found, a wrong scale adds over 0.3."""


def ranges_of(graph: Graph, plan: PrecisionPlan = ALL, count: int = 4) -> dict[str, Range]:
    """Extremes of every tensor to quantise, read from the tensors themselves."""
    tensors = tensors_to_quantise(graph, plan)
    clone = graph.ir.clone()
    known = {value.name: value for node in clone.graph for value in node.outputs}
    clone.graph.outputs.extend(known[name] for name in tensors if name in known)
    session = PlainSession(
        graph.after(clone, graph.history[0]) if graph.history else Graph(clone, graph.spec, graph.signature)
    )._session
    found = {name: Histogram() for name in tensors}
    for image in images(count, seed=1):
        feeds = {"image": image}
        for name in tensors:
            value = image if name == "image" else session.run([name], feeds)[0]
            found[name].add(float(value.min()), float(value.max()), value)
    return {name: histogram.bounds("minmax") for name, histogram in found.items()}


def noise(graph: Graph, quantised: Graph) -> float:
    """Standard deviation of the difference of the logits, in that of the logits."""
    image = images(1, seed=9)[0]
    expected, found = (PlainSession(each).run({"image": image})["logits"] for each in (graph, quantised))
    return float((found - expected).std() / expected.std())


def test_numbers_stay_close_and_a_wrong_scale_does_not() -> None:
    graph = small_unet()
    ranges = ranges_of(graph)
    assert noise(graph, insert_qdq(graph, ranges, ALL)) < NOISE_LIMIT
    wrong = {name: Range(bounds.low / 4, bounds.high / 4) for name, bounds in ranges.items()}
    assert noise(graph, insert_qdq(graph, wrong, ALL)) > NOISE_LIMIT


def test_pairs_stand_behind_relu_before_pooling_and_at_each_input_of_concat() -> None:
    graph = small_unet()
    names = tensors_to_quantise(graph, ALL)
    relus, up, join = (f"{name}/out" for name in ("wide/Relu", "up/ConvTranspose", "join/Concat"))
    assert set(names) == {"image", "down/Relu/out", "deep/Relu/out", up, join, relus}
    quantised = insert_qdq(graph, ranges_of(graph), ALL)
    assert named(quantised, "pool/MaxPool").inputs[0].producer().op_type == "DequantizeLinear"
    for part in named(quantised, "join/Concat").inputs:
        assert part.producer().op_type == "DequantizeLinear"
    assert [reader.op_type for reader in named(quantised, "down/Conv").outputs[0].consumers()] == ["Relu"]


def test_the_inputs_of_a_concat_keep_their_own_scales_and_relu_its_zero_point() -> None:
    graph = small_unet()
    quantised = insert_qdq(graph, ranges_of(graph), ALL)
    pairs = [part.producer() for part in named(quantised, "join/Concat").inputs]
    scales = [float(constant_of(pair.inputs[1])) for pair in pairs]
    zero_points = [int(constant_of(pair.inputs[2])) for pair in pairs]
    assert scales[0] != scales[1]
    assert zero_points[0] == 0
    assert zero_points[1] > 0


def test_weights_are_int8_with_one_scale_per_output_channel() -> None:
    graph = small_unet()
    quantised = insert_qdq(graph, ranges_of(graph), ALL)
    for name, axis, channels in [("deep/Conv", 0, 16), ("up/ConvTranspose", 1, 8)]:
        dequantise = named(quantised, name).inputs[1].producer()
        content, scale = constant_of(dequantise.inputs[0]), constant_of(dequantise.inputs[1])
        assert content.dtype == np.int8
        assert scale.shape == (channels,)
        assert dequantise.attributes.get_int("axis") == axis
        original = constant_of(named(graph, name).inputs[1])
        shape = [channels if index == axis else 1 for index in range(4)]
        assert np.abs(content * scale.reshape(shape) - original).max() <= scale.max() / 2 * 1.0001
        assert np.all(np.abs(content).max(axis=tuple(index for index in range(4) if index != axis)) == 127)
    assert not any(
        value.const_value.numpy().dtype == np.float32 and value.const_value.size > 100
        for value in quantised.ir.graph.initializers.values()
    )


def test_the_plan_is_obeyed_and_kept_with_its_reasons() -> None:
    graph = small_unet()
    plan = PrecisionPlan("int8", (Keep("deep", "fp32", "a test"), Keep("op:ConvTranspose", "fp32", "a test")))
    quantised = insert_qdq(graph, ranges_of(graph), plan)
    assert quantised.plan == plan
    for name in ("deep/Conv", "up/ConvTranspose"):
        assert constant_of(named(quantised, name).inputs[1]).dtype == np.float32
    assert named(quantised, "wide/Conv").inputs[1].producer().op_type == "DequantizeLinear"
    assert insert_qdq(graph, {}, PrecisionPlan("fp32")).history[-1].changed is False


def test_the_default_plan_keeps_the_last_layer_and_what_the_backend_lacks_in_float() -> None:
    net = Net()
    x = net.up(net.conv(net.image, "down", 3, 8, strides=[2, 2]), "blocks", 8, 8)
    x = net.up(x, "overlapping", 8, 8, (3, 3), strides=[1, 1], pads=[1] * 4)
    graph = net.done(net.conv(net.conv(x, "wide", 8, 8), "last", 8, 4), 4)
    traits = Traits(precisions=("int8",), activations="unsigned", int8_ops=("Conv",))
    plan = int8_plan(graph, traits, keep=[Keep("wide", "fp32", "sensitive")])
    asked = {place(node): plan.precision_of(place(node), node.op_type) for node in graph.ir.graph}
    assert asked == {"down": "int8", "blocks": "int8", "overlapping": "fp32", "wide": "fp32", "last": "fp32"}
    assert all(exception.reason for exception in plan.keep)


def test_the_default_plan_keeps_layers_in_float_whose_values_are_ranked() -> None:
    net = Net()
    shared = net.conv(net.image, "shared", 3, 8)
    best = net.node("ArgMax", [net.node("Sigmoid", [net.conv(shared, "scores", 8, 4)], "s/Sigmoid", 4)], "s/ArgMax", 1, axis=1)
    chosen = net.node("Mul", [net.conv(shared, "values", 8, 8), best], "choice/Mul", 8)
    graph = net.done(net.conv(net.conv(chosen, "wide", 8, 8), "last", 8, 4), 4)
    plan = int8_plan(graph, Traits(precisions=("int8",), int8_ops=("Conv",)))
    asked = {name: plan.precision_of(name, "Conv") for name in ("shared", "scores", "values", "wide", "last")}
    assert asked == {"shared": "int8", "scores": "fp32", "values": "int8", "wide": "int8", "last": "fp32"}


def test_a_tensor_without_a_range_is_an_error() -> None:
    graph = small_unet()
    ranges = ranges_of(graph)
    del ranges["down/Relu/out"]
    with pytest.raises(BuildFailed, match="down/Relu/out"):
        insert_qdq(graph, ranges, ALL)


def test_the_input_graph_is_not_modified_and_twice_is_the_same() -> None:
    graph = small_unet()
    ranges, before = ranges_of(graph), graph.sha256()
    first = insert_qdq(graph, ranges, ALL)
    assert graph.sha256() == before
    assert first.sha256() == insert_qdq(graph, ranges, ALL).sha256()
    again = insert_qdq(first, {}, ALL)
    assert not again.history[-1].changed
    assert kinds(again) == kinds(first)


def test_linear_layers_are_quantised_and_products_of_activations_are_not() -> None:
    net = Net()
    tokens = net.linear(net.image, "linear", 24, 24)
    scores = net.node("MatMul", [tokens, tokens], "attention/MatMul") if net.size[0] == net.size[1] else tokens
    product = net.node(
        "MatMul", [scores, net.node("Transpose", [tokens], "turn/Transpose", perm=[0, 1, 3, 2])], "attention/MatMul_1"
    )
    graph = net.done(product, 3)
    quantised = insert_qdq(graph, {"image": Range(0, 1)}, ALL)
    assert tensors_to_quantise(graph, ALL) == ("image",)
    assert named(quantised, "linear/MatMul").inputs[1].producer().attributes.get_int("axis") == 1
    assert "DequantizeLinear" not in {value.producer().op_type for value in named(quantised, "attention/MatMul_1").inputs}
    assert noise(graph, quantised) < NOISE_LIMIT


def test_zero_is_always_a_level() -> None:
    for low, high in [(-1.0, 3.0), (0.5, 2.0), (-4.0, -1.0), (-1e-3, 1e3)]:
        scale, zero_point = scale_and_zero_point(Range(low, high))
        levels = (np.arange(256) - int(zero_point)) * scale
        assert 0 in levels
        assert levels[0] <= min(low, 0) + scale / 2
        assert levels[-1] >= max(high, 0) - scale / 2


def test_a_channel_of_almost_no_weight_keeps_its_bias() -> None:
    weight = np.array([[[[1e-20]]], [[[0.5]]], [[[0.0]]]], np.float32)
    bias = np.array([0.75, 0.25, 0.0], np.float32)
    scale = weight_scale(weight, 0, bias, input_scale=0.01, levels=127)
    as_integer = bias / (scale * np.float32(0.01))
    assert np.all(np.abs(as_integer) <= 2.0**30 * 1.001)
    assert scale[1] == pytest.approx(0.5 / 127)
    assert scale[2] == 1.0


@pytest.mark.parametrize("backend", ["onnxruntime", "openvino"])
def test_a_runtime_gives_the_bias_of_a_channel_of_almost_no_weight(
    backend: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    module = load_backend(backend)
    if problem := module.probe():
        pytest.skip(problem)
    net = Net()
    x = net.node("Relu", [net.conv(net.image, "first", 3, 8)], "first/Relu", 8)
    for name, content in [("first.weight", 1e-20), ("first.bias", 0.75)]:
        value = net.graph.initializers[name]
        array = value.const_value.numpy().copy()
        array[0] = content
        value.const_value = ir.tensor(array, name=name)
    graph = net.done(net.conv(x, "last", 8, 4), 4)
    plan = int8_plan(graph, module.TRAITS)
    quantised = legalise(insert_qdq(graph, ranges_of(graph), plan), module.TRAITS)
    directory = tmp_path_factory.mktemp("engine")
    module.build(quantised, directory)
    image = images(1, seed=3)[0]
    expected = PlainSession(graph).run({"image": image})["logits"]
    found = module.load(directory, quantised.signature, threads=1).run({"image": image})["logits"]
    assert (found - expected).std() < NOISE_LIMIT * expected.std()


def test_weights_use_the_bits_that_are_asked_for() -> None:
    graph = small_unet()
    for bits, most in ((8, 127), (7, 63)):
        quantised = insert_qdq(graph, ranges_of(graph), ALL, weight_bits=bits)
        contents = [constant_of(node.inputs[0]) for node in quantised.ir.graph if node.op_type == "DequantizeLinear"]
        assert {int(np.abs(each.astype(int)).max()) for each in contents if each is not None} == {most}
        assert noise(graph, quantised) < NOISE_LIMIT * 2 ** (8 - bits)  # a step twice as large


@pytest.mark.parametrize("backend", ["onnxruntime", "openvino"])
def test_sums_of_a_runtime_do_not_overflow_on_this_processor(backend: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    """All weights and all activations at the end of their ranges: where two products are added in 16 bits, half is lost."""
    module = load_backend(backend)
    if problem := module.probe():
        pytest.skip(problem)
    net = Net()
    first = net.conv(net.image, "first", 3, 8)
    for name, content in [("first.weight", 0.1), ("first.bias", 0.0)]:
        value = net.graph.initializers[name]
        value.const_value = ir.tensor(np.full_like(value.const_value.numpy(), content), name=name)
    graph = net.done(net.conv(net.node("Relu", [first], "first/Relu", 8), "last", 8, 4), 4)
    image = np.ones((1, 3, *SIZE), np.float32)
    ranges = extremes(graph, [image])
    expected = PlainSession(graph).run({"image": image})["logits"]

    def error(bits: int) -> float:
        quantised = legalise(insert_qdq(graph, ranges, int8_plan(graph, module.TRAITS), weight_bits=bits), module.TRAITS)
        directory = tmp_path_factory.mktemp("engine")
        module.build(quantised, directory)
        found = module.load(directory, quantised.signature, threads=1).run({"image": image})["logits"]
        return float(np.abs(found - expected).max() / np.abs(expected).max())

    assert error(module.TRAITS.weight_bits) < 0.02  # some steps of 1 / 255 each; half of the sum would be missing
    if module.TRAITS.weight_bits < 8:
        assert error(8) > 0.1


def test_constant_activations_stay_float_also_behind_operators_that_move_or_join_them() -> None:
    """A map of coordinates is a constant of the graph: nothing would be gained, and OpenVINO computed it wrongly in INT8."""
    net = Net()
    places = net.weight("places", 1, *SIZE)
    moved = net.node("Unsqueeze", [places, constant(net.graph, "axes", np.array([0], np.int64))], "coords/Unsqueeze", 1)
    joined = net.node("Concat", [moved, moved], "joined/Concat", 2, axis=1)  # exporters fold no large constants
    where = net.node("Add", [net.conv(moved, "coords", 1, 4), net.conv(joined, "joined", 2, 4)], "where/Add", 4)
    logits = net.node("Add", [net.conv(net.image, "stem", 3, 4), where], "add/Add", 4)
    graph = net.done(net.conv(net.node("Relu", [logits], "add/Relu", 4), "last", 4, 3), 3)
    quantised = insert_qdq(graph, ranges_of(graph), ALL)
    asked = quantised.asked()
    assert asked["coords/Conv"] == asked["joined/Conv"] == "fp32"
    assert asked["stem/Conv"] == asked["last/Conv"] == "int8"
