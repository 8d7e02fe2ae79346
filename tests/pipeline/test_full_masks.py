"""Masks pasted inside the engine are those that the task pastes, by both official rules, for any batch and size."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

import segship
from segship.core.predictions import Instances
from segship.scenes import generate
from segship.tasks.instance import agreement

SIZE = (96, 128)


@pytest.fixture(scope="module", params=["grid", "whole_pixels"])
def model(request: pytest.FixtureRequest) -> Any:
    model = segship.load_model(Path(str(files("segship") / "assets" / "scenes-maskrcnn.pth")), resize={"type": "keep"})
    return model.with_spec(
        msgspec.structs.replace(model.spec, decode=msgspec.structs.replace(model.spec.decode, paste=request.param))
    )


@pytest.mark.parametrize("backend", ["onnxruntime", pytest.param("openvino", marks=pytest.mark.slow)])
def test_engine_masks_are_the_tasks(model: Any, backend: str, tmp_path: Path) -> None:
    graph = segship.export(model, image_size=SIZE, output="instances")
    segship.build(graph, backend, tmp_path / "full.engine")
    images = [generate(seed, SIZE).image for seed in (3, 4)]
    with segship.load_engine(tmp_path / "full.engine") as engine:
        assert engine.signature.outputs[3].shape[2:] == SIZE
        found = engine.predict_batch(images)
    expected = [model.predict(image) for image in images]
    assert sum(len(each) for each in expected) > 5
    for one, other in zip(expected, found, strict=True):
        assert isinstance(one, Instances)
        assert isinstance(other, Instances)
        assert agreement(one, other) > 0.998  # a probability at the threshold moves a pixel of a border by rounding


def test_a_mask_moved_by_a_pixel_would_be_seen(model: Any) -> None:
    found = model.predict(generate(3, SIZE).image)
    moved = [type(mask)(mask.top, mask.left, np.roll(mask.pixels, 1, axis=1)) for mask in found.masks]
    shifted = Instances(found.size, found.boxes, found.scores, found.classes, tuple(moved))
    assert agreement(found, shifted) < 0.996
