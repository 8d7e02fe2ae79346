"""Half precision is written where the plan says, with exact types, few casts, and numbers that fit."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest

from segship.core.backend import Traits
from segship.core.errors import BuildFailed
from segship.core.graph import Graph
from segship.core.precision import Keep, PrecisionPlan
from segship.graph.histogram import Range
from segship.graph.passes.edit import constant, constant_of
from segship.graph.passes.insert_qdq import tensors_to_quantise
from segship.graph.passes.to_half import to_half
from segship.graph.recipe import legalised, written
from unit.graph.networks import Net, PlainSession, images, kinds, named, small_unet
from unit.graph.typed import NumpySession, RoundedSession, check_types, extremes

FP16, BF16, MIXED = PrecisionPlan("fp16"), PrecisionPlan("bf16"), PrecisionPlan("int8", rest="fp16")
TENSORRT = Traits(
    precisions=("fp32", "fp16", "int8"), activations="symmetric", int8_ops=("Conv", "ConvTranspose", "MatMul", "Gemm")
)


def casts(graph: Graph) -> list[str]:
    return [node.inputs[0].name for node in graph.ir.graph if node.op_type == "Cast"]


def dtype(graph: Graph, name: str) -> str:
    """Type of the first result of the node called ``name``."""
    return named(graph, name).outputs[0].dtype.numpy().name


def error(session: type, graph: Graph, half: Graph) -> float:
    """Largest difference of the logits to FP32, in their standard deviations."""
    image = {"image": images(1, seed=3)[0]}
    expected, found = PlainSession(graph).run(image)["logits"], session(half).run(image)["logits"]
    return float(np.abs(found - expected).max() / expected.std())


# float16 rounds to 2**-11, bfloat16 to 2**-8: through the five layers of the network a few times that; a wrong weight adds 0.1
@pytest.mark.parametrize(("plan", "limit"), [(FP16, 0.01), (BF16, 0.08)])
def test_types_are_exact_numbers_close_and_casts_only_at_the_ends(plan: PrecisionPlan, limit: float) -> None:
    graph = small_unet()
    half = to_half(graph, plan)
    check_types(half)
    assert kinds(half) == ["Cast", *kinds(graph), "Cast"]
    assert half.plan == plan
    assert 0 < error(RoundedSession, graph, half) < limit
    assert 0 < error(NumpySession, graph, half) < limit


def test_float16_graphs_open_in_onnx_runtime_and_weigh_half() -> None:
    graph = small_unet()
    half = to_half(graph, FP16)
    assert error(PlainSession, graph, half) < 0.01  # as above
    weights = [value.const_value for value in half.ir.graph.initializers.values()]
    assert {weight.dtype for weight in weights} == {ir.DataType.FLOAT16}
    assert half.asked() == dict.fromkeys(graph.asked(), "fp16")


def test_bfloat16_needs_opset_22_and_leaves_what_would_change_its_meaning_there() -> None:
    assert to_half(small_unet(), BF16).ir.graph.opset_imports[""] == 22
    assert to_half(small_unet(), FP16).ir.graph.opset_imports[""] == 20
    net = Net()
    parameters = [net.weight(f"norm.{name}", 2) for name in ("weight", "bias")]
    grouped = net.node("GroupNormalization", [net.conv(net.image, "a", 3, 8), *parameters], "norm/GroupNorm", 8, num_groups=2)
    half = to_half(net.done(grouped, 8), BF16)
    assert half.ir.graph.opset_imports[""] == 20
    assert dtype(half, "a/Conv") == "float32"
    assert "1 Conv: has no bfloat16 at opset 20" in half.history[-1].options["kept_in_float32"]


def test_an_exception_is_obeyed_with_one_cast_on_each_side_and_moving_nodes_follow() -> None:
    graph = small_unet()
    half = to_half(graph, PrecisionPlan("fp16", (Keep("deep*", "fp32", "a test"),)))
    check_types(half)
    assert casts(half) == ["image", "pool/MaxPool/out", "deep/Relu/out", "logits/float16"]
    assert (dtype(half, "deep/Conv"), dtype(half, "deep/Relu"), dtype(half, "pool/MaxPool")) == ("float32", "float32", "float16")
    around = to_half(graph, PrecisionPlan("fp16", tuple(Keep(f"{path}*", "fp32", "a test") for path in ("down", "deep"))))
    check_types(around)
    assert dtype(around, "pool/MaxPool") == "float32"  # between two float32 layers it would only round
    only = to_half(graph, PrecisionPlan("fp32", (Keep("wide*", "fp16", "a test"),)))
    check_types(only)
    assert casts(only) == ["join/Concat/out", "wide/Relu/out"]
    asked = to_half(graph, PrecisionPlan("fp16", (Keep("op:Concat", "fp32", "a test"),)))
    assert dtype(asked, "join/Concat") == "float32"


def boxes_net() -> Graph:
    """A head whose boxes are decoded, ranked, and read from the features again, as in two-stage detectors."""
    net = Net()
    features = net.node("Relu", [net.conv(net.image, "body", 3, 8)], "body/Relu", 8)
    deltas = net.conv(features, "head", 8, 4)
    size = net.node("Cast", [net.node("Shape", [features], "decode/Shape")], "decode/Cast", to=1)
    net.graph[-2].outputs[0].type = ir.TensorType(ir.DataType.INT64)
    scaled = net.node(
        "Mul", [net.node("Exp", [deltas], "decode/Exp", 4), constant(net.graph, "stride", np.float32(16))], "decode/Mul", 4
    )
    ranked = net.node("ReduceMax", [net.node("Sigmoid", [deltas], "score/Sigmoid", 4)], "score/ReduceMax", keepdims=0)
    grid = net.node(
        "Transpose", [net.node("Slice", [scaled, *slices(net)], "decode/Slice", 2)], "grid/Transpose", perm=[0, 2, 3, 1]
    )
    grid = net.node(
        "Div", [net.node("Add", [grid, ranked], "grid/Add"), net.node("ReduceMax", [size], "grid/ReduceMax")], "grid/Div"
    )
    sampled = net.node("GridSample", [features, grid], "sample/GridSample", 8)
    scales = net.node("Div", [size, size], "again/Div")
    return net.done(net.node("Resize", [net.conv(sampled, "last", 8, 4), None, scales], "again/Resize", 4), 4)


def slices(net: Net) -> list[ir.Value]:
    return [constant(net.graph, f"slice{index}", np.array([value], np.int64)) for index, value in enumerate([0, 2, 1])]


def test_coordinates_and_ranked_scores_stay_float32_and_features_do_not() -> None:
    graph = boxes_net()
    half = to_half(graph, FP16)
    check_types(half)
    for name in ("decode/Exp", "decode/Mul", "score/Sigmoid", "grid/Transpose", "grid/Div", "again/Div", "decode/Cast"):
        assert dtype(half, name) == "float32", name
    for name in ("body/Conv", "head/Conv", "sample/GridSample", "last/Conv", "again/Resize"):
        assert dtype(half, name) == "float16", name
    assert casts(half).count("head/Conv/out") == 1
    assert "coordinates" in half.history[-1].options["kept_in_float32"]


def test_scores_that_are_smoothed_before_they_are_ranked_stay_float32() -> None:
    net = Net()
    features = net.conv(net.image, "body", 3, 4)
    scores = net.node("Sigmoid", [features], "score/Sigmoid", 4)
    smooth = net.node("AveragePool", [scores], "score/AveragePool", 4, kernel_shape=[3, 3], pads=[1] * 4)
    ranked = ir.node("TopK", [smooth, constant(net.graph, "k", np.array([8], np.int64))], {"axis": 3}, num_outputs=2, name="TopK")
    ranked.outputs[0].type, ranked.outputs[1].type = ir.TensorType(ir.DataType.FLOAT), ir.TensorType(ir.DataType.INT64)
    ranked.outputs[0].name, ranked.outputs[1].name = "best", "index"
    net.graph.append(ranked)
    picked = net.node("GatherElements", [features, ranked.outputs[1]], "pick/GatherElements", axis=3)
    half = to_half(net.done(picked, 4), FP16)
    kinds_of = [dtype(half, name) for name in ("score/Sigmoid", "score/AveragePool", "TopK", "pick/GatherElements")]
    assert kinds_of == ["float32", "float32", "float32", "float16"]


def with_constant(kind: str, content: np.ndarray) -> Graph:
    net = Net()
    x = net.node(kind, [net.conv(net.image, "a", 3, 4), constant(net.graph, "c", content)], f"odd/{kind}", 4)
    return net.done(net.conv(x, "last", 4, 4), 4)


@pytest.mark.parametrize(
    ("kind", "content", "reason"),
    [
        ("Mul", np.float32(1e20), "ends at 65504"),
        ("Add", np.float32(7e4), "ends at 65504"),
        ("Add", np.float32(1e-12), "lose"),
        ("Mul", np.full((4, 1, 1), 3e-8, np.float32), "lose"),
    ],
)
def test_a_node_whose_constant_does_not_fit_stays_float32_with_the_reason(kind: str, content: np.ndarray, reason: str) -> None:
    half = to_half(with_constant(kind, content), FP16)
    check_types(half)
    assert (dtype(half, f"odd/{kind}"), dtype(half, "a/Conv")) == ("float32", "float16")
    assert reason in half.history[-1].options["kept_in_float32"]
    assert dtype(to_half(with_constant(kind, content), BF16), f"odd/{kind}") == "bfloat16"


@pytest.mark.parametrize(("kind", "limit"), [("Add", 32752.0), ("Max", 65504.0)])
def test_a_mask_of_minus_a_billion_becomes_the_largest_that_the_operator_bears(kind: str, limit: float) -> None:
    half = to_half(with_constant(kind, np.array([0.0, -1e9, -np.inf, 3.4e38], np.float32).reshape(4, 1, 1)), FP16)
    check_types(half)
    assert constant_of(named(half, f"odd/{kind}").inputs[1]).ravel().tolist() == [0.0, -limit, -np.inf, limit]
    assert half.history[-1].options["clamped"] == f"c of odd/{kind}"


def test_a_few_subnormal_weights_among_large_ones_are_no_reason() -> None:
    content = np.array([1.0, 0.5, 1e-9, 0.0], np.float32).reshape(4, 1, 1)
    assert dtype(to_half(with_constant("Mul", content), FP16), "odd/Mul") == "float16"


@pytest.mark.parametrize("rest", ["fp16", "bf16"])
def test_mixed_with_int8_dequantises_straight_to_half(rest: str) -> None:
    graph, plan = small_unet(), PrecisionPlan("int8", rest=rest)
    mixed = written(graph, plan, extremes(graph, tensors_to_quantise(graph, plan), images(4, seed=1)))
    check_types(mixed)
    assert casts(mixed) == [f"logits/{'float16' if rest == 'fp16' else 'bfloat16'}"]
    assert [record.name for record in mixed.history[-2:]] == ["insert_qdq", "to_half"]
    assert set(mixed.asked().values()) == {"int8"}
    assert (
        error(RoundedSession, graph, mixed) < 0.25
    )  # 8 bits: 0.01 to 0.02 in standard deviation, bfloat16 as much; at worst ten times that
    for traits in (
        TENSORRT,
        Traits(precisions=("int8",), activations="unsigned", int8_ops=("Conv",), quantised_conv_output=True),
    ):
        ready = legalised(mixed, traits)
        check_types(ready)
        assert error(RoundedSession, graph, ready) < 0.25  # as above


def test_both_sides_of_a_pair_have_one_scale_and_weights_fit_theirs() -> None:
    graph = small_unet()
    mixed = written(graph, MIXED, extremes(graph, tensors_to_quantise(graph, MIXED), images(4, seed=1)))
    down, up = named(mixed, "image/quantised"), named(mixed, "image/dequantised")
    scales = [constant_of(node.inputs[1]) for node in (down, up)]
    assert [scale.dtype for scale in scales] == [np.float32, np.float16]
    assert float(scales[0]) == float(scales[1])
    weight = named(mixed, "deep/Conv").inputs[1].producer()
    content, scale = constant_of(weight.inputs[0]), constant_of(weight.inputs[1]).astype(np.float32)
    original = constant_of(named(graph, "deep/Conv").inputs[1])
    assert (
        np.abs(content * scale.reshape(-1, 1, 1, 1) - original).max() <= scale.max() / 2 * 1.1
    )  # half a step, and the scale's rounding


def test_a_scale_that_half_cannot_hold_keeps_its_reader_float32() -> None:
    graph = small_unet()
    ranges = extremes(graph, tensors_to_quantise(graph, MIXED), images(4, seed=1))
    mixed = written(graph, MIXED, ranges | {"deep/Relu/out": Range(0.0, 1e-5)})
    check_types(mixed)
    assert (dtype(mixed, "up/ConvTranspose"), dtype(mixed, "deep/Conv")) == ("float32", "float16")
    assert "scale" in mixed.history[-1].options["kept_in_float32"]


def test_a_channel_of_almost_no_weight_keeps_a_scale_above_zero() -> None:
    graph = small_unet()
    value = graph.ir.graph.initializers["wide.weight"]
    content = value.const_value.numpy().copy()
    content[0] = 1e-12
    value.const_value = ir.tensor(content, name=value.name)
    mixed = written(graph, MIXED, extremes(graph, tensors_to_quantise(graph, MIXED), images(4, seed=1)))
    scale = constant_of(named(mixed, "wide/Conv").inputs[1].producer().inputs[1])
    assert scale.dtype == np.float16
    assert (scale > 0).all()


def test_a_float32_plan_changes_nothing_and_half_twice_is_refused() -> None:
    graph = small_unet()
    before = graph.sha256()
    half = to_half(graph, FP16)
    assert graph.sha256() == before
    assert half.sha256() == to_half(graph, FP16).sha256()
    assert not to_half(graph, PrecisionPlan("fp32")).history[-1].changed
    with pytest.raises(BuildFailed, match="float32 graph"):
        to_half(half, FP16)
