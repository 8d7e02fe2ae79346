"""``--precision`` and ``--plan`` of export and build: the file is right, and what cannot be is refused in one sentence."""

from __future__ import annotations

import json
from pathlib import Path

import onnx
import pytest

from segship.cli import main
from segship.core.plan_file import write_plan
from segship.core.precision import Keep, PrecisionPlan

FACTS = ("--fact", "scale=1.0", "--image-size", "64x96")


def run(*words: object) -> int:
    """Exit code of a command."""
    with pytest.raises(SystemExit) as ended:
        main([str(word) for word in words])
    return int(ended.value.code or 0)


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
    assert run("export", tiny_checkpoint, "--plan", tmp_path / "plan.toml", *FACTS, "-o", tmp_path / "a.onnx") == 2
    assert expected in capsys.readouterr().err
    assert not (tmp_path / "a.onnx").exists()


def test_build_refuses_half_precision_where_it_would_run_in_float32(
    tiny_checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("build", tiny_checkpoint, "--precision", "fp16", *FACTS, "-o", tmp_path / "a.engine") == 2
    assert "has no kernels for fp16" in capsys.readouterr().err
    assert not (tmp_path / "a.engine").exists()


def test_a_precision_and_a_plan_are_one_too_many(
    tiny_checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ("--precision", "fp16", "--plan", tmp_path / "plan.toml")
    assert run("export", tiny_checkpoint, *words, *FACTS, "-o", tmp_path / "a.onnx") == 2
    assert "leave one out" in capsys.readouterr().err
