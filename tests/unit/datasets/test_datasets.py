"""Folders as users have them, made on the spot, and each way in which they are broken."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from segship.core.errors import BadArgument, BadDataset
from segship.datasets import check_classes, open_dataset
from segship.datasets.cityscapes import CLASSES, COLORS
from segship.datasets.dataset import strided
from segship.datasets.images import image_size

CLASSES_JSON = {"task": "semantic", "names": ["road", "car", "sky"], "ignore": 255, "colors": [[1, 2, 3], [4, 5, 6], [7, 8, 9]]}


def write_image(file: Path, size: tuple[int, int] = (6, 8)) -> Path:
    """A grey image of (height, width)."""
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((*size, 3), 128, np.uint8)).save(file)
    return file


def write_label(file: Path, ids: Any = 0, size: tuple[int, int] = (6, 8), dtype: Any = np.uint8) -> Path:
    """A label of (height, width) filled with one id, or with the ids of a list in turn."""
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.resize(np.array(ids, dtype), size)).save(file)
    return file


@pytest.fixture
def pairs(tmp_path: Path) -> Path:
    """Five pairs NAME.jpg + NAME.png, written out of order, and their classes.json."""
    for name in ("d", "b", "e", "a", "c"):
        write_image(tmp_path / f"{name}.jpg")
        write_label(tmp_path / f"{name}.png", [0, 1, 2, 255])
    (tmp_path / "classes.json").write_text(json.dumps(CLASSES_JSON))
    return tmp_path


def test_pairs(pairs: Path) -> None:
    dataset = open_dataset(pairs)
    assert [sample.name for sample in dataset.samples] == ["a", "b", "c", "d", "e"]
    assert (dataset.task, dataset.classes, dataset.ignore) == ("semantic", ("road", "car", "sky"), 255)
    assert dataset.colors == ((1, 2, 3), (4, 5, 6), (7, 8, 9))
    label = dataset.load_label(dataset.samples[0])
    assert (label.shape, label.dtype, set(np.unique(label))) == ((6, 8), np.uint8, {0, 1, 2, 255})


def test_classes_file_one_level_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_image(tmp_path / "val" / "a.jpg")
    write_label(tmp_path / "val" / "a.png")
    (tmp_path / "classes.json").write_text(json.dumps(CLASSES_JSON))
    assert open_dataset(tmp_path / "val").labelled
    monkeypatch.chdir(tmp_path / "val")
    assert open_dataset(".").labelled


def test_png_images_have_labels_of_another_name(tmp_path: Path) -> None:
    for name in ("a", "b"):
        write_image(tmp_path / f"{name}.png")
        write_label(tmp_path / f"{name}_label.png")
    (tmp_path / "classes.json").write_text(json.dumps(CLASSES_JSON))
    assert [(s.image.name, s.label and s.label.name) for s in open_dataset(tmp_path).samples] == [
        ("a.png", "a_label.png"),
        ("b.png", "b_label.png"),
    ]


def test_palette_and_two_level_labels_are_ids(pairs: Path) -> None:
    palette = Image.fromarray(np.full((6, 8), 2, np.uint8), "P")
    palette.putpalette([9, 9, 9, 50, 50, 50, 200, 10, 10])
    palette.save(pairs / "a.png")
    Image.fromarray(np.eye(6, 8, dtype=bool)).save(pairs / "b.png")
    dataset = open_dataset(pairs)
    assert np.all(dataset.load_label(dataset.samples[0]) == 2)
    assert set(np.unique(dataset.load_label(dataset.samples[1]))) == {0, 1}


def test_instance_labels_hold_any_id(tmp_path: Path) -> None:
    write_image(tmp_path / "a.jpg")
    write_label(tmp_path / "a.png", [0, 700], dtype=np.uint16)
    (tmp_path / "classes.json").write_text('{"task": "instance", "names": ["nucleus"]}')
    dataset = open_dataset(tmp_path)
    assert dataset.load_label(dataset.samples[0]).dtype == np.uint16


def test_plain_images_in_nested_folders(tmp_path: Path) -> None:
    for name in ("b/x.png", "a/y.jpg", "a/y.png", ".hidden/z.jpg", "._y.jpg"):
        write_image(tmp_path / name)
    dataset = open_dataset(tmp_path)
    assert [sample.name for sample in dataset.samples] == ["a/y.jpg", "a/y.png", "b/x"]
    assert (dataset.labelled, dataset.classes, dataset.task) == (False, None, None)
    with pytest.raises(BadDataset, match="has no label"):
        dataset.load_label(dataset.samples[0])


def cityscapes(root: Path, split: str, kind: str, ids: list[int]) -> None:
    write_image(root / "leftImg8bit" / split / "ulm" / "ulm_000_leftImg8bit.png")
    write_label(root / "gtFine" / split / "ulm" / f"ulm_000_gtFine_{kind}.png", ids)


def test_cityscapes_train_ids(tmp_path: Path) -> None:
    cityscapes(tmp_path, "val", "labelTrainIds", [0, 18, 255])
    dataset = open_dataset(tmp_path)
    assert (dataset.layout, dataset.classes, dataset.colors, dataset.ignore) == ("cityscapes", CLASSES, COLORS, 255)
    assert set(np.unique(dataset.load_label(dataset.samples[0]))) == {0, 18, 255}


def test_cityscapes_label_ids_become_train_ids(tmp_path: Path) -> None:
    cityscapes(tmp_path, "val", "labelIds", [7, 33, 4, 0])
    dataset = open_dataset(tmp_path)
    assert list(dataset.load_label(dataset.samples[0])[0, :4]) == [0, 18, 255, 255]


def test_cityscapes_takes_val_and_says_so(tmp_path: Path) -> None:
    for split in ("train", "val"):
        cityscapes(tmp_path, split, "labelIds", [7])
    dataset = open_dataset(tmp_path)
    assert "val was taken" in dataset.notes[0]
    assert "val" in dataset.samples[0].image.parts
    for place in ("leftImg8bit/train", "leftImg8bit/train/ulm"):
        named = open_dataset(tmp_path / place)
        assert "train" in named.samples[0].image.parts
        assert named.labelled


def test_split_is_disjoint_and_even() -> None:
    assert strided(range(10), 5) == [1, 3, 5, 7, 9]


@pytest.mark.parametrize(("n_calibration", "sizes"), [(0, (0, 5)), (2, (2, 3)), (99, (2, 3))])
def test_split(pairs: Path, n_calibration: int, sizes: tuple[int, int]) -> None:
    calibration, evaluation = open_dataset(pairs).split(n_calibration)
    assert (len(calibration), len(evaluation)) == sizes
    assert not set(calibration) & set(evaluation)
    assert len(open_dataset(pairs).split(n_calibration, 2)[1]) == 2


def test_split_of_one_image(tmp_path: Path) -> None:
    write_image(tmp_path / "a.jpg")
    with pytest.raises(BadDataset, match="one image"):
        open_dataset(tmp_path).split(1)
    with pytest.raises(BadArgument):
        open_dataset(tmp_path).split(-1)


def test_check_classes(pairs: Path) -> None:
    check_classes(open_dataset(pairs), 3)
    with pytest.raises(BadDataset, match=r"3 classes \(road \.\.\. sky\), the model has 19"):
        check_classes(open_dataset(pairs), 19)


@pytest.mark.parametrize(
    ("name", "ids", "keywords", "sentence"),
    [
        ("a.png", 0, {"size": (5, 8)}, "5 x 8 pixels .* 6 x 8"),
        ("a.png", [0, 3, 7], {}, "a.png has the unknown ids 3, 7; expected 0 to 2 and 255"),
        ("a.png", [0, 300], {"dtype": np.uint16}, "unknown ids 300"),
    ],
)
def test_bad_label(pairs: Path, name: str, ids: Any, keywords: Any, sentence: str) -> None:
    write_label(pairs / name, ids, **keywords)
    dataset = open_dataset(pairs)
    with pytest.raises(BadDataset, match=sentence):
        dataset.load_label(dataset.samples[0])


def test_colour_label(pairs: Path) -> None:
    write_image(pairs / "a.png")
    dataset = open_dataset(pairs)
    with pytest.raises(BadDataset, match="RGB colours, expected an id per pixel"):
        dataset.load_label(dataset.samples[0])


@pytest.mark.parametrize("content", [b"", b"not a png", "truncated"])
def test_unreadable_label(pairs: Path, content: bytes | str) -> None:
    whole = (pairs / "a.png").read_bytes()
    (pairs / "a.png").write_bytes(whole[: len(whole) // 2] if isinstance(content, str) else content)
    dataset = open_dataset(pairs)
    with pytest.raises(BadDataset, match=r"a\.png cannot be read"):
        dataset.load_label(dataset.samples[0])


def test_a_turned_photo_may_have_its_label_turned(pairs: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(np.zeros((6, 8, 3), np.uint8)).save(pairs / "a.jpg", exif=exif)
    write_label(pairs / "a.png", 1, (8, 6))
    assert (image_size(pairs / "a.jpg"), image_size(pairs / "a.jpg", exif_orientation=True)) == ((6, 8), (8, 6))
    dataset = open_dataset(pairs)
    assert dataset.load_label(dataset.samples[0]).shape == (8, 6)


def test_unreadable_image(pairs: Path) -> None:
    (pairs / "a.jpg").write_bytes(b"no image")
    dataset = open_dataset(pairs)
    with pytest.raises(BadDataset, match=r"a\.jpg cannot be read as an image"):
        dataset.load_label(dataset.samples[0])


def test_cityscapes_unknown_value(tmp_path: Path) -> None:
    cityscapes(tmp_path, "val", "labelIds", [7, 60])
    dataset = open_dataset(tmp_path)
    with pytest.raises(BadDataset, match="values 60"):
        dataset.load_label(dataset.samples[0])


def test_cityscapes_half_labelled(tmp_path: Path) -> None:
    cityscapes(tmp_path, "val", "labelIds", [7])
    write_image(tmp_path / "leftImg8bit" / "val" / "ulm" / "ulm_001_leftImg8bit.png")
    with pytest.raises(BadDataset, match=r"ulm_001_gtFine_labelIds\.png is missing"):
        open_dataset(tmp_path)


def test_missing_and_empty_folder(tmp_path: Path) -> None:
    with pytest.raises(BadDataset, match="no folder at"):
        open_dataset(tmp_path / "nothing")
    with pytest.raises(BadDataset, match="holds no image"):
        open_dataset(tmp_path)
    (tmp_path / "notes.txt").write_text("no image")
    with pytest.raises(BadDataset, match="is a file"):
        open_dataset(tmp_path / "notes.txt")


def test_half_labelled(pairs: Path) -> None:
    (pairs / "c.png").unlink()
    with pytest.raises(BadDataset, match=r"c\.jpg is an image without its label c\.png, while 4 images"):
        open_dataset(pairs)


def test_label_without_image(pairs: Path) -> None:
    (pairs / "c.jpg").unlink()
    with pytest.raises(BadDataset, match=r"c\.png is neither the label of a c\.jpg"):
        open_dataset(pairs)


def test_two_images_of_one_name(pairs: Path) -> None:
    write_image(pairs / "a.bmp")
    with pytest.raises(BadDataset, match="share one name"):
        open_dataset(pairs)


def test_pairs_without_classes_file(pairs: Path) -> None:
    (pairs / "classes.json").unlink()
    with pytest.raises(BadDataset, match=r"no classes\.json"):
        open_dataset(pairs)


def test_folder_of_splits(tmp_path: Path) -> None:
    (tmp_path / "classes.json").write_text(json.dumps(CLASSES_JSON))
    with pytest.raises(BadDataset, match="but no image"):
        open_dataset(tmp_path)
    write_image(tmp_path / "train" / "a.jpg")
    with pytest.raises(BadDataset, match="only in its folders train: give one"):
        open_dataset(tmp_path)


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ("{", "cannot be used"),
        ("[1, 2]", "cannot be used"),
        ('{"task": "semantic"}', "names"),
        ('{"names": ["a"], "ignored": 3}', "ignored"),
        ('{"names": ["a"], "task": "detection"}', "task"),
        ('{"names": []}', "names no class"),
        ('{"names": ["a", "a"]}', "more than once"),
        ('{"names": ["a", "b"], "colors": [[0, 0, 0]]}', "1 colors for 2 names"),
        ('{"names": ["a"], "colors": [[0, 0, 256]]}', "outside 0 to 255"),
        ('{"names": ["a", "b"], "ignore": 1}', "also the id of the class 'b'"),
        ('{"names": ["a", "b"], "ignore": -1}', "expected an id"),
    ],
)
def test_broken_classes_file(pairs: Path, content: str, sentence: str) -> None:
    (pairs / "classes.json").write_text(content)
    with pytest.raises(BadDataset, match=sentence):
        open_dataset(pairs)
