"""Calibration needs bounded memory: at most 2 GiB above the model's own run at 1024 x 2048, however many images."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from contract.checkpoints import write
from segship.models import build_module

GIB = 2**30
N_IMAGES = 10

_PROGRAM = """
import json, resource, sys
from pathlib import Path
from segship.backends.onnxruntime import open_graph
from segship.pipeline import export, load_model
from segship.quantiser import Quantiser

def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024

checkpoint, folder, what = sys.argv[1:]
images = sorted(Path(folder).glob("*.jpg"))
model = load_model(checkpoint, test_mode="whole")
graph = export(model, output="logits")
peaks = []
if what == "run":
    session = open_graph(graph)
    for image in images[:2]:
        session.run({"image": model.prepare(image).tensor})
        peaks.append(peak())
else:
    watch = lambda stage, done, total: peaks.append(peak())
    Quantiser(model, graph, images, watch, cache=Path(folder) / "cache").calibrate()
print(json.dumps(peaks))
"""


def peaks(checkpoint: Path, folder: Path, what: str) -> list[int]:
    """Peak resident bytes of a fresh process, after each image."""
    words = [sys.executable, "-c", _PROGRAM, str(checkpoint), str(folder), what]
    result = subprocess.run(words, capture_output=True, text=True, check=True)
    found: list[int] = json.loads(result.stdout.splitlines()[-1])
    return found


@pytest.mark.slow
def test_calibration_at_1024_x_2048(tmp_path: Path) -> None:
    hyperparameters = {
        "n_classes": 19,
        "dims": [32, 64, 160, 256],
        "depths": [2, 2, 2, 2],
        "heads": [1, 2, 5, 8],
        "hidden": [128, 256, 640, 1024],
        "sr_ratios": [8, 4, 2, 1],
        "head_width": 256,
        "layer_norm_eps": 1e-6,
    }
    checkpoint = write({"state_dict": build_module("segformer", hyperparameters).state_dict()}, tmp_path / "b0.pth")
    for index in range(N_IMAGES):
        coarse = np.random.default_rng(index).integers(0, 255, (8, 16, 3), dtype=np.uint8)
        Image.fromarray(coarse).resize((2048, 1024), Image.Resampling.BICUBIC).save(tmp_path / f"{index:02}.jpg")
    own, calibration = peaks(checkpoint, tmp_path, "run"), peaks(checkpoint, tmp_path, "calibrate")
    print(f"own run {own[-1] / GIB:.2f} GiB, calibration {calibration[-1] / GIB:.2f} GiB")
    assert calibration[-1] - own[-1] < 2 * GIB
    assert calibration[-1] - calibration[2] < 0.05 * GIB  # after the second image nothing grows: 300 images need no more
