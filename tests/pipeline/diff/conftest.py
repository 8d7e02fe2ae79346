"""Two tiny networks of random weights, their graphs, and images."""

from __future__ import annotations

from pathlib import Path

import pytest

from contract.checkpoints import write
from pipeline.diff.planting import SEGFORMER, SIZE, UNET, state_of
from segship.core.graph import Graph
from segship.pipeline import ModelPredictor, export, load_model
from segship.scenes import write_dataset

SEGFORMER_FACTS = {"resize": {"type": "keep"}, "test_mode": "whole"}


@pytest.fixture(scope="session")
def images(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("data") / "scenes"
    write_dataset(folder, range(100, 104), SIZE)
    return sorted(folder.glob("*.jpg"))


@pytest.fixture(scope="session")
def unet_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(state_of("unet", UNET), tmp_path_factory.mktemp("checkpoint") / "unet.pth")


@pytest.fixture(scope="session")
def unet(unet_file: Path) -> ModelPredictor:
    return load_model(unet_file, scale=1.0)


@pytest.fixture(scope="session")
def unet_graph(unet: ModelPredictor) -> Graph:
    return export(unet, image_size=SIZE, output="logits")


@pytest.fixture(scope="session")
def segformer(tmp_path_factory: pytest.TempPathFactory) -> ModelPredictor:
    file = write(state_of("segformer", SEGFORMER), tmp_path_factory.mktemp("checkpoint") / "segformer.pth")
    return load_model(file, **SEGFORMER_FACTS)


@pytest.fixture(scope="session")
def segformer_graph(segformer: ModelPredictor) -> Graph:
    return export(segformer, image_size=SIZE, output="logits")
