"""COCO instances as folders have them, and each way in which they are broken."""

from __future__ import annotations

import contextlib
import io
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as official
from pycocotools.coco import COCO

from segship.core.errors import BadDataset
from segship.core.predictions import Instances
from segship.datasets import open_dataset

SIZE = (30, 40)
TRIANGLE = [[3.5, 2.25, 20.0, 5.5, 9.75, 25.0]]
TWO_PARTS = [[1, 1, 8, 1, 8, 8, 1, 8], [30.2, 20.1, 38.9, 21.0, 33.3, 29.9]]

# pycocotools 2.0.11's own decode, under numpy 2
OFFICIAL_DECODE = pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy:DeprecationWarning")


def run_lengths(*, compressed: bool) -> dict[str, Any]:
    mask = np.zeros(SIZE, np.uint8, order="F")
    mask[4:20, 10:31] = 1
    mask[8:12, 15:18] = 0
    if compressed:
        return {"size": list(SIZE), "counts": official.encode(mask)["counts"].decode()}
    flat = mask.ravel(order="F")
    edges = np.flatnonzero(np.diff(flat)) + 1
    return {"size": list(SIZE), "counts": np.diff([0, *edges, flat.size]).tolist()}


def content() -> dict[str, Any]:
    """Two images; polygons, both kinds of run lengths and a crowd; category ids with a gap, out of order."""
    shapes = [TRIANGLE, TWO_PARTS, run_lengths(compressed=True), run_lengths(compressed=False)]
    return {
        "images": [{"id": i, "file_name": f"{i:03}.jpg", "height": SIZE[0], "width": SIZE[1]} for i in (7, 3)],
        "annotations": [
            {
                "id": n,
                "image_id": 7,
                "category_id": (9, 2, 9, 2)[n],
                "segmentation": shape,
                "bbox": [1.5, 2, 10, 11.25],
                "area": 9.0,
                "iscrowd": int(n == 3),
            }
            for n, shape in enumerate(shapes)
        ],
        "categories": [{"id": 9, "name": "dog"}, {"id": 2, "name": "cat"}],
    }


def write(root: Path, what: Any, file: str = "annotations/instances_val2017.json", images: str = "val2017") -> Path:
    (root / file).parent.mkdir(parents=True, exist_ok=True)
    (root / images).mkdir(parents=True, exist_ok=True)
    (root / file).write_text(what if isinstance(what, str) else json.dumps(what))
    for name in ("007.jpg", "003.jpg"):
        Image.fromarray(np.zeros((*SIZE, 3), np.uint8)).save(root / images / name)
    return root


def truth_of(root: Path, name: str = "007") -> Instances:
    dataset = open_dataset(root)
    truth = dataset.load_truth(next(each for each in dataset.samples if each.name == name))
    assert isinstance(truth, Instances)
    return truth


@OFFICIAL_DECODE
def test_masks_are_pycocotools_own(tmp_path: Path) -> None:
    write(tmp_path, content())
    truth = truth_of(tmp_path)
    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO(str(tmp_path / "annotations" / "instances_val2017.json"))
    for mask, row in zip(truth.masks, coco.loadAnns(coco.getAnnIds(imgIds=[7])), strict=True):
        assert np.array_equal(mask.full(SIZE), coco.annToMask(row))
        assert mask.area > 50
    assert truth.classes.tolist() == [1, 0, 1, 0]  # by category id
    assert truth.crowd is not None
    assert truth.crowd.tolist() == [False, False, False, True]
    assert truth.boxes[0].tolist() == [1.5, 2, 11.5, 13.25]


def test_an_image_without_objects_is_truth_too(tmp_path: Path) -> None:
    truth = truth_of(write(tmp_path, content()), "003")
    assert (len(truth), truth.size, truth.boxes.shape) == (0, SIZE, (0, 4))


@pytest.mark.parametrize(
    ("file", "images", "place"),
    [
        ("annotations/instances_val2017.json", "val2017", ""),
        ("annotations/instances_val2017.json", "val2017", "val2017"),
        ("annotations/instances_val2017.json", "val2017", "annotations"),
        ("annotations/instances_val2017.json", "val2017", "annotations/instances_val2017.json"),
        ("annotations/instances_val2017.json", "images/val2017", ""),
        ("_annotations.coco.json", ".", ""),
        ("my labels.json", "images", ""),
    ],
)
def test_folders_as_they_are_found(file: str, images: str, place: str, tmp_path: Path) -> None:
    write(tmp_path, content(), file, images)
    dataset = open_dataset(tmp_path / place)
    assert (dataset.layout, dataset.task, dataset.classes) == ("coco-instances", "instance", ("cat", "dog"))
    assert (dataset.category_ids, dataset.notes, dataset.labelled) == ((2, 9), (), True)
    assert [sample.name for sample in dataset.samples] == ["007", "003"]
    assert all(sample.image.is_file() for sample in dataset.samples)


def test_of_several_splits_val_is_taken(tmp_path: Path) -> None:
    for split in ("train2017", "val2017"):
        write(tmp_path, content(), f"annotations/instances_{split}.json", split)
    write(
        tmp_path, {**content(), "categories": [{"id": 1, "name": "person", "keypoints": []}]}, "annotations/person_keypoints.json"
    )
    write(tmp_path, content(), "annotations/stuff_val2017.json")
    (tmp_path / "annotations" / "captions_val2017.json").write_text('{"images": [], "annotations": []}')
    dataset = open_dataset(tmp_path)
    assert dataset.notes == (
        "of the annotations instances_train2017.json, instances_val2017.json, instances_val2017.json was taken",
    )
    shutil.move(tmp_path / "annotations" / "instances_val2017.json", tmp_path / "annotations" / "instances_test2017.json")
    with pytest.raises(BadDataset, match="give the path of one of these files"):
        open_dataset(tmp_path)
    assert open_dataset(tmp_path / "annotations" / "instances_test2017.json").labelled


def test_missing_images_are_left_out_and_said(tmp_path: Path) -> None:
    write(tmp_path, content())
    (tmp_path / "val2017" / "003.jpg").unlink()
    dataset = open_dataset(tmp_path)
    assert [sample.name for sample in dataset.samples] == ["007"]
    assert dataset.notes == ("1 of 2 images are not on disk and were left out (the first: 003.jpg)",)
    (tmp_path / "val2017" / "007.jpg").unlink()
    with pytest.raises(BadDataset, match=r"none of the 2 images of .*instances_val2017.json is in .* \(such as 003.jpg\)"):
        open_dataset(tmp_path)


def test_objects_that_belong_to_nothing_are_left_out_and_said(tmp_path: Path) -> None:
    what = content()
    what["annotations"][0]["category_id"] = 5
    what["annotations"][1]["image_id"] = 99
    write(tmp_path, what)
    assert open_dataset(tmp_path).notes == (
        "1 objects of images that instances_val2017.json does not list were left out",
        "1 objects of categories that instances_val2017.json does not list (5) were left out",
    )
    assert len(truth_of(tmp_path)) == 2


def test_an_object_without_area_stays(tmp_path: Path) -> None:
    what = content()
    empty = {"size": list(SIZE), "counts": [SIZE[0] * SIZE[1]]}
    what["annotations"][0] |= {"bbox": [3, 4, 0, 0], "segmentation": empty}
    truth = truth_of(write(tmp_path, what))
    assert (len(truth), truth.masks[0].area, truth.boxes[0].tolist()) == (4, 0, [3, 4, 3, 4])


def test_without_a_box_the_mask_gives_it(tmp_path: Path) -> None:
    what = content()
    del what["annotations"][2]["bbox"]
    assert truth_of(write(tmp_path, what)).boxes[2].tolist() == [10, 4, 31, 20]


@pytest.mark.parametrize(
    ("segmentation", "sentence"),
    [
        ([], "has a box but no mask"),
        (None, "has a box but no mask"),
        ([[]], "polygon of 0 numbers"),
        ([[1, 2]], "polygon of 2 numbers"),
        ([[1, 2, 3, 4], [1, 1, 5, 1, 5, 5]], "polygon of 4 numbers"),
        ([[1, 1, 1e9, 1, 5, 5]], "far outside"),
        ("abc", "Expected"),
        ({"size": [30, 41], "counts": [1230]}, "mask of 30 x 41 pixels, its image 30 x 40"),
        ({"size": [30, 40], "counts": [1199]}, "add up to 1199"),
        ({"size": [30, 40], "counts": [1201, -1]}, ">= 0"),
        ({"size": [30, 40], "counts": "o"}, "cut off"),
        ({"size": [30, 40], "counts": [10**30]}, "[Ii]nt"),
    ],
)
def test_masks_that_cannot_be_drawn(segmentation: Any, sentence: str, tmp_path: Path) -> None:
    what = content()
    what["annotations"][1]["segmentation"] = segmentation
    write(tmp_path, what)
    with pytest.raises(BadDataset, match=f"an object of the image 007.jpg cannot be used: .*{sentence}"):
        truth_of(tmp_path)


def test_an_image_of_another_size(tmp_path: Path) -> None:
    write(tmp_path, content())
    Image.fromarray(np.zeros((31, 40, 3), np.uint8)).save(tmp_path / "val2017" / "007.jpg")
    with pytest.raises(BadDataset, match=r"has 30 x 40 pixels .* 007.jpg has 31 x 40"):
        truth_of(tmp_path)


def changed(change: Callable[[dict[str, Any]], Any]) -> dict[str, Any]:
    what = content()
    change(what)
    return what


@pytest.mark.parametrize(
    ("what", "sentence"),
    [
        ("{", "cannot be used as COCO annotations"),
        ("", "cannot be used as COCO annotations"),
        (json.dumps(content())[:-300], "cannot be used as COCO annotations"),
        (changed(lambda c: c["images"].clear()), "lists no image"),
        (changed(lambda c: c["categories"].clear()), "lists no category"),
        (changed(lambda c: c["images"].append(c["images"][0])), "image id 7 2 times"),
        (changed(lambda c: c["images"][0].update(file_name="003.jpg")), "image file_name 003.jpg 2 times"),
        (changed(lambda c: c["categories"].append({"id": 2, "name": "cow"})), "category id 2 2 times"),
        (changed(lambda c: c["images"][0].update(file_name="../secret.jpg")), "expected a path inside"),
        (changed(lambda c: c["images"][0].update(file_name="/etc/secret.jpg")), "expected a path inside"),
        (changed(lambda c: c["images"][0].pop("width")), "width"),
        (changed(lambda c: c["images"][0].update(width=0)), "width"),
        (changed(lambda c: c["annotations"][0].update(category_id="dog")), "category_id"),
    ],
)
def test_broken_files(what: Any, sentence: str, tmp_path: Path) -> None:
    with pytest.raises(BadDataset, match=sentence):
        open_dataset(write(tmp_path, what))


def test_json_of_other_kinds_is_no_business_of_coco(tmp_path: Path) -> None:
    write(tmp_path, '{"images": 3}', "report.json", ".")
    write(tmp_path, "{", "settings.json", ".")
    assert open_dataset(tmp_path).layout == "plain"
    with pytest.raises(BadDataset, match="is a file"):
        open_dataset(tmp_path / "report.json")
