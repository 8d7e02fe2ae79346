"""The decision inside the graph is the decision outside it."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest

from segship.backends import load_backend
from segship.core.backend import Session
from segship.core.errors import BuildFailed
from segship.core.graph import Graph
from segship.core.spec import SemanticDecode, Size
from segship.graph.labels import label_map
from segship.graph.passes.legalise import legalise
from segship.tasks import semantic
from unit.graph.networks import SIZE, PlainSession, as_graph, images, kinds, small_unet

IMAGE = (37, 31)
ROUNDING = 1e-4
"""Bilinear weights in another order differ by 1e-6 here; where two logits are closer, either label is right."""


def logits_graph(classes: int, size: Size | None, decode: SemanticDecode) -> Graph:
    """A graph that gives its input back as logits."""
    sides = size or ("height", "width")
    value = ir.Value(name="image", shape=ir.Shape(["batch", classes, *sides]), type=ir.TensorType(ir.DataType.FLOAT))
    node = ir.node("Identity", [value])
    node.outputs[0].name, node.outputs[0].shape, node.outputs[0].type = "logits", value.shape, value.type
    model = ir.Model(ir.Graph([value], [node.outputs[0]], nodes=[node], opset_imports={"": 20}, name="logits"), ir_version=10)
    return as_graph(model, size, classes, decode)


def feed(graph: Graph, logits: np.ndarray, image_size: Size) -> np.ndarray:
    import onnxruntime

    session = onnxruntime.InferenceSession(graph.to_bytes(), providers=["CPUExecutionProvider"])
    feeds = {"image": logits}
    if len(graph.signature.inputs) > 1:
        feeds["image_size"] = np.array(image_size, np.int64)
    (labels,) = session.run(None, feeds)
    return labels


def agree(found: np.ndarray, logits: np.ndarray, decode: SemanticDecode, input_size: Size, image_size: Size) -> None:
    """Equal to the task's own decoding wherever the two best classes differ by more than rounding."""
    resized = logits
    for step in decode.resize_to:
        resized = semantic.resize_logits(resized, input_size if step == "input" else image_size)
    expected = semantic.decide(resized, decode.threshold)
    if len(logits) == 1:
        margin = np.abs(resized[0] - (0 if decode.threshold is None else np.log(decode.threshold / (1 - decode.threshold))))
    else:
        best = np.sort(resized, axis=0)
        margin = best[-1] - best[-2]
    assert found.shape == expected.shape
    assert np.array_equal(found[margin > ROUNDING], expected[margin > ROUNDING])
    assert np.mean(margin > ROUNDING) > 0.99


@pytest.mark.parametrize("classes", [1, 2, 5])
@pytest.mark.parametrize("fixed", [True, False], ids=["fixed", "free"])
@pytest.mark.parametrize("steps", [("image",), ("input", "image")], ids=["once", "twice"])
def test_labels_are_those_of_the_task(classes: int, fixed: bool, steps: tuple, rng: np.random.Generator) -> None:
    decode = SemanticDecode(resize_to=steps, threshold=0.3 if classes == 1 else None)
    graph = label_map(logits_graph(classes, SIZE if fixed else None, decode), IMAGE if fixed else None)
    logits = rng.standard_normal((2, classes, *SIZE), dtype=np.float32)
    found = feed(graph, logits, IMAGE)
    assert found.dtype == np.uint8
    for each, one in zip(found, logits, strict=True):
        agree(each, one, decode, SIZE, IMAGE)


def test_a_wrong_resize_order_would_be_seen(rng: np.random.Generator) -> None:
    decode = SemanticDecode(resize_to=("image",))
    graph = label_map(logits_graph(5, SIZE, decode), IMAGE)
    logits = rng.standard_normal((1, 5, *SIZE), dtype=np.float32)
    with pytest.raises(AssertionError):
        agree(feed(graph, logits, IMAGE)[0], logits[0], SemanticDecode(resize_to=("input", "image")), (9, 7), IMAGE)


@pytest.mark.parametrize(("classes", "kind"), [(255, np.uint8), (256, np.uint16)])
def test_the_label_type_holds_every_class_and_leaves_255_free(classes: int, kind: type) -> None:
    graph = label_map(logits_graph(classes, SIZE, SemanticDecode(resize_to=())), SIZE)
    logits = np.zeros((1, classes, *SIZE), np.float32)
    logits[:, -1] = 1
    labels = feed(graph, logits, SIZE)
    assert labels.dtype == kind == np.dtype(graph.signature.outputs[0].dtype)
    assert np.all(labels == classes - 1)


def test_the_lowest_class_wins_a_tie() -> None:
    for classes in (2, 4):
        graph = label_map(logits_graph(classes, SIZE, SemanticDecode(resize_to=())), SIZE)
        logits = np.ones((1, classes, *SIZE), np.float32)
        assert np.all(feed(graph, logits, SIZE) == 0)


@pytest.mark.parametrize("backend", ["onnxruntime", "openvino"])
@pytest.mark.parametrize("classes", [1, 2, 7])
def test_every_backend_decides_alike_at_ties(backend: str, classes: int, tmp_path_factory: pytest.TempPathFactory) -> None:
    module = load_backend(backend)
    if problem := module.probe():
        pytest.skip(problem)
    graph = small_unet(classes)
    for name, value in graph.ir.graph.initializers.items():
        if name.startswith("last."):
            value.const_value = ir.tensor(np.zeros_like(value.const_value.numpy()), name=name)
    graph = legalise(label_map(graph, SIZE), module.TRAITS)
    directory = tmp_path_factory.mktemp("ties")
    module.build(graph, directory)
    session: Session = module.load(directory, graph.signature, threads=1)
    assert np.all(session.run({"image": images(1)[0]})["labels"] == 0)


def test_no_resize_where_sizes_are_equal() -> None:
    assert "Resize" not in kinds(label_map(small_unet(), SIZE))
    assert kinds(label_map(small_unet(), (17, 24))).count("Resize") == 1
    twice = small_unet(decode=SemanticDecode(resize_to=("input", "image")))
    assert "Resize" not in kinds(label_map(twice, SIZE))
    assert kinds(label_map(twice, (17, 24))).count("Resize") == 1


def test_signature_says_what_the_graph_takes_and_gives() -> None:
    fixed, free = label_map(small_unet(), IMAGE), label_map(small_unet(size=None), None)
    assert [spec.name for spec in fixed.signature.inputs] == ["image"]
    assert fixed.signature.outputs[0].shape == ("batch", *IMAGE)
    assert (
        [spec.name for spec in free.signature.inputs] == ["image", "image_size"] == [value.name for value in free.ir.graph.inputs]
    )
    assert free.signature.output == fixed.signature.output == "labels"
    assert fixed.history[-1].changed


def test_the_input_graph_is_not_modified() -> None:
    graph = small_unet()
    before = graph.sha256()
    label_map(graph, IMAGE)
    assert graph.sha256() == before


def test_a_label_map_of_a_label_map_is_refused() -> None:
    with pytest.raises(BuildFailed, match="labels"):
        label_map(label_map(small_unet(), SIZE), SIZE)


def test_labels_of_a_network_are_its_logits_decided() -> None:
    graph = small_unet()
    image = images(1)[0]
    logits = PlainSession(graph).run({"image": image})["logits"]
    labels = PlainSession(label_map(graph, SIZE)).run({"image": image})["labels"]
    assert np.array_equal(labels[0], np.argmax(logits[0], axis=0))
