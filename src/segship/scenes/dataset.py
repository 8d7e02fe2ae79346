"""Scenes on disk, in the layouts that `--data` reads."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from segship.core.predictions import MaskCrop
from segship.core.rle import compress, runs_of
from segship.scenes.classes import CLASSES, COLORS, IGNORE, THINGS
from segship.scenes.scene import generate

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from segship.core.spec import Task
    from segship.scenes.scene import Scene, Segment

PANOPTIC_ORDER = (*THINGS, *(class_id for class_id in range(len(CLASSES)) if class_id not in THINGS))
"""Class ids of the scenes in the order of panoptic data sets: things, then stuff. The things alone are the instance classes."""


_FILE: dict[Task, str] = {"semantic": "classes.json", "instance": "instances.json", "panoptic": "panoptic.json"}
_ABOUT = {"task": "semantic", "ignore": IGNORE, "names": CLASSES, "colors": COLORS}


def write_dataset(
    folder: Path,
    seeds: Iterable[int],
    size: tuple[int, int] = (256, 256),
    task: Task = "semantic",
) -> tuple[str, ...]:
    """Write one data set with a JPEG `street-SEED.jpg` for each seed, and its exact truth.

    Semantic: 8-bit labels `street-SEED.png` and `classes.json`. Instance: `instances.json` (COCO, run lengths) of the countable
    classes. Panoptic: `panoptic.json` and PNGs of segment ids in `panoptic` (COCO). COCO's category ids are positions from 1.

    `size` is (height, width) in pixels. JPEG is quality 95 without chroma subsampling, which keeps thin coloured
    things apart. Returns the names written, without suffix; files of the same name are replaced.
    """
    folder.mkdir(parents=True, exist_ok=True)
    truth = {}
    for seed in seeds:
        scene, name = generate(seed, size), f"street-{seed:05d}"
        Image.fromarray(scene.image).save(folder / f"{name}.jpg", quality=95, subsampling=0)
        truth[name] = _write_truth(folder, name, scene, task)
    about = _ABOUT if task == "semantic" else _coco(truth, size, task)
    (folder / _FILE[task]).write_text(json.dumps(about, indent=1 if task == "semantic" else None) + "\n", encoding="utf-8")
    return tuple(truth)


def _write_truth(folder: Path, name: str, scene: Scene, task: Task) -> list[dict[str, Any]]:
    """Write what goes into a file of its own; return what goes into the JSON."""
    if task == "semantic":
        Image.fromarray(scene.semantic).save(folder / f"{name}.png", optimize=True)
        return []
    if task == "instance":
        return list(_objects(scene))
    (folder / "panoptic").mkdir(exist_ok=True)
    ids = scene.panoptic  # COCO: id = R + 256 G + 65536 B
    colors = np.stack([ids & 255, ids >> 8, np.zeros_like(ids)], axis=-1).astype(np.uint8)
    Image.fromarray(colors).save(folder / "panoptic" / f"{name}.png", optimize=True)
    return [{"id": segment.id, **_described(scene, segment)} for segment in scene.segments]


def _coco(truth: dict[str, list[dict[str, Any]]], size: tuple[int, int], task: Task) -> dict[str, Any]:
    names = list(enumerate(truth, 1))
    if task == "instance":
        rows = ({"image_id": n, **row} for n, name in names for row in truth[name])
        annotations = [{"id": n, **row} for n, row in enumerate(rows, 1)]
    else:
        annotations = [{"image_id": n, "file_name": f"{name}.png", "segments_info": truth[name]} for n, name in names]
    classes = THINGS if task == "instance" else PANOPTIC_ORDER
    return {
        "images": [{"id": n, "file_name": f"{name}.jpg", "height": size[0], "width": size[1]} for n, name in names],
        "annotations": annotations,
        "categories": [
            {"id": n, "name": CLASSES[each], "isthing": int(each in THINGS), "color": COLORS[each]}
            for n, each in enumerate(classes, 1)
        ],
    }


def _objects(scene: Scene) -> Iterable[dict[str, Any]]:
    size = scene.instances.shape[0], scene.instances.shape[1]
    for segment in scene.segments:
        if segment.is_thing:
            row = _described(scene, segment)
            left, top, width, height = row["bbox"]
            pixels = scene.instances[top : top + height, left : left + width] == segment.id
            counts = compress(runs_of(MaskCrop(top, left, pixels), size))
            yield {**row, "segmentation": {"size": list(size), "counts": counts}}


def _described(scene: Scene, segment: Segment) -> dict[str, Any]:
    """What COCO says of an object and of a segment alike."""
    rows, columns = np.nonzero(scene.panoptic == segment.id)
    left, top = int(columns.min()), int(rows.min())
    return {
        "category_id": PANOPTIC_ORDER.index(segment.class_id) + 1,
        "bbox": [left, top, int(columns.max()) + 1 - left, int(rows.max()) + 1 - top],
        "area": len(rows),
        "iscrowd": 0,
    }
