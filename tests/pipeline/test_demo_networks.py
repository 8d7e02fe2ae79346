"""The demo's PointRend, Mask R-CNN and Panoptic FCN as FP32 engines: PyTorch's predictions, one by one and in a batch."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

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
