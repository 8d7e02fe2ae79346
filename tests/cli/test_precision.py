"""``--precision`` and ``--plan`` of export and build: the file is right, and what cannot be is refused in one sentence."""

from __future__ import annotations

import json
from pathlib import Path

import onnx
import pytest
import torch

from cli.command import refused, run
from segship.core.plan_file import read_plan, write_plan
from segship.core.precision import Keep, PrecisionPlan

FACTS = ("--fact", "scale=1.0", "--image-size", "64x96")


def weight_types(file: Path) -> set[int]:
    """Types of the convolutions' weights in an ONNX file."""
    graph = onnx.load(file).graph
    weights = {node.input[1] for node in graph.node if node.op_type == "Conv"}
    return {tensor.data_type for tensor in graph.initializer if tensor.name in weights}


@pytest.mark.parametrize(("precision", "kind"), [("fp16", onnx.TensorProto.FLOAT16), ("bf16", onnx.TensorProto.BFLOAT16)])
def test_export_in_half_precision(precision: str, kind: int, tiny_checkpoint: Path, tmp_path: Path) -> None:
    assert run("export", tiny_checkpoint, "--precision", precision, *FACTS, "-o", tmp_path / "a.onnx") == 0
    assert weight_types(tmp_path / "a.onnx") == {kind}


def test_export_by_plan(tiny_checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_plan(PrecisionPlan("fp16", (Keep("down1.*", "fp32", "a test"),)), tmp_path / "plan.toml")
    assert run("export", tiny_checkpoint, "--plan", tmp_path / "plan.toml", *FACTS, "-o", tmp_path / "a.onnx", "--json") == 0
    assert weight_types(tmp_path / "a.onnx") == {onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16}
    assert json.loads(capsys.readouterr().out)["precision"] == "fp16, 1 exception stays fp32"
    assert run("inspect", tmp_path / "a.onnx", "--json") == 0
    assert json.loads(capsys.readouterr().out)["modules"]["up1.up"] == "ConvTranspose"  # what the next plan can name


@pytest.mark.parametrize(
    ("plan", "expected"),
    [
        (PrecisionPlan("fp16", (Keep("encoder.*", "fp32", "a test"),)), "covers nothing"),
        (PrecisionPlan("int8"), "needs images"),
    ],
)
def test_a_plan_that_cannot_be_is_refused(
    plan: PrecisionPlan, expected: str, tiny_checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_plan(plan, tmp_path / "plan.toml")
    words = ("export", tiny_checkpoint, "--plan", tmp_path / "plan.toml", *FACTS, "-o", tmp_path / "a.onnx")
    assert expected in refused(capsys, *words)
    assert not (tmp_path / "a.onnx").exists()


def test_build_refuses_half_precision_where_it_would_run_in_float32(
    tiny_checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ("build", tiny_checkpoint, "--precision", "fp16", *FACTS, "-o", tmp_path / "a.engine")
    assert "has no kernels for fp16" in refused(capsys, *words)
    assert not (tmp_path / "a.engine").exists()


def test_a_precision_and_a_plan_are_one_too_many(
    tiny_checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ("--precision", "fp16", "--plan", tmp_path / "plan.toml")
    assert "leave one out" in refused(capsys, "export", tiny_checkpoint, *words, *FACTS, "-o", tmp_path / "a.onnx")


@pytest.fixture
def overflowing(tiny_checkpoint: Path, tmp_path: Path) -> Path:
    """The tiny network with one layer's results a million times larger, and the next one's weights as much smaller."""
    state = torch.load(tiny_checkpoint, weights_only=True)
    for entry in ("weight", "bias"):
        state[f"up1.conv.double_conv.1.{entry}"] *= 1e6
    state["up1.conv.double_conv.3.weight"] /= 1e6
    torch.save(state, tmp_path / "overflowing.pth")
    return tmp_path / "overflowing.pth"


def test_images_show_what_half_precision_cannot_hold(
    overflowing: Path, scenes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ("export", overflowing, "--precision", "fp16", *FACTS)
    assert run(*words, "-o", tmp_path / "blind.onnx") == 0
    assert "layers that overflow were not looked for" in capsys.readouterr().out
    assert not (tmp_path / "blind.plan.toml").exists()
    assert run(*words, "--data", scenes, "-o", tmp_path / "a.onnx") == 0
    said = capsys.readouterr().out
    assert "not looked for" not in said
    plan = read_plan(tmp_path / "a.plan.toml")
    assert "up1.conv.double_conv.3" in {keep.where for keep in plan.keep}
    assert all(f"{keep.where} stays fp32: {keep.reason}" in said for keep in plan.keep)
    assert weight_types(tmp_path / "a.onnx") == {onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16}
    again = ("--plan", tmp_path / "a.plan.toml", "-o", tmp_path / "b.onnx")
    assert run("export", overflowing, *FACTS, *again) == 0
    assert (tmp_path / "b.onnx").read_bytes() == (tmp_path / "a.onnx").read_bytes()


def test_image_sizes_may_be_free_and_json_tells_the_exceptions(
    overflowing: Path, scenes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ("--precision", "bf16", "--fact", "scale=1.0", "--data", scenes, "-o", tmp_path / "a.onnx", "--json")
    assert run("export", overflowing, *words) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["plan"] == str(tmp_path / "a.plan.toml")
    assert found["exceptions"] == {}  # bfloat16 reaches as far as float32
    assert found["notes"] == []


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (("--data", "{scenes}"), "is for --precision fp16 or bf16 or a --plan with INT8"),
        (("--data", "{scenes}", "--precision", "fp32"), "is for --precision fp16 or bf16 or a --plan with INT8"),
        (("--data", "{scenes}", "--precision", "fp16", "--image-size", "32x32"), "made for 32 x 32"),
        (("--data", "{empty}", "--precision", "fp16"), "{empty}"),
    ],
)
def test_data_that_cannot_show_ranges_is_refused(
    words: tuple[str, ...], expected: str, tiny_checkpoint: Path, scenes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    filled = [word.format(scenes=scenes, empty=empty) for word in words]
    said = refused(capsys, "export", tiny_checkpoint, "--fact", "scale=1.0", *filled, "-o", tmp_path / "a.onnx")
    assert expected.format(empty=empty) in said
    assert sorted(each.name for each in tmp_path.iterdir()) == ["empty"]
