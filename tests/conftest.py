"""Fixed seeds, and a tiny network and data set that tests share."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest
import torch

from contract.checkpoints import random_state, write
from segship.core.graph import Graph
from segship.models import build_module
from segship.pipeline import ModelPredictor, export, load_model
from segship.scenes import CLASSES, write_dataset

SCENE_SIZE = (64, 96)


@pytest.fixture(autouse=True)
def _seeds() -> None:
    random.seed(0)
    np.random.seed(0)
    torch.manual_seed(0)


@pytest.fixture(scope="session")
def tiny_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A milesial UNet of 2 classes, a few kilobytes."""
    return write(random_state("unet-transposed"), tmp_path_factory.mktemp("checkpoint") / "tiny-unet.pth")


@pytest.fixture(scope="session")
def scene_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A milesial UNet with random weights and as many classes as the scenes have."""
    network = build_module("unet", {"n_channels": 3, "n_classes": len(CLASSES), "widths": [4, 8, 16, 32, 64], "bilinear": False})
    return write(network.state_dict(), tmp_path_factory.mktemp("checkpoint") / "scene-unet.pth")


@pytest.fixture(scope="session")
def scene_model(scene_checkpoint: Path) -> ModelPredictor:
    return load_model(scene_checkpoint, scale=1.0)


@pytest.fixture(scope="session")
def scene_graph(scene_model: ModelPredictor) -> Graph:
    """Of the scenes' size, which gives labels."""
    return export(scene_model, image_size=SCENE_SIZE)


@pytest.fixture(scope="session")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eight labelled scenes of 64 x 96 pixels."""
    folder = tmp_path_factory.mktemp("data") / "scenes"
    write_dataset(folder, range(100, 108), SCENE_SIZE)
    return folder
