"""COCO panoptic as folders have it, and each way in which it is broken."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from segship.core.errors import BadDataset
from segship.core.predictions import PanopticMap, Segment
from segship.datasets import open_dataset

SIZE = (6, 8)
IDS = np.zeros(SIZE, np.int64)
IDS[0:2] = 7
IDS[2:4] = 300 + 65536 * 200  # all three bytes
IDS[4, :4] = 5


def picture(ids: np.ndarray) -> Image.Image:
    return Image.fromarray(np.stack([ids % 256, ids // 256 % 256, ids // 65536], -1).astype(np.uint8))


def content() -> dict[str, Any]:
    segments = [
        {"id": 300 + 65536 * 200, "category_id": 4, "iscrowd": 0, "area": 16},
        {"id": 7, "category_id": 90, "iscrowd": 0, "area": 16},
        {"id": 5, "category_id": 4, "iscrowd": 1, "area": 4},
    ]
    return {
        "images": [{"id": "a1", "file_name": "a.jpg", "height": SIZE[0], "width": SIZE[1]}],
        "annotations": [{"image_id": "a1", "file_name": "a.png", "segments_info": segments}],
        "categories": [
            {"id": 1, "name": "sky", "isthing": 0, "color": [1, 2, 3]},
            {"id": 4, "name": "cat", "isthing": 1, "color": [4, 5, 6]},
            {"id": 90, "name": "grass", "isthing": 0, "color": [7, 8, 9]},
        ],
    }


def write(root: Path, what: Any, *, pngs: str = "annotations/panoptic_val2017", ids: np.ndarray = IDS) -> Path:
    for folder in (root / "annotations", root / "val2017", root / pngs):
        folder.mkdir(parents=True, exist_ok=True)
    (root / "annotations" / "panoptic_val2017.json").write_text(json.dumps(what))
    Image.fromarray(np.zeros((*SIZE, 3), np.uint8)).save(root / "val2017" / "a.jpg")
    picture(ids).save(root / pngs / "a.png")
    return root


def truth_of(root: Path) -> PanopticMap:
    dataset = open_dataset(root)
    truth = dataset.load_truth(dataset.samples[0])
    assert isinstance(truth, PanopticMap)
    return truth


@pytest.mark.parametrize("pngs", ["annotations/panoptic_val2017", "panoptic_val2017", "masks"])
def test_a_panoptic_folder(pngs: str, tmp_path: Path) -> None:
    dataset = open_dataset(write(tmp_path, content(), pngs=pngs))
    assert (dataset.layout, dataset.task, dataset.notes) == ("coco-panoptic", "panoptic", ())
    assert (dataset.classes, dataset.category_ids) == (("cat", "sky", "grass"), (4, 1, 90))  # things first
    assert (dataset.things, dataset.colors) == ((True, False, False), ((4, 5, 6), (1, 2, 3), (7, 8, 9)))
    truth = truth_of(tmp_path)
    assert np.array_equal(truth.ids, np.select([IDS == 7, IDS == 5, IDS > 300], [2, 3, 1]))
    assert truth.segments == (Segment(1, 0, True), Segment(2, 2, False), Segment(3, 0, True, crowd=True))


def test_images_and_maps_of_one_name_are_not_mixed_up(tmp_path: Path) -> None:
    what = content()
    what["images"][0]["file_name"] = "a.png"
    write(tmp_path, what)
    Image.fromarray(np.zeros((*SIZE, 3), np.uint8)).save(tmp_path / "val2017" / "a.png")
    sample = open_dataset(tmp_path).samples[0]
    assert sample.label is not None
    assert (sample.image.parent.name, sample.label.parent.name) == ("val2017", "panoptic_val2017")


def test_the_task_chooses_where_a_folder_has_both(tmp_path: Path) -> None:
    write(tmp_path, content())
    both = {**content(), "annotations": []}
    (tmp_path / "annotations" / "instances_val2017.json").write_text(json.dumps(both))
    assert open_dataset(tmp_path, "instance").task == "instance"
    assert open_dataset(tmp_path, "panoptic").task == open_dataset(tmp_path).task == "panoptic"


def test_segments_of_unknown_categories_become_void(tmp_path: Path) -> None:
    what = content()
    what["annotations"][0]["segments_info"][0]["category_id"] = 77
    write(tmp_path, what)
    assert open_dataset(tmp_path).notes == (
        "1 segments of categories that panoptic_val2017.json does not list (77) were left out",
    )
    truth = truth_of(tmp_path)
    assert np.all(truth.ids[IDS > 300] == 0)
    assert [each.class_id for each in truth.segments] == [2, 0]


def test_an_image_without_its_map_is_left_out_and_said(tmp_path: Path) -> None:
    what = content()
    what["images"].append({"id": 2, "file_name": "b.jpg", "height": 6, "width": 8})
    write(tmp_path, what)
    Image.fromarray(np.zeros((*SIZE, 3), np.uint8)).save(tmp_path / "val2017" / "b.jpg")
    dataset = open_dataset(tmp_path)
    assert (len(dataset), len(dataset.notes)) == (1, 1)
    assert "1 of 2 images are not on disk with their panoptic PNG and were left out (the first: b.jpg)" in dataset.notes
    (tmp_path / "annotations" / "panoptic_val2017" / "a.png").unlink()
    with pytest.raises(BadDataset, match=r"of the 2 images .* none is in .* \(2 images, 0 PNGs found\)"):
        open_dataset(tmp_path)


def test_map_and_list_must_fit(tmp_path: Path) -> None:
    with pytest.raises(BadDataset, match="segment 9 is not in the JSON"):
        truth_of(write(tmp_path, content(), ids=np.where(IDS == 0, 9, IDS)))
    with pytest.raises(BadDataset, match="segment 5 has no pixel"):
        truth_of(write(tmp_path, content(), ids=np.where(IDS == 5, 0, IDS)))
    twice = content()
    twice["annotations"][0]["segments_info"].append(twice["annotations"][0]["segments_info"][1])
    with pytest.raises(BadDataset, match="lists a segment twice"):
        truth_of(write(tmp_path, twice))


def test_broken_maps(tmp_path: Path) -> None:
    with pytest.raises(BadDataset, match=r"has 5 x 8 pixels .* a.jpg has 6 x 8"):
        truth_of(write(tmp_path, content(), ids=IDS[:5]))
    file = tmp_path / "annotations" / "panoptic_val2017" / "a.png"
    picture(IDS).convert("L").save(file)
    with pytest.raises(BadDataset, match="of the mode L, expected RGB"):
        truth_of(tmp_path)
    file.write_bytes(b"no picture")
    with pytest.raises(BadDataset, match=r"a.png cannot be read"):
        truth_of(tmp_path)


def test_categories_must_say_what_they_are(tmp_path: Path) -> None:
    what = content()
    del what["categories"][1]["isthing"]
    with pytest.raises(BadDataset, match="category cat has no isthing"):
        open_dataset(write(tmp_path, what))
