"""What starts fast must stay light, and what is public must be there."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import segship
from segship.pipeline import build, export, load_model

HEAVY = ("torch", "onnx", "onnx_ir", "onnxscript", "jinja2", "pycocotools", "rich", "safetensors")


def modules_after(code: str) -> set[str]:
    """Names of the modules that a fresh interpreter holds after ``code``."""
    program = f"{code}\nimport sys\nprint(' '.join(sys.modules))"
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    return set(result.stdout.splitlines()[-1].split())


def test_importing_segship_loads_nothing_heavy() -> None:
    assert not modules_after("import segship").intersection((*HEAVY, "numpy", "cv2"))


def test_the_command_line_loads_nothing_heavy() -> None:
    assert not modules_after("import segship.cli").intersection((*HEAVY, "cv2", "onnxruntime", "openvino"))


@pytest.mark.parametrize("backend", ["onnxruntime", "openvino"])
def test_running_an_engine_loads_neither_torch_nor_onnx(
    backend: str, tiny_checkpoint: Path, scenes: Path, tmp_path: Path
) -> None:
    pytest.importorskip(backend)
    engine = build(export(load_model(tiny_checkpoint, scale=1.0), image_size=(64, 96)), backend, tmp_path / "tiny.engine")
    image = next(scenes.glob("*.jpg"))
    words = ["predict", str(engine.path), str(image), "-o", str(tmp_path)]
    code = f"from segship.cli import main\ntry:\n  main({words!r})\nexcept SystemExit as ended:\n  assert ended.code == 0"
    loaded = modules_after(code)
    assert backend in loaded
    assert not loaded.intersection(HEAVY)
    assert (tmp_path / f"{image.stem}.overlay.jpg").is_file()


def test_every_public_name_can_be_imported() -> None:
    for name in segship.__all__:
        assert getattr(segship, name) is not None
    assert sorted(segship.__all__) == segship.__all__


def test_changelog_names_this_version() -> None:
    changelog = Path(__file__).parents[2] / "CHANGELOG.md"
    newest = next(line for line in changelog.read_text().splitlines() if line.startswith("## ["))
    assert f"[{segship.__version__}]" in newest
