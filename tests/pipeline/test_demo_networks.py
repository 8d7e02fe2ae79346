"""The demo's PointRend, Mask R-CNN and Panoptic FCN as FP32 engines: PyTorch's predictions, alone, in a batch, of any size."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

import numpy as np
import pytest

import segship
from segship.demo import ALL
from segship.scenes import generate
from segship.tasks import task_of

SIZE = (96, 128)
ASSETS = Path(str(files("segship") / "assets"))
KEEP = {"scenes-maskrcnn": {"resize": {"type": "keep"}}, "scenes-panopticfcn": {"shortest_side": 96}}
"""Without the enlargement that these networks were trained with: small is quick."""


@pytest.mark.parametrize("model", ALL[2:], ids=lambda model: model.name)
def test_engines_give_pytorchs_predictions(model: object, tmp_path: Path) -> None:
    torch_model = segship.load_model(ASSETS / model.asset, **KEEP.get(model.name, {}))
    images = [generate(seed, SIZE).image for seed in (5, 6, 7)]
    expected = [torch_model.predict(image) for image in images]
    task = task_of(torch_model.spec)
    assert task.agreement(expected[0], expected[1]) < 0.9  # different images, different answers
    graph = segship.export(torch_model, image_size=SIZE)
    for backend in ("onnxruntime", "openvino"):
        segship.build(graph, backend, tmp_path / f"{backend}.engine")
        with segship.load_engine(tmp_path / f"{backend}.engine") as engine:
            batch, singles = engine.predict_batch(images), [engine.predict(image) for image in images]
        for want, one, other in zip(expected, singles, batch, strict=True):
            assert task.agreement(want, one) > 0.998  # FP32 in another order moves single pixels of a border
            assert task.agreement(want, other) > 0.998


@pytest.mark.slow
@pytest.mark.parametrize("model", ALL[2:], ids=lambda model: model.name)
def test_images_smaller_than_a_stride_and_very_wide_ones(model: object, tmp_path: Path) -> None:
    torch_model = segship.load_model(ASSETS / model.asset, **KEEP.get(model.name, {"resize": {"type": "keep"}}))
    task, noise = task_of(torch_model.spec), np.random.default_rng(0)
    sizes = ((1, 1), (2, 300), (300, 2), (17, 33))
    images = [noise.integers(0, 256, (*size, 3)).astype(np.uint8) for size in sizes]
    expected = torch_model.predict_batch(images)
    graph = segship.export(torch_model)
    for backend in ("onnxruntime", "openvino"):
        segship.build(graph, backend, tmp_path / f"{backend}.engine")
        with segship.load_engine(tmp_path / f"{backend}.engine") as engine:
            for image, want, found in zip(images, expected, engine.predict_batch(images), strict=True):
                assert found.size == image.shape[:2]
                assert task.agreement(want, found) > 0.998  # FP32 in another order moves single pixels of a border
