"""COCO results hold what was predicted."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as official

from segship.core.predictions import PanopticMap, Segment
from segship.results import coco_results, panoptic_image, picture_bytes, segments_info
from unit.tasks.objects import make, random_prediction, random_truth


# pycocotools 2.0.11's own decode, under numpy 2
@pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy:DeprecationWarning")
def test_objects() -> None:
    rng = np.random.default_rng(0)
    objects = random_prediction(rng, random_truth(rng, 3), 3, ties=False)
    rows = coco_results(objects, "street", (5, 7, 90))
    assert len(rows) == len(objects) > 2
    for n, row in enumerate(rows):
        assert (row["image_id"], row["category_id"]) == ("street", (5, 7, 90)[objects.classes[n]])
        assert np.array_equal(official.decode(row["segmentation"]), objects.masks[n].full(objects.size))
        x, y, width, height = row["bbox"]
        assert [x, y, x + width, y + height] == objects.boxes[n].tolist()
        assert np.float32(row["score"]) == objects.scores[n]


def test_no_objects_and_a_single_one() -> None:
    assert coco_results(make([]), 1) == []
    assert [row["category_id"] for row in coco_results(make([(0, 0, 3, 3)], [6]), 1)] == [6]


@pytest.mark.parametrize("top_id", [3, 300, 70000])
def test_a_panoptic_map(top_id: int) -> None:
    ids = np.zeros((4, 5), np.int32)
    ids[0], ids[1:3] = top_id, 1
    segments = (Segment(1, 0, True, score=0.75), Segment(top_id, 2, False))
    prediction = PanopticMap(ids, segments)
    png = Image.open(io.BytesIO(picture_bytes(panoptic_image(prediction), "PNG")))
    red, green, blue = (np.asarray(each).astype(int) for each in png.split())
    assert np.array_equal(red + 256 * green + 65536 * blue, ids)
    assert segments_info(prediction, (11, 12, 13)) == [
        {"id": 1, "category_id": 11, "isthing": 1, "iscrowd": 0, "area": 10, "score": 0.75},
        {"id": top_id, "category_id": 13, "isthing": 0, "iscrowd": 0, "area": 5},
    ]
