"""Tiny graphs, built node by node, for the tests of passes and calibration."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

from segship.core.backend import Feeds, check_feeds
from segship.core.graph import Graph
from segship.core.spec import (
    CheckpointRef,
    ImageInput,
    KeepSize,
    ModelSpec,
    Normalise,
    SemanticDecode,
    Signature,
    Size,
    TensorSpec,
)
from segship.graph.passes.edit import constant, new_node

SIZE = (16, 24)


class Net:
    """A graph in the making; every method appends one node and gives its output."""

    def __init__(self, size: Size | None = SIZE) -> None:
        self.size = size
        self.rng = np.random.default_rng(0)
        sides = size or ("height", "width")
        self.image = ir.Value(name="image", shape=ir.Shape(["batch", 3, *sides]), type=ir.TensorType(ir.DataType.FLOAT))
        self.graph = ir.Graph([self.image], [], nodes=[], opset_imports={"": 20}, name="tiny")

    def node(
        self, kind: str, inputs: Sequence[ir.Value | None], name: str, channels: int | None = None, **attributes: object
    ) -> ir.Value:
        shape = ["batch", channels, None, None] if channels else None
        node = new_node(
            kind, inputs, name, dtype=ir.DataType.FLOAT, shape=shape, attributes=attributes, path=name.rpartition("/")[0]
        )
        self.graph.append(node)
        return node.outputs[0]

    def weight(self, name: str, *shape: int) -> ir.Value:
        fan_in = max(1, int(np.prod(shape[1:])))
        return constant(self.graph, name, (self.rng.standard_normal(shape) / np.sqrt(fan_in)).astype(np.float32))

    def conv(self, x: ir.Value, path: str, c_in: int, c_out: int, side: int = 3, **attributes: object) -> ir.Value:
        inputs = [x, self.weight(f"{path}.weight", c_out, c_in, side, side), self.weight(f"{path}.bias", c_out)]
        return self.node("Conv", inputs, f"{path}/Conv", c_out, pads=[side // 2] * 4, **attributes)

    def up(self, x: ir.Value, path: str, c_in: int, c_out: int, kernel: Size = (2, 2), **attributes: object) -> ir.Value:
        inputs = [x, self.weight(f"{path}.weight", c_in, c_out, *kernel), self.weight(f"{path}.bias", c_out)]
        attributes.setdefault("strides", [2, 2])
        return self.node("ConvTranspose", inputs, f"{path}/ConvTranspose", c_out, **attributes)

    def linear(self, x: ir.Value, path: str, c_in: int, c_out: int) -> ir.Value:
        product = self.node("MatMul", [x, self.weight(f"{path}.weight", c_in, c_out)], f"{path}/MatMul")
        return self.node("Add", [product, self.weight(f"{path}.bias", c_out)], f"{path}/Add")

    def done(self, logits: ir.Value, classes: int, decode: SemanticDecode | None = None) -> Graph:
        logits.name = "logits"
        logits.shape = ir.Shape(["batch", classes, *(self.size or ("height", "width"))])
        self.graph.outputs.append(logits)
        return as_graph(ir.Model(self.graph, ir_version=10), self.size, classes, decode)


def as_graph(model: ir.Model, size: Size | None, classes: int, decode: SemanticDecode | None = None) -> Graph:
    """An ONNX model in the product's own value, with a specification that says little."""
    spec = ModelSpec(
        family="tiny",
        variant="tiny network",
        task="semantic",
        hyperparameters={},
        image=ImageInput(channels="rgb", resize=KeepSize(), normalise=Normalise(1 / 255), exif_orientation=False),
        outputs=(TensorSpec("logits", "float32", ("batch", classes, "height", "width")),),
        decode=decode or SemanticDecode(resize_to=("image",)),
        slide=None,
        classes=tuple(f"class {index}" for index in range(classes)),
        checkpoint=CheckpointRef("tiny.pth", "0" * 64, "tiny"),
        assumed=(),
    )
    sides = size or ("height", "width")
    signature = Signature(
        inputs=(TensorSpec("image", "float32", ("batch", 3, *sides)),),
        outputs=spec.outputs,
        output="logits",
        input_size=size,
        image_size=None,
    )
    return Graph(model, spec, signature)


def small_unet(classes: int = 4, size: Size | None = SIZE, decode: SemanticDecode | None = None) -> Graph:
    """Conv, ReLU, MaxPool, ConvTranspose, Concat, and a last convolution: every feature of a UNet once."""
    net = Net(size)
    skip = net.node("Relu", [net.conv(net.image, "down", 3, 8)], "down/Relu", 8)
    pooled = net.node("MaxPool", [skip], "pool/MaxPool", 8, kernel_shape=[2, 2], strides=[2, 2])
    deep = net.node("Relu", [net.conv(pooled, "deep", 8, 16)], "deep/Relu", 16)
    joined = net.node("Concat", [skip, net.up(deep, "up", 16, 8)], "join/Concat", 16, axis=1)
    wide = net.node("Relu", [net.conv(joined, "wide", 16, 8)], "wide/Relu", 8)
    return net.done(net.conv(wide, "last", 8, classes, side=1), classes, decode)


def images(count: int, size: Size = SIZE, seed: int = 0) -> list[np.ndarray]:
    """Network inputs (1, 3, height, width), values 0 to 1."""
    rng = np.random.default_rng(seed)
    return [rng.random((1, 3, *size), dtype=np.float32) for _ in range(count)]


class PlainSession:
    """ONNX Runtime without any optimisation: what the graph itself says, node by node."""

    def __init__(self, graph: Graph) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
        options.intra_op_num_threads = 1
        self._session = onnxruntime.InferenceSession(graph.to_bytes(), options, providers=["CPUExecutionProvider"])
        self.inputs, self.outputs = graph.signature.inputs, graph.signature.outputs

    def run(self, feeds: Feeds) -> dict[str, np.ndarray]:
        check_feeds(self.inputs, feeds)
        names = [output.name for output in self.outputs]
        return dict(zip(names, self._session.run(names, dict(feeds)), strict=True))

    def close(self) -> None:
        del self._session


def kinds(graph: Graph) -> list[str]:
    """Operator types of all nodes, in order."""
    return [node.op_type for node in graph.ir.graph]


def named(graph: Graph, name: str) -> ir.Node:
    """The node called ``name``."""
    return next(node for node in graph.ir.graph if node.name == name)
