"""Random objects, and what pycocotools itself says of them when it reads them from JSON."""

from __future__ import annotations

import contextlib
import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from segship.core.predictions import Instances, MaskCrop
from segship.results import coco_results

SIZE = (40, 56)


def make(
    boxes: Sequence[tuple[int, int, int, int]],
    classes: Sequence[int] | None = None,
    scores: Sequence[float] | None = None,
    crowd: Sequence[bool] | None = None,
    size: tuple[int, int] = SIZE,
) -> Instances:
    """Objects that fill their boxes (x0, y0, x1, y1)."""
    return Instances(
        size=size,
        boxes=np.array(boxes, np.float32).reshape(-1, 4),
        scores=np.array(scores if scores is not None else [1.0] * len(boxes), np.float32),
        classes=np.array(classes if classes is not None else [0] * len(boxes), np.int64),
        masks=tuple(MaskCrop(y0, x0, np.ones((y1 - y0, x1 - x0), bool)) for x0, y0, x1, y1 in boxes),
        crowd=None if crowd is None else np.array(crowd, bool),
    )


def random_truth(rng: np.random.Generator, n_classes: int, most: int = 8) -> Instances:
    """Up to ``most`` objects of ragged shape, one in eight a crowd."""
    n = int(rng.integers(0, most + 1))
    corners = [_box(rng) for _ in range(n)]
    masks = tuple(MaskCrop(y0, x0, rng.random((y1 - y0, x1 - x0)) < 0.9) for x0, y0, x1, y1 in corners)
    return Instances(
        SIZE,
        np.array(corners, np.float32).reshape(-1, 4),
        np.ones(n, np.float32),
        rng.integers(0, n_classes, n),
        masks,
        rng.random(n) < 0.125,
    )


def random_prediction(rng: np.random.Generator, truth: Instances, n_classes: int, *, ties: bool) -> Instances:
    """Most objects of the truth, moved a little, some twice, and a few that are not there. ``ties``: few different scores."""
    corners, classes = [], []
    for box, class_id in zip(truth.boxes, truth.classes, strict=True):
        for _ in range(rng.integers(0, 3)):
            x0, y0, x1, y1 = (int(v) for v in box)
            x0, y0 = max(0, x0 + int(rng.integers(-1, 2))), max(0, y0 + int(rng.integers(-1, 2)))
            corners.append((x0, y0, max(x0 + 1, x1), max(y0 + 1, y1)))
            classes.append(int(class_id) if rng.random() < 0.9 else int(rng.integers(0, n_classes)))
    for _ in range(rng.integers(0, 4)):
        corners.append(_box(rng))
        classes.append(int(rng.integers(0, n_classes)))
    scores = -np.sort(-(rng.integers(1, 4, len(corners)) / 4 if ties else rng.random(len(corners))))
    return make(corners, classes, scores)


def _box(rng: np.random.Generator) -> tuple[int, int, int, int]:
    x0, y0 = int(rng.integers(0, SIZE[1] - 2)), int(rng.integers(0, SIZE[0] - 2))
    return x0, y0, int(rng.integers(x0 + 1, SIZE[1] + 1)), int(rng.integers(y0 + 1, SIZE[0] + 1))


def official(truths: list[Instances], predictions: list[Instances], n_classes: int, kind: str, folder: Path) -> Any:
    """COCOeval's precision (10 IoU thresholds, 101 recalls, class) of all areas and 100 detections; -1: no truth."""
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO(str(_truth_file(truths, n_classes, folder)))
        rows = [row for i, each in enumerate(predictions) for row in coco_results(each, i)]
        (folder / "results.json").write_text(json.dumps(rows))
        evaluator = COCOeval(truth, truth.loadRes(str(folder / "results.json")), kind)
        evaluator.evaluate()
        evaluator.accumulate()
        evaluator.summarize()
    return evaluator.eval["precision"][:, :, :, 0, -1]


def official_ap(*arguments: Any) -> float:
    """COCOeval's AP@[.5:.95] in percent."""
    precision = official(*arguments)
    return 100 * float(np.mean(precision[precision > -1]))


def _truth_file(truths: list[Instances], n_classes: int, folder: Path) -> Path:
    annotations = []
    for image_id, truth in enumerate(truths):
        for row, crowd in zip(coco_results(truth, image_id), truth.crowd if truth.crowd is not None else (), strict=True):
            x, y, w, h = row["bbox"]
            annotations.append({**row, "id": len(annotations) + 1, "iscrowd": int(crowd), "area": w * h, "bbox": [x, y, w, h]})
    content = {
        "info": {},
        "images": [
            {"id": i, "file_name": f"{i}.png", "height": each.size[0], "width": each.size[1]} for i, each in enumerate(truths)
        ],
        "annotations": annotations,
        "categories": [{"id": i, "name": str(i)} for i in range(n_classes)],
    }
    (folder / "truth.json").write_text(json.dumps(content))
    return folder / "truth.json"
