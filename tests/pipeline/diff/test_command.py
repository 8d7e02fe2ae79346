"""``segship diff``: what it prints, and what it refuses."""

from __future__ import annotations

import json
from pathlib import Path

import onnx_ir as ir
import pytest

from cli.command import run
from contract.checkpoints import write
from pipeline.diff.planting import UNET, edited, insert_behind, named, state_of
from segship.core.errors import BadArgument
from segship.core.graph import Graph
from segship.diff import diff
from segship.pipeline import build


def test_command(
    unet_file: Path, unet_graph: Graph, images: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def plant(graph: ir.Graph) -> None:
        insert_behind(graph, named(graph, "up3.up/ConvTranspose").outputs[0], [("Sqrt", [], {})])

    engine = build(edited(unet_graph, plant), "onnxruntime", tmp_path / "planted.engine")
    words = ("diff", unet_file, engine.path, "--image", images[0], "--fact", "scale=1.0")
    assert run(*words, "--json") == 1
    printed = json.loads(capsys.readouterr().out)
    assert printed["finding"]["kind"] == "nan"
    assert printed["finding"]["advice"]
    assert printed["steps"]
    assert run(*words) == 1
    assert "engine diverges from graph at up3" in capsys.readouterr().out


def test_another_checkpoint_is_refused(unet_graph: Graph, images: list[Path], tmp_path: Path) -> None:
    engine = build(unet_graph, "onnxruntime", tmp_path / "unet.engine")
    other = write({key: value + 1 for key, value in state_of("unet", UNET).items()}, tmp_path / "other.pth")
    with pytest.raises(BadArgument, match="is not the checkpoint that"):
        diff(other, engine.path, images[0], scale=1.0)
