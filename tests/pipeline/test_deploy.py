"""The main job end to end on tiny networks: what is delivered, what is refused, and what a planted fault does."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from contract.checkpoints import random_state, write
from segship import load_engine, load_model
from segship.cli import main
from segship.core.image import ImageArray
from segship.core.progress import silent
from segship.datasets import open_dataset
from segship.deploy import Delivered, deploy
from segship.evidence.measure import Schedule
from segship.judging import Judge
from segship.models import Model
from segship.pipeline import ModelPredictor, build, export
from segship.trial import Options

QUICK = Options(backend="onnxruntime", precision="fp32", schedule=Schedule(rounds=3, runs_per_turn=1))


@pytest.fixture(scope="module")
def delivered(scene_checkpoint: Path, scenes: Path, tmp_path_factory: pytest.TempPathFactory) -> Delivered:
    return deploy(scene_checkpoint, scenes, tmp_path_factory.mktemp("deploy") / "tiny.engine", options=QUICK, scale=1.0)


def photos(folder: Path, sizes: list[tuple[int, int]]) -> Path:
    """A folder of unlabelled photos."""
    folder.mkdir()
    for index, (height, width) in enumerate(sizes):
        coarse = np.random.default_rng(index).integers(0, 255, (5, 6, 3), dtype=np.uint8)
        Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC).save(folder / f"photo{index}.png")
    return folder


def test_an_engine_with_its_proof_is_delivered(delivered: Delivered) -> None:
    assert delivered.engine is not None
    path = delivered.engine.path
    assert {entry.name for entry in path.iterdir()} == {"manifest.json", "network", "evidence", "report.html"}
    assert (path / "evidence" / "verdicts.jsonl").read_text().count("\n") == 3
    chosen = next(candidate for candidate in delivered.deployment.candidates if candidate.chosen)
    assert chosen.drop == 0
    assert [verdict.level for verdict in chosen.verdicts] == ["invariance", "tensors", "dataset"]
    assert not [entry for entry in path.parent.iterdir() if entry.name.startswith(".")]


def test_the_report_can_be_made_again_with_the_same_bytes(delivered: Delivered, tmp_path: Path) -> None:
    assert delivered.engine is not None
    with pytest.raises(SystemExit, match="0"):
        main(["report", str(delivered.engine.path), "-o", str(tmp_path / "again.html")])
    assert (tmp_path / "again.html").read_bytes() == delivered.report.read_bytes()


def test_json_output_is_one_object(
    scene_checkpoint: Path, scenes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["deploy", str(scene_checkpoint), "--data", str(scenes), "-o", str(tmp_path / "a.engine"), "--fact", "scale=1.0"]
    with pytest.raises(SystemExit, match="0"):
        main([*words, "--backend", "onnxruntime", "--precision", "fp32", "--json"])
    result = json.loads(capsys.readouterr().out)
    assert result["precision"] == "fp32"
    assert [candidate["name"] for candidate in result["candidates"]] == ["PyTorch fp32", "onnxruntime fp32"]


def test_images_of_many_sizes_without_labels(scene_checkpoint: Path, tmp_path: Path) -> None:
    data = photos(tmp_path / "photos", [(64, 96), (80, 64), (96, 96), (50, 70)])
    result = deploy(scene_checkpoint, data, tmp_path / "free.engine", options=QUICK, scale=1.0)
    assert result.engine is not None
    assert result.deployment.metric_name == "agreement"
    other = photos(tmp_path / "other", [(71, 53)]) / "photo0.png"
    with load_engine(result.engine.path) as engine:
        assert engine.signature.input_size is None
        found = engine.predict(other)
    expected = load_model(scene_checkpoint, scale=1.0).predict(other)
    assert found.size == (71, 53)
    assert np.mean(found.labels == expected.labels) > 0.9999  # FP32 in another order moves labels only at ties


def test_one_image_serves_for_both_and_says_so(scene_checkpoint: Path, tmp_path: Path) -> None:
    result = deploy(scene_checkpoint, photos(tmp_path / "one", [(64, 96)]), tmp_path / "one.engine", options=QUICK, scale=1.0)
    assert result.engine is not None
    assert any("one image" in note for note in result.deployment.notes)


def test_sliding_windows(tmp_path: Path) -> None:
    checkpoint = write({"state_dict": random_state("segformer-small")}, tmp_path / "slide.pth")
    facts = {"resize": {"type": "keep"}, "test_mode": "slide", "slide": {"crop": [64, 64], "stride": [48, 48]}}
    data = photos(tmp_path / "photos", [(64, 96), (64, 96), (64, 96)])
    result = deploy(checkpoint, data, tmp_path / "slide.engine", options=QUICK, **facts)
    assert result.engine is not None
    image = data / "photo0.png"
    with load_engine(result.engine.path) as engine:
        assert engine.signature.input_size == (64, 64)
        same = engine.predict(image).labels == load_model(checkpoint, **facts).predict(image).labels
    assert same.mean() > 0.999


def test_one_class_with_threshold_on_grey_images(tmp_path: Path) -> None:
    checkpoint = write(random_state("unet-odd-widths"), tmp_path / "one-class.pth")
    data = photos(tmp_path / "photos", [(64, 96)] * 4)
    result = deploy(checkpoint, data, tmp_path / "one-class.engine", options=QUICK, scale=1.0, threshold=0.3)
    assert result.engine is not None


class _Swapped(torch.nn.Module):
    """A network fed with blue for red: the commonest error of all deployments."""

    def __init__(self, module: torch.nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return self.module(image.flip(1))


def test_swapped_channels_are_caught(tmp_path: Path) -> None:
    checkpoint = Path(__file__).parents[2] / "src" / "segship" / "assets" / "scenes-unet.pth"
    model = load_model(checkpoint)
    swapped = ModelPredictor(Model(model.spec, _Swapped(model.model.module)))
    engine = build(export(swapped, image_size=(64, 96)), "onnxruntime", tmp_path / "swapped.engine")
    data = open_dataset(scene_folder(tmp_path))
    judge = Judge(model, data, data.samples, 0.5, silent)
    with load_engine(engine.path) as candidate:
        levels = {verdict.level: verdict.passed for verdict in judge.verdicts(candidate, "swapped", "fp32")}
    assert levels == {"invariance": True, "tensors": False, "dataset": False}


def scene_folder(folder: Path) -> Path:
    """Three labelled scenes."""
    from segship.scenes import write_dataset

    write_dataset(folder / "scenes", range(3), (64, 96))
    return folder / "scenes"


def test_pixels_reach_the_network_as_the_image_shows_them(scene_checkpoint: Path, scenes: Path) -> None:
    """An array and its lossless file give the same prediction."""
    model = load_model(scene_checkpoint, scale=1.0)
    pixels: ImageArray = np.asarray(Image.open(next(scenes.glob("*.jpg"))).convert("RGB"))
    assert np.array_equal(model.predict(pixels).labels, model.predict(next(scenes.glob("*.jpg"))).labels)
