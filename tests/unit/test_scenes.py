"""Synthetic streets: the same on every machine, and their truth agrees with itself."""

from __future__ import annotations

import json
import zlib
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from segship.core.predictions import Instances, PanopticMap
from segship.datasets import open_dataset
from segship.scenes import CLASSES, COLORS, THINGS, Scene, generate, write_dataset
from segship.scenes.dataset import PANOPTIC_ORDER
from segship.scenes.scene import SMALLEST_SIDE

# Of seed 7 at 64 x 96. The truth's checksum is exact: it comes from IEEE 754 arithmetic without library functions.
SEMANTIC_CRC = 3954570148
IMAGE_CRC = 1732328602


@cache
def small(seed: int) -> Scene:
    return generate(seed, (64, 96))


def test_a_seed_is_the_same_scene_everywhere() -> None:
    assert zlib.crc32(small(7).semantic.tobytes()) == SEMANTIC_CRC
    assert zlib.crc32(small(7).image.tobytes()) == IMAGE_CRC


def test_two_seeds_are_two_scenes() -> None:
    assert not np.array_equal(small(7).image, small(8).image)


def test_scenes_do_not_depend_on_what_was_made_before() -> None:
    generate(3, (48, 48))
    assert np.array_equal(generate(7, (64, 96)).image, small(7).image)


@pytest.mark.parametrize("size", [(32, 32), (33, 67), (97, 41), (32, 300), (181, 255)])
def test_any_size(size: tuple[int, int]) -> None:
    scene = generate(11, size)
    assert scene.image.shape == (*size, 3)
    assert scene.image.dtype == np.uint8
    assert scene.semantic.shape == scene.instances.shape == scene.panoptic.shape == size
    assert (scene.semantic.dtype, scene.instances.dtype, scene.panoptic.dtype) == (np.uint8, np.uint16, np.uint16)


@pytest.mark.parametrize(("seed", "size"), [(-1, (64, 64)), (0, (31, 64)), (0, (64, 31))])
def test_what_cannot_be_painted_is_refused(seed: int, size: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match=f"at least {SMALLEST_SIDE} px"):
        generate(seed, size)


@pytest.mark.parametrize("seed", range(12))
def test_the_truth_agrees_with_itself(seed: int) -> None:
    scene = small(seed)
    assert scene.semantic.max() < len(CLASSES)
    assert np.array_equal(scene.instances > 0, np.isin(scene.semantic, THINGS))
    ids = [segment.id for segment in scene.segments]
    assert ids == list(range(1, len(ids) + 1))
    assert set(np.unique(scene.panoptic)) == set(ids)
    for segment in scene.segments:
        assert segment.is_thing == (segment.class_id in THINGS)
        assert set(np.unique(scene.semantic[scene.panoptic == segment.id])) == {segment.class_id}


def test_things_come_before_stuff_and_stuff_once_per_class() -> None:
    kinds = [segment.is_thing for segment in small(5).segments]
    assert kinds == sorted(kinds, reverse=True)
    stuff = [segment.class_id for segment in small(5).segments if not segment.is_thing]
    assert len(stuff) == len(set(stuff))


def test_every_class_occurs_and_none_rules() -> None:
    pixels = sum(np.bincount(small(seed).semantic.ravel(), minlength=len(CLASSES)) for seed in range(50))
    share = pixels / np.sum(pixels)
    assert share.min() > 0.001
    assert share.max() < 0.5


def test_things_hide_one_another() -> None:
    """Some object's pixels fall into several parts, which only something nearer can have done."""
    assert any(_is_cut(scene) for scene in map(small, range(20)))


def _is_cut(scene: Scene) -> bool:
    cars = [s.id for s in scene.segments if s.class_id == CLASSES.index("car")]
    columns = ((scene.instances == car).any(axis=0) for car in cars)
    return any(np.count_nonzero(np.diff(c.astype(np.int8)) == 1) + int(c[0]) > 1 for c in columns)


def test_the_legend_fits_the_classes() -> None:
    assert len(CLASSES) == len(COLORS) == len(set(COLORS))


def test_a_data_set_on_disk_holds_the_same_truth(tmp_path: Path) -> None:
    names = write_dataset(tmp_path / "streets", range(7, 9), (64, 96))
    about = json.loads((tmp_path / "streets" / "classes.json").read_text(encoding="utf-8"))
    assert (about["task"], about["names"], about["ignore"]) == ("semantic", list(CLASSES), 255)
    label = Image.open(tmp_path / "streets" / f"{names[0]}.png")
    assert label.mode == "L"
    assert np.array_equal(np.asarray(label), small(7).semantic)
    photo = np.asarray(Image.open(tmp_path / "streets" / f"{names[0]}.jpg").convert("RGB"))
    assert np.abs(photo.astype(int) - small(7).image).mean() < 4  # JPEG quality 95 on a noisy picture


def test_instances_on_disk_are_the_same_truth(tmp_path: Path) -> None:
    names = write_dataset(tmp_path, (7, 8), (64, 96), task="instance")
    dataset = open_dataset(tmp_path)
    assert (dataset.task, dataset.classes) == ("instance", tuple(CLASSES[each] for each in THINGS))
    assert tuple(sample.name for sample in dataset.samples) == names
    for seed, sample in zip((7, 8), dataset.samples, strict=True):
        truth, scene = dataset.load_truth(sample), small(seed)
        assert isinstance(truth, Instances)
        assert [THINGS[each] for each in truth.classes] == [each.class_id for each in scene.segments if each.is_thing]
        assert len(truth) == scene.instances.max() > 0
        for n, mask in enumerate(truth.masks, 1):
            assert np.array_equal(mask.full(truth.size), scene.instances == n)
        edges = [[m.left, m.top, m.left + m.pixels.shape[1], m.top + m.pixels.shape[0]] for m in truth.masks]
        assert truth.boxes.tolist() == edges


def test_panoptic_truth_on_disk_is_the_same(tmp_path: Path) -> None:
    write_dataset(tmp_path, (7, 8), (64, 96), task="panoptic")
    dataset = open_dataset(tmp_path)
    assert (dataset.task, dataset.classes) == ("panoptic", tuple(CLASSES[each] for each in PANOPTIC_ORDER))
    assert dataset.things == (True,) * len(THINGS) + (False,) * (len(CLASSES) - len(THINGS))
    assert dataset.colors == tuple(COLORS[each] for each in PANOPTIC_ORDER)
    for seed, sample in zip((7, 8), dataset.samples, strict=True):
        truth, scene = dataset.load_truth(sample), small(seed)
        assert isinstance(truth, PanopticMap)
        assert np.array_equal(truth.ids, scene.panoptic)
        segments = [(each.id, PANOPTIC_ORDER[each.class_id], each.is_thing) for each in truth.segments]
        assert segments == [tuple(each) for each in scene.segments]
