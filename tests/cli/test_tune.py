"""``tune``, ``deploy --plan`` and ``inspect --profile``: what they print, and what they refuse in one sentence."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from cli.command import refused, run
from segship.core.plan_file import write_plan
from segship.core.precision import Keep, PrecisionPlan
from segship.pipeline import build, export, load_model


@pytest.mark.parametrize(
    ("backend", "expected"),
    [
        ("null", "computes nothing: choose onnxruntime or openvino"),
        ("reference", "is PyTorch itself"),
        ("tensorflow", "the backends are"),
    ],
)
@pytest.mark.parametrize("command", ["tune", "deploy"])
def test_a_backend_that_makes_no_engine_to_choose(
    command: str,
    backend: str,
    expected: str,
    scene_checkpoint: Path,
    scenes: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    words = ("--data", scenes, "--backend", backend, "-o", tmp_path / "out")
    assert expected in refused(capsys, command, scene_checkpoint, *words)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("plan", "more", "expected"),
    [
        (PrecisionPlan("int8"), ("--precision", "int8"), "leave one out"),
        (PrecisionPlan("int8", recipe="guess"), (), "'guess' is no recipe for INT8"),
        (PrecisionPlan("int8", (Keep("encoder.*", "fp32", "a test"),)), (), "covers nothing"),
        (PrecisionPlan("fp16"), (), "accepts fp16 graphs and runs them in fp32"),
    ],
)
def test_a_plan_that_deploy_refuses(
    plan: PrecisionPlan,
    more: tuple[str, ...],
    expected: str,
    scene_checkpoint: Path,
    scenes: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    write_plan(plan, tmp_path / "plan.toml")
    words = ("--data", scenes, "--backend", "onnxruntime", "--plan", tmp_path / "plan.toml", "--fact", "scale=1.0")
    assert expected in refused(capsys, "deploy", scene_checkpoint, *words, *more, "-o", tmp_path / "a.engine")
    assert not (tmp_path / "a.engine").exists()


def test_a_profile_as_a_table_and_as_json(tiny_checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    engine = build(export(load_model(tiny_checkpoint, scale=1.0), image_size=(64, 96)), "onnxruntime", tmp_path / "a.engine")
    assert run("inspect", engine.path, "--profile") == 0
    table = capsys.readouterr().out
    assert ".double_conv." in table
    assert "in operators that run in float" in table
    assert run("inspect", engine.path, "--profile", "--json") == 0
    kernels = json.loads(capsys.readouterr().out)["kernels"]
    assert len(kernels) > 20
    assert {kernel["role"] for kernel in kernels} <= {"float", "convert"}


def test_a_plan_that_would_be_a_folder_is_refused_before_the_search(
    scene_checkpoint: Path, scenes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ("--data", scenes, "--backend", "onnxruntime", "-o", tmp_path)
    assert "is a folder, and the plan is a file" in refused(capsys, "tune", scene_checkpoint, *words)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("words", [("--image", "a.jpg"), ("--threads", "2")])
def test_how_to_profile_without_a_profile_is_refused(
    words: tuple[str, ...], tiny_checkpoint: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert "add --profile, or leave them out" in refused(capsys, "inspect", tiny_checkpoint, *words)
