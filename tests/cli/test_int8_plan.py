"""``--plan --data`` of export and build: a plan with INT8 becomes a graph or an engine, its ranges seen on images."""

from __future__ import annotations

from pathlib import Path

import msgspec
import numpy as np
import onnx
import pytest

from cli.command import refused, run
from cli.test_precision import FACTS
from segship.backends import onnxruntime
from segship.candidates import beside_graph, wanted_candidates
from segship.core.engine import open_engine
from segship.core.graph import Graph
from segship.core.plan_file import read_plan, write_plan
from segship.core.precision import Keep, PrecisionPlan
from segship.pipeline import load_model
from segship.trial import Options

PLAN = PrecisionPlan("int8", (Keep("outc.*", "fp16", "gives the logits"),), rest="fp16")


def weights(file: Path) -> dict[int, int]:
    """How many constants of more than one dimension a file has, by type."""
    kinds = [tensor.data_type for tensor in onnx.load(file).graph.initializer if len(tensor.dims) > 1]
    return {kind: kinds.count(kind) for kind in set(kinds)}


def logits(file: Path, image: np.ndarray) -> np.ndarray:
    """As the file is written: ONNX Runtime's fusions for CPUs know no float16 scales and would refuse it."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(file.read_bytes(), options, providers=["CPUExecutionProvider"])
    return np.asarray(session.run(["logits"], {"image": image})[0], np.float32)


@pytest.mark.parametrize("recipe", [None, "percentile + bias"])
def test_int8_beside_half_precision(recipe: str | None, scene_checkpoint: Path, scenes: Path, tmp_path: Path) -> None:
    write_plan(msgspec.structs.replace(PLAN, recipe=recipe), tmp_path / "plan.toml")
    words = ("export", scene_checkpoint, *FACTS, "--logits")
    by_plan = ("--plan", tmp_path / "plan.toml", "--data", scenes, "--plan-output", tmp_path / "kept.toml")
    assert run(*words, "-o", tmp_path / "float.onnx") == 0
    assert run(*words, *by_plan, "-o", tmp_path / "int8.onnx") == 0
    assert read_plan(tmp_path / "kept.toml") == read_plan(tmp_path / "plan.toml")
    found = weights(tmp_path / "int8.onnx")
    assert found[onnx.TensorProto.FLOAT16] == 1  # the last convolution's
    assert found[onnx.TensorProto.INT8] == sum(weights(tmp_path / "float.onnx").values()) - 1
    image = load_model(scene_checkpoint, scale=1.0).prepare(sorted(scenes.glob("*.jpg"))[0]).tensor
    expected, got = (logits(tmp_path / name, image) for name in ("float.onnx", "int8.onnx"))
    assert 0 < np.abs(got - expected).std() < 0.1 * expected.std()  # 8 bits: a wrong scale or a missing range costs tenfold


def test_an_engine_by_a_plan_with_int8_is_the_one_that_its_graph_makes(
    scene_checkpoint: Path, scenes: Path, tmp_path: Path
) -> None:
    plan = PrecisionPlan("int8", (Keep("outc.*", "fp32", "gives the logits"),), recipe="minmax")
    write_plan(plan, tmp_path / "plan.toml")
    words = ("--backend", "openvino", "--plan", tmp_path / "plan.toml", "--data", scenes, *FACTS)
    assert run("build", scene_checkpoint, *words, "-o", tmp_path / "a.engine") == 0
    manifest = open_engine(tmp_path / "a.engine").manifest
    assert manifest.plan == plan
    assert manifest.built.precision.found == {"int8": 22, "fp32": 1}
    assert manifest.calibration is not None
    assert (manifest.calibration.method, manifest.calibration.images) == ("minmax", 8)


@pytest.mark.parametrize(
    ("command", "plan", "words", "expected"),
    [
        ("export", PLAN, ("--image-size", "32x32", "--data", "{scenes}"), "made for 32 x 32"),
        ("export", PLAN, ("--data", "{scenes}/none"), "no folder at"),
        ("export", msgspec.structs.replace(PLAN, recipe="guess"), ("--data", "{scenes}"), "is no recipe for INT8"),
        ("export", PrecisionPlan("int8", (Keep("encoder.*", "fp32", "a test"),)), ("--data", "{scenes}"), "covers nothing"),
        ("export", PrecisionPlan("fp16"), ("--data", "{scenes}"), "a --plan with INT8"),
        ("export", PLAN, (), "add --data"),
        ("build", PrecisionPlan("int8"), (), "add --data to segship export or build"),
        ("build", PrecisionPlan("fp32"), ("--data", "{scenes}"), "shows the ranges of a --plan with INT8"),
        ("build", PrecisionPlan("int8"), ("--data", "{scenes}", "--image-size", "32x32"), "made for 32 x 32"),
        ("build", PrecisionPlan("int8"), ("--data", "{scenes}", "--backend", "null"), "null has no kernels for int8"),
        (
            "build",
            PrecisionPlan("fp32", (Keep("op:Relu", "int8", "a test"),)),
            ("--data", "{scenes}"),
            "has no weights to hold",
        ),
    ],
)
def test_what_cannot_be_is_refused_and_nothing_is_written(
    command: str,
    plan: PrecisionPlan,
    words: tuple[str, ...],
    expected: str,
    tiny_checkpoint: Path,
    scenes: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    write_plan(plan, tmp_path / "plan.toml")
    filled = [word.format(scenes=scenes) for word in words]
    kept = ("--plan-output", tmp_path / "kept.toml") if command == "export" else ()
    by_plan = ("--plan", tmp_path / "plan.toml", *kept, *filled, "-o", tmp_path / "out")
    assert expected in refused(capsys, command, tiny_checkpoint, "--fact", "scale=1.0", *by_plan)
    assert [each.name for each in tmp_path.iterdir()] == ["plan.toml"]


@pytest.fixture
def no_conv_kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    """ONNX Runtime without an INT8 kernel for Conv, and therefore for the ConvTranspose that becomes one."""
    traits = msgspec.structs.replace(onnxruntime.TRAITS, int8_ops=("MatMul", "Gemm"))
    monkeypatch.setattr(onnxruntime, "TRAITS", traits)


@pytest.mark.usefixtures("no_conv_kernel")
@pytest.mark.parametrize("command", ["build", "deploy"])
def test_int8_of_an_operator_without_a_kernel_is_the_plans_fault(
    command: str, scene_checkpoint: Path, scenes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_plan(PrecisionPlan("fp32", (Keep("up1.up", "int8", "a test"),)), tmp_path / "plan.toml")
    words = ("--plan", tmp_path / "plan.toml", "--data", scenes, "--backend", "onnxruntime", "-o", tmp_path / "out")
    said = refused(capsys, command, scene_checkpoint, "--fact", "scale=1.0", *words)
    assert "asks INT8 of 1 layer (up1.up), and onnxruntime has no INT8 kernel for ConvTranspose" in said
    assert [each.name for each in tmp_path.iterdir()] == ["plan.toml"]


@pytest.mark.usefixtures("no_conv_kernel")
def test_a_backend_without_the_kernels_of_a_plan_leaves_it_to_the_others(scene_graph: Graph) -> None:
    options = Options(plan=PrecisionPlan("int8"))
    seen = beside_graph(wanted_candidates(options), scene_graph, options)
    reasons = {each.name: each.skipped for each in seen}
    assert "no INT8 kernel for Conv" in str(reasons.pop("onnxruntime mixed"))
    assert reasons == {"onnxruntime fp32": None, "openvino fp32": None, "openvino mixed": None}
