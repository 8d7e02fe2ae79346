"""Bad input gets one clear sentence, exit code 2, no traceback, and leaves nothing half-written."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cli.command import run, sentence
from segship.core import engine as engine_module
from segship.core.engine import Engine
from segship.core.environment import Processor
from segship.pipeline import build, export, load_model


@pytest.fixture(scope="module")
def engine(tiny_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Engine:
    path = tmp_path_factory.mktemp("engine") / "tiny.engine"
    return build(export(load_model(tiny_checkpoint, scale=1.0), image_size=(64, 96)), "null", path)


@pytest.fixture
def image(tmp_path: Path) -> Path:
    file = tmp_path / "photo.jpg"
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 96, 3), dtype=np.uint8)).save(file)
    return file


def leftovers(folder: Path) -> list[str]:
    """Names in a folder that a broken build would leave."""
    return [entry.name for entry in folder.iterdir() if entry.name.startswith(".") or entry.suffix == ".engine"]


CHECKPOINTS = {
    "missing": (None, "no checkpoint at"),
    "empty": (b"", "is empty"),
    "text": (b"not a checkpoint, but a page that says 404", "is no intact PyTorch file"),
    "image": (b"\x89PNG\r\n\x1a\n" + b"\0" * 300, "is no intact PyTorch file"),
}


@pytest.mark.parametrize(
    "words", [("deploy", "--max-drop", "nan"), ("tune", "--budget-minutes", "inf"), ("tune", "--max-drop", "-1")]
)
def test_a_number_that_is_none(words: tuple[str, ...], scenes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command, *option = words
    assert run(command, tmp_path / "model.pth", "--data", scenes, *option) == 2
    assert option[0] in sentence(capsys)


@pytest.mark.parametrize("kind", CHECKPOINTS)
def test_checkpoint(kind: str, scenes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    content, expected = CHECKPOINTS[kind]
    file = tmp_path / "model.pth"
    if content is not None:
        file.write_bytes(content)
    assert run("deploy", file, "--data", scenes, "-o", tmp_path / "out.engine") == 2
    assert expected in sentence(capsys)
    assert not leftovers(tmp_path)


def test_truncated_checkpoint(tiny_checkpoint: Path, scenes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "half.pth"
    file.write_bytes(tiny_checkpoint.read_bytes()[: tiny_checkpoint.stat().st_size // 2])
    assert run("deploy", file, "--data", scenes, "-o", tmp_path / "out.engine") == 2
    assert "is no intact PyTorch file" in sentence(capsys)


class _Hostile:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.system, (f"touch {self.path}",)


def test_hostile_checkpoint_is_not_executed(scenes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    import torch

    torch.save({"inc": _Hostile(tmp_path / "executed")}, tmp_path / "evil.pth")
    assert run("deploy", tmp_path / "evil.pth", "--data", scenes, "-o", tmp_path / "out.engine") == 2
    assert "was not read" in sentence(capsys)
    assert not (tmp_path / "executed").exists()


@pytest.mark.parametrize("kind", ["missing", "empty", "label size", "unknown ids", "class count"])
def test_data(kind: str, tiny_checkpoint: Path, tmp_path: Path, image: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = tmp_path / "data"
    if kind != "missing":
        data.mkdir()
    if kind not in ("missing", "empty"):
        names = ["a", "b", "c"] if kind == "class count" else ["a", "b"]
        (data / "classes.json").write_text(json.dumps({"task": "semantic", "names": names, "ignore": 255}))
        labels = np.zeros((64, 80) if kind == "label size" else (64, 96), np.uint8)
        labels[0, 0] = 7 if kind == "unknown ids" else 0
        for name in ("x", "y"):
            Image.open(image).save(data / f"{name}.jpg")
            Image.fromarray(labels).save(data / f"{name}.png")
    expected = {
        "missing": "no folder at",
        "empty": "holds no image",
        "label size": "64 x 80",
        "unknown ids": "7",
        "class count": "has 3 classes",
    }[kind]
    words = (
        "deploy",
        tiny_checkpoint,
        "--data",
        data,
        "-o",
        tmp_path / "out.engine",
        "--fact",
        "scale=1.0",
        "--backend",
        "onnxruntime",
    )
    assert run(*words, "--precision", "fp32") == 2
    assert expected in sentence(capsys)
    assert not leftovers(tmp_path)


@pytest.mark.parametrize("kind", ["missing", "text", "truncated", "16 bit", "zero size"])
def test_image(kind: str, engine: Engine, image: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "bad.png"
    if kind == "text":
        file.write_text("no image")
    elif kind == "truncated":
        file.write_bytes(image.read_bytes()[:400])
    elif kind == "16 bit":
        Image.fromarray(np.zeros((64, 96), np.uint16)).save(file)
    elif kind == "zero size":
        file.write_bytes(b"")
    output = tmp_path / "results"
    assert run("predict", engine.path, file, "-o", output) == 2
    assert "bad.png" in sentence(capsys)
    assert not output.exists()


def test_image_of_another_size(engine: Engine, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Image.new("RGB", (100, 50)).save(tmp_path / "other.png")
    assert run("predict", engine.path, tmp_path / "other.png", "-o", tmp_path / "results") == 2
    assert "50 x 100" in (text := sentence(capsys))
    assert "64 x 96" in text


def test_too_small_an_image(tiny_checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    free = build(export(load_model(tiny_checkpoint, scale=0.5)), "null", tmp_path / "free.engine")
    Image.new("RGB", (1, 1)).save(tmp_path / "dot.png")
    assert run("predict", free.path, tmp_path / "dot.png", "-o", tmp_path / "results") == 2
    assert "use a larger image" in sentence(capsys)


@pytest.mark.parametrize("command", ["predict", "verify", "bench", "diff", "deploy", "build"])
def test_an_image_that_the_network_shrinks_to_nothing(
    command: str, tiny_checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "data").mkdir()
    file, engine, model = tmp_path / "data" / "line.png", tmp_path / "free.engine", load_model(tiny_checkpoint, scale=1.0)
    Image.new("RGB", (600, 15)).save(file)
    build(export(model), "null", engine)
    facts = ("--fact", "scale=1.0")
    words = {
        "predict": (engine, file, "-o", tmp_path / "results"),
        "verify": (engine, "--data", file.parent),
        "bench": (engine, "--image", file),
        "diff": (tiny_checkpoint, "--image", file, *facts),
        "deploy": (tiny_checkpoint, "--data", file.parent, *facts, "-o", tmp_path / "new.engine"),
        "build": (tiny_checkpoint, "--image-size", "15x600", *facts, "-o", tmp_path / "new.engine"),
    }
    assert run(command, *words[command]) == 2
    assert "needs 16 pixels on either side" in sentence(capsys)
    assert leftovers(tmp_path) == ["free.engine"]
    assert model.predict(np.zeros((16, 16, 3), np.uint8)).size == (16, 16)


def test_a_folder_is_no_image(engine: Engine, scenes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("predict", engine.path, scenes, "-o", tmp_path / "results") == 2
    assert "is a folder, expected an image file" in sentence(capsys)


@pytest.mark.parametrize("command", ["verify", "bench"])
def test_an_engine_that_cannot_keep_evidence_is_refused_before_it_is_measured(
    command: str, engine: Engine, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        os, "access", lambda _, mode: mode != os.W_OK
    )  # an administrator may write even where the mode forbids it
    assert run(command, engine.path) == 2
    assert "give a copy of the engine" in sentence(capsys)


def _changed_manifest(engine: Engine, tmp_path: Path, old: str, new: str) -> Path:
    import shutil

    copy = Path(shutil.copytree(engine.path, tmp_path / "copy.engine"))
    text = (copy / "manifest.json").read_text()
    assert old in text
    (copy / "manifest.json").write_text(text.replace(old, new, 1))
    return copy


def test_engine_of_another_schema(engine: Engine, image: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    copy = _changed_manifest(engine, tmp_path, '"schema": 1', '"schema": 99')
    assert run("predict", copy, image, "-o", tmp_path / "results") == 2
    assert "schema 99" in sentence(capsys)


def test_engine_with_a_changed_byte_in_its_manifest(
    engine: Engine, image: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    copy = _changed_manifest(engine, tmp_path, '"backend": "null"', '"backend": "nulk"')
    assert run("predict", copy, image, "-o", tmp_path / "results") == 2
    assert "was changed" in sentence(capsys)


def test_engine_of_another_processor(
    engine: Engine, image: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine_module, "processor", lambda: Processor("aarch64", "another", (), 4))
    assert run("predict", engine.path, image, "-o", tmp_path / "results") == 2
    assert "this processor is aarch64" in sentence(capsys)


def test_missing_engine(image: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("predict", tmp_path / "none.engine", image, "-o", tmp_path / "results") == 2
    assert "no engine at" in sentence(capsys)


def test_output_that_is_no_engine_is_left_alone(
    tiny_checkpoint: Path, scenes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    precious = tmp_path / "precious"
    precious.mkdir()
    (precious / "thesis.txt").write_text("years of work")
    assert run("deploy", tiny_checkpoint, "--data", scenes, "-o", precious) == 2
    assert "left alone" in sentence(capsys)
    assert (precious / "thesis.txt").read_text() == "years of work"


def test_full_disk(
    tiny_checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    import segship.backends.null as null

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", str(tmp_path))

    monkeypatch.setattr(null, "build", full)
    words = (
        "build",
        tiny_checkpoint,
        "--backend",
        "null",
        "-o",
        tmp_path / "out.engine",
        "--image-size",
        "64x96",
        "--fact",
        "scale=1.0",
    )
    assert run(*words) == 2
    assert "the disk is full" in sentence(capsys)
    assert not leftovers(tmp_path)


@pytest.mark.parametrize("kept", [True, False])
def test_a_fault_of_our_own_says_so_and_keeps_its_traceback(
    *,
    kept: bool,
    engine: Engine,
    image: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    import segship.backends.null as null

    def broken(*_: object, **__: object) -> None:
        raise RuntimeError("tensors fell off\nand more")

    monkeypatch.setattr(null, "load", broken)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path if kept else tmp_path / "none"))
    assert run("predict", engine.path, image, "-o", tmp_path / "results", "--json") == 70
    out, err = capsys.readouterr()
    files = list(tmp_path.glob("segship-*.log"))
    said = files[0].name if kept else "the traceback above"
    assert json.loads(out)["exit_code"] == 70
    assert said in json.loads(out)["error"]
    assert "fault of segship itself (RuntimeError: tensors fell off):" in err
    assert ("Traceback" in err) is not kept
    assert all(word in (files[0].read_text() if kept else err) for word in ("Traceback", "segship predict", "and more"))


@pytest.mark.parametrize("error", [MemoryError("9 TB"), RuntimeError("DefaultCPUAllocator: can't allocate memory: 9 TB")])
def test_too_little_memory_is_no_fault_of_segship(
    error: Exception,
    engine: Engine,
    image: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    import segship.backends.null as null

    def full(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(null, "load", full)
    assert run("predict", engine.path, image, "-o", tmp_path / "results") == 1
    assert "memory is not enough" in sentence(capsys)


def test_unknown_fact_suggests_the_right_one(tiny_checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("build", tiny_checkpoint, "--backend", "null", "-o", tmp_path / "out.engine", "--fact", "scales=1") == 2
    assert "did you mean 'scale'" in sentence(capsys)


def test_full_masks_of_a_label_map_are_refused(tiny_checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("export", tiny_checkpoint, "--full-masks", "-o", tmp_path / "out.onnx") == 2
    assert "full masks are of detections" in sentence(capsys)
    assert not leftovers(tmp_path)


def test_fp16_on_a_processor_is_refused(
    tiny_checkpoint: Path, scenes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("deploy", tiny_checkpoint, "--data", scenes, "--precision", "fp16", "-o", tmp_path / "out.engine") == 2
    assert "runs them in fp32" in sentence(capsys)


def test_json_error_is_one_object(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("evaluate", tmp_path / "none.pth", "--data", tmp_path, "--json") == 2
    assert json.loads(capsys.readouterr().out)["exit_code"] == 2


def test_interrupt_leaves_nothing(scene_checkpoint: Path, scenes: Path, tmp_path: Path) -> None:
    words = ["deploy", scene_checkpoint, "--data", scenes, "-o", tmp_path / "out.engine", "--fact", "scale=1.0"]
    lines = ("import signal, sys", "signal.signal(signal.SIGINT, signal.default_int_handler)", "from segship.cli import main")
    code = "\n".join((*lines, "main(sys.argv[1:])"))
    process = subprocess.Popen([sys.executable, "-c", code, *map(str, words)], stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    for line in process.stderr:
        if "calibrate" in line or "build" in line:
            break
    time.sleep(0.2)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130, errors
    assert "Traceback" not in errors
    assert not leftovers(tmp_path)
