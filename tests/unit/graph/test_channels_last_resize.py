"""A resize of tokens, and what follows it, works channels last with the same numbers."""

from __future__ import annotations

import msgspec
import numpy as np
import onnx_ir as ir
import pytest

from segship.backends import load_backend
from segship.core.backend import Traits
from segship.core.graph import Graph
from segship.core.precision import PrecisionPlan
from segship.core.spec import Size
from segship.graph.labels import label_map
from segship.graph.passes.insert_qdq import insert_qdq
from segship.graph.passes.legalise import legalise
from segship.graph.recipe import optimise
from unit.graph.demo_networks import demo_graph, scene_inputs
from unit.graph.networks import SIZE, Net, PlainSession, images, kinds, small_unet
from unit.graph.test_insert_qdq import ranges_of

ROUNDING = 1e-6
"""Of the largest logit: a 1x1 convolution and a product of matrices add up in different orders."""


ONNXRUNTIME = load_backend("onnxruntime").TRAITS


def traits(*, wanted: bool) -> Traits:
    return Traits(precisions=("fp32",), channels_last_resize=wanted)


def head(size: Size | None = SIZE, classes: int = 4) -> Graph:
    """Channels-last maps, one of them doubled, summed, ReLU, 1x1 convolution."""
    net = Net(size)
    parts = []
    for name, stride in (("coarse", 2), ("fine", 1)):
        sides = f"{name}_height", f"{name}_width"
        x = net.conv(net.image, name, 3, 8, strides=[stride, stride])
        x = maps(net.node("Transpose", [x], f"{name}/last", perm=[0, 2, 3, 1]), *sides, 8)
        parts.append(maps(net.node("Transpose", [x], f"{name}/first", perm=[0, 3, 1, 2]), 8, *sides))
    sizes = net.node("Shape", [parts[1]], "fine/Shape")
    sizes.dtype = ir.DataType.INT64
    how = {"mode": "linear", "coordinate_transformation_mode": "half_pixel"}
    resized = maps(net.node("Resize", [parts[0], None, None, sizes], "up/Resize", **how), 8, "fine_height", "fine_width")
    total = maps(net.node("Add", [resized, parts[1]], "sum/Add"), 8, "fine_height", "fine_width")
    x = maps(net.node("Relu", [total], "relu/Relu"), 8, "fine_height", "fine_width")
    return net.done(net.conv(x, "predict", 8, classes, side=1), classes)


def maps(value: ir.Value, *sides: int | str) -> ir.Value:
    value.shape = ir.Shape(["batch", *sides])
    return value


@pytest.mark.parametrize("size", [SIZE, None], ids=["fixed", "free"])
def test_the_numbers_are_the_same_for_any_batch(size: Size | None) -> None:
    graph = head(size)
    ready = legalise(graph, traits(wanted=True))
    assert ready.history[-1].options["resized_channels_last"] == "1"
    for image in (images(1)[0], np.concatenate(images(3))):
        expected, found = (PlainSession(each).run({"image": image})["logits"] for each in (graph, ready))
        assert found.shape == expected.shape
        assert np.abs(found - expected).max() <= ROUNDING * np.abs(expected).max()


def test_only_the_result_is_transposed_and_the_convolution_is_a_product() -> None:
    order = kinds(legalise(head(), traits(wanted=True)))
    assert order[-3:] == ["MatMul", "Add", "Transpose"]
    assert order.count("Transpose") == 3  # two to channels last, which the network itself has, and the result's
    assert order.count("Conv") == 2


def test_an_int8_convolution_becomes_an_int8_product_with_a_float_result() -> None:
    graph = head()
    plan = PrecisionPlan("int8")
    quantised = insert_qdq(graph, ranges_of(graph, plan), plan)
    ready = legalise(quantised, msgspec.structs.replace(ONNXRUNTIME, integers_channels_last=False))
    order = kinds(ready)
    assert order[-5:] == ["DequantizeLinear", "DequantizeLinear", "MatMul", "Add", "Transpose"]
    assert ready.asked()["predict/Conv"] == "int8"
    image = images(1)[0]
    expected, found = (PlainSession(each).run({"image": image})["logits"] for each in (quantised, ready))
    # the quantised graph rounds its result to 255 steps (the last convolution's pair), the other one does not
    step = (expected.max() - expected.min()) / 255
    assert np.abs(found - expected).max() < step
    assert len(np.unique(found)) > 256


def test_it_is_done_for_backends_that_want_it_where_tokens_are_resized_and_once() -> None:
    assert not legalise(head(), traits(wanted=False)).history[-1].changed
    assert not legalise(label_map(small_unet(), SIZE), traits(wanted=True)).history[-1].changed
    ready = legalise(head(), traits(wanted=True))
    assert not legalise(ready, traits(wanted=True)).history[-1].changed


def test_segformer_resizes_nothing_by_planes_and_gives_the_same_labels() -> None:
    graph = optimise(label_map(demo_graph("scenes-segformer"), (64, 64)))
    ready = legalise(graph, load_backend("onnxruntime").TRAITS)
    assert int(ready.history[-1].options["resized_channels_last"]) == kinds(graph).count("Resize")
    for image in scene_inputs(graph, 2):
        expected, found = (PlainSession(each).run({"image": image})["labels"] for each in (graph, ready))
        assert (found == expected).mean() > 0.999  # rounding may turn a tie
