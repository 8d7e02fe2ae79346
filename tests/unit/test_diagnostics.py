"""Calibration images are judged by what is on them; each failed check says what to do."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import msgspec
import numpy as np
import pytest
from PIL import Image

from segship.backends import load_backend
from segship.core.errors import BuildFailed
from segship.core.graph import Graph
from segship.core.predictions import Instances, PanopticMap, Segment, SemanticMap
from segship.datasets import Dataset, Sample, for_model, open_dataset
from segship.diagnostics import ALIKE, classes_of, classes_seen, diagnose, enough, not_clipped, same_input, thumbnail, varied
from segship.graph.calibrate import Ranges
from segship.graph.histogram import Clipping, Range
from segship.pipeline import ModelPredictor, build
from segship.quantiser import Quantiser


@pytest.fixture(scope="module")
def quantiser(
    scene_model: ModelPredictor, scene_graph: Graph, scenes: Path, tmp_path_factory: pytest.TempPathFactory
) -> Quantiser:
    return Quantiser(scene_model, scene_graph, sorted(scenes.glob("*.jpg"))[:3], cache=tmp_path_factory.mktemp("cache"))


def ranges(images: int, moved: dict[str, float]) -> Ranges:
    return Ranges("mse", images, "0" * 64, {name: Range(0, 1) for name in moved}, {}, moved)


def test_ranges_that_still_move_ask_for_more_images() -> None:
    still = dict.fromkeys("abcdefgh", 0.01)
    assert enough(ranges(12, still)).passed
    grows = enough(ranges(12, {**still, "a": 0.2, "b": 0.06}))
    assert not grows.passed
    assert "the last 3 of 12 images moved 2 of 8 ranges by more than 5 %" in grows.found
    assert "more images" in grows.advice
    assert "at least 8" in enough(ranges(4, still)).advice


def test_a_picture_hardly_changed_is_found_and_another_scene_is_not(
    scene_model: ModelPredictor, scenes: Path, tmp_path: Path
) -> None:
    files = sorted(scenes.glob("*.jpg"))[:3]
    pixels = np.asarray(Image.open(files[0]))
    brighter = tmp_path / "brighter.png"
    Image.fromarray(np.clip(pixels * 0.9 + 20, 0, 255).astype(np.uint8)[1:, 1:]).save(brighter)
    assert varied([(file.name, thumbnail(scene_model, file)) for file in files]).passed
    found = varied([(file.name, thumbnail(scene_model, file)) for file in (*files, brighter)])
    assert not found.passed
    assert f"1 of 4 images show nearly the same as another ({files[0].name} and brighter.png)" in found.found
    first, other = (thumbnail(scene_model, file) for file in files[:2])
    assert float(first @ other) < ALIKE - 0.05


def test_an_image_of_one_colour_is_like_no_other() -> None:
    flat = np.zeros(4, np.float32)
    assert varied([("a", flat), ("b", flat)]).passed  # their thumbnails say nothing


def test_classes_that_no_image_shows_are_named() -> None:
    assert classes_seen([{0, 2}, {1}], ["road", "sky", "car"]).passed
    found = classes_seen([{0}], ["road", "sky", "car"])
    assert found.found == "1 of 3 classes are on the images, never seen: sky, car"
    assert found.advice
    assert "and 6 more" in classes_seen([set()], [str(index) for index in range(10)]).found


def test_classes_of_every_kind_of_prediction() -> None:
    ids = np.array([[1, 1], [2, 0]], np.int32)
    assert classes_of(SemanticMap(np.array([[3, 5]], np.uint8))) == {3, 5}
    assert classes_of(PanopticMap(ids, (Segment(1, 4, is_thing=True), Segment(2, 7, is_thing=False)))) == {4, 7}
    nothing = Instances((2, 2), np.zeros((0, 4), np.float32), np.zeros(0, np.float32), np.zeros(0, np.int64), ())
    assert classes_of(nothing) == set()


def test_clipping_that_harms_is_told_apart_from_clipping_that_helps(quantiser: Quantiser) -> None:
    from segship.diagnostics import saturation

    name = quantiser.graph.ir.graph[3].outputs[0].name
    for error, passed in ((1e-4, True), (0.05, False)):
        found = Ranges("mse", 9, "0" * 64, {name: Range(0, 1)}, {name: Clipping(0.03, error)})
        saturated = saturation(found, quantiser.graph)
        assert saturated[0].clipped == pytest.approx(3)
        assert saturated[0].path != name  # a module path
        check = not_clipped(saturated)
        assert check.passed is passed
        assert saturated[0].path in check.found
    assert not_clipped(()).passed


def test_a_whole_diagnosis_of_three_scenes(
    quantiser: Quantiser, scene_model: ModelPredictor, scenes: Path, tmp_path: Path
) -> None:
    dataset: Dataset = for_model(open_dataset(scenes, "semantic"), scene_model.spec)
    samples = [sample for sample in dataset.samples if sample.image in quantiser.images]
    engine = build(quantiser.quantised(load_backend("onnxruntime").TRAITS), "onnxruntime", tmp_path / "tiny.engine")
    found = diagnose(quantiser, scene_model, dataset, samples, engine)
    assert [check.question for check in found.checks] == [
        "enough images",
        "different images",
        "every class",
        "nothing cut off",
        "the same input",
    ]
    assert not found.checks[0].passed
    assert found.notes[0].startswith("calibration: 3 images for ")
    assert len(found.saturated) <= 5
    assert msgspec.json.decode(msgspec.json.encode(found), type=type(found)) == found


def test_an_engine_that_is_fed_other_numbers_is_an_error(
    scene_model: ModelPredictor, quantiser: Quantiser, tmp_path: Path
) -> None:
    engine = build(quantiser.plain(load_backend("onnxruntime").TRAITS), "onnxruntime", tmp_path / "tiny.engine")
    assert same_input(scene_model, engine, quantiser.images[0]).passed
    image = msgspec.structs.replace(
        scene_model.spec.image, normalise=msgspec.structs.replace(scene_model.spec.image.normalise, scale=1 / 128)
    )
    other = scene_model.with_spec(msgspec.structs.replace(scene_model.spec, image=image))
    with pytest.raises(BuildFailed, match="calibrated with other numbers than it is fed"):
        same_input(other, engine, quantiser.images[0])


def test_without_labels_the_model_says_what_is_seen() -> None:
    from segship.diagnostics import _classes_on

    asked = SimpleNamespace(predict=lambda _image: SemanticMap(np.array([[1, 255]], np.uint8)))
    dataset = SimpleNamespace(labelled=False, ignore=255)
    assert _classes_on(Sample("a", Path("a.jpg")), dataset, asked) == {1}
