"""What is done on ONNX Runtime's own file changes no bit, and is left where it would."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import onnxruntime
import pytest

from segship.backends.onnxruntime_fusions import fuse

ROWS, C_IN, C_OUT = 5, 6, 7
RNG = np.random.default_rng(0)
CONSTANTS = {
    "weight": RNG.integers(-127, 128, (C_IN, C_OUT)).astype(np.int8),
    "scale": np.array(0.02, np.float32),
    "other_scale": np.array(0.03, np.float32),
    "weight_scale": RNG.random(C_OUT).astype(np.float32),
    "zero": np.array(128, np.uint8),
    "weight_zero": np.zeros(C_OUT, np.int8),
    "bias": RNG.standard_normal(C_OUT).astype(np.float32),
    "one": np.array([0.5], np.float32),
    "table": RNG.standard_normal((ROWS, C_OUT)).astype(np.float32),
}
PRODUCT = ("MatMulIntegerToFloat", ["q", "weight", "scale", "weight_scale", "zero", "weight_zero"], "product")
QUANTISE = ("QuantizeLinear", ["x", "scale", "zero"], "q")

Step = tuple[str, list[str], str]


def optimised(*steps: Step) -> ir.Model:
    """What ONNX Runtime might have written: the steps, the last one's result the output."""
    values = {name: ir.Value(name=name, const_value=ir.tensor(content, name=name)) for name, content in CONSTANTS.items()}
    values["x"] = ir.Value(name="x", shape=ir.Shape([ROWS, C_IN]), type=ir.TensorType(ir.DataType.FLOAT))
    nodes = []
    for kind, inputs, output in steps:
        domain = "com.microsoft" if kind.startswith("MatMul") else ""
        node = ir.node(kind, [values[name] for name in inputs], name=output, domain=domain)
        values[output] = node.outputs[0]
        node.outputs[0].name = output
        node.outputs[0].type = ir.TensorType(ir.DataType.UINT8 if kind == "QuantizeLinear" else ir.DataType.FLOAT)
        nodes.append(node)
    used = {name for _, inputs, _ in steps for name in inputs}
    constants = [values[name] for name in CONSTANTS if name in used]
    graph = ir.Graph(
        [values["x"]], [values[steps[-1][2]]], nodes=nodes, initializers=constants, opset_imports={"": 20, "com.microsoft": 1}
    )
    return ir.Model(graph, ir_version=10)


def run(model: ir.Model) -> np.ndarray:
    session = onnxruntime.InferenceSession(ir.to_proto(model).SerializeToString(), providers=["CPUExecutionProvider"])
    x = np.random.default_rng(1).standard_normal((ROWS, C_IN)).astype(np.float32)
    (found,) = session.run(None, {"x": x})
    return np.asarray(found)


@pytest.mark.parametrize("inputs", [["product", "bias"], ["bias", "product"]])
def test_a_bias_goes_into_the_product(inputs: list[str]) -> None:
    model = optimised(QUANTISE, PRODUCT, ("Add", inputs, "y"))
    expected = run(model)
    fuse(model.graph)
    assert [node.op_type for node in model.graph] == ["QuantizeLinear", "MatMulIntegerToFloat"]
    assert model.graph.outputs[0].name == "y"
    assert np.allclose(run(model), expected, rtol=1e-6, atol=1e-6)  # multiplied and added in one rounding instead of two


@pytest.mark.parametrize(
    "rest",
    [
        [("Add", ["product", "table"], "y")],
        [("Add", ["product", "one"], "y")],
        [("Add", ["product", "bias"], "sum"), ("Mul", ["sum", "product"], "y")],
    ],
    ids=["a table", "one number for all columns", "product read twice"],
)
def test_other_sums_stay(rest: list[Step]) -> None:
    model = optimised(QUANTISE, PRODUCT, *rest)
    expected = run(model)
    fuse(model.graph)
    assert "Add" in [node.op_type for node in model.graph]
    assert np.array_equal(run(model), expected)


def test_a_second_bias_stays_a_sum() -> None:
    model = optimised(QUANTISE, PRODUCT, ("Add", ["product", "bias"], "sum"), ("Add", ["sum", "bias"], "y"))
    expected = run(model)
    fuse(model.graph)
    assert [node.op_type for node in model.graph].count("Add") == 1
    assert np.allclose(run(model), expected, rtol=1e-6, atol=1e-6)  # as above


def test_quantising_again_as_before_goes() -> None:
    there_and_back = [
        ("DequantizeLinear", ["q", "scale", "zero"], "back"),
        ("QuantizeLinear", ["back", "scale", "zero"], "again"),
    ]
    model = optimised(QUANTISE, *there_and_back, ("DequantizeLinear", ["again", "scale", "zero"], "y"))
    expected = run(model)
    fuse(model.graph)
    assert [node.op_type for node in model.graph] == ["QuantizeLinear", "DequantizeLinear"]
    assert np.array_equal(run(model), expected)


def test_quantising_again_by_another_scale_stays() -> None:
    there_and_back = [
        ("DequantizeLinear", ["q", "scale", "zero"], "back"),
        ("QuantizeLinear", ["back", "other_scale", "zero"], "again"),
    ]
    model = optimised(QUANTISE, *there_and_back, ("DequantizeLinear", ["again", "other_scale", "zero"], "y"))
    fuse(model.graph)
    assert len(list(model.graph)) == 4
