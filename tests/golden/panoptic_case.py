"""One case of panoptic quality: truth and prediction in the COCO panoptic format, and what the official API makes of them.

    python tests/golden/panoptic_case.py FULL_DIRECTORY

makes the copy in the repository again: the pictures as they are, and of the JSON files what the metric needs.
"""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from segship.core.predictions import PanopticMap, Segment

FAMILY = "panoptic_quality"
SIDES = ("gt", "pred")
_KEPT = {"id", "category_id", "iscrowd", "isthing", "image_id", "file_name", "segments_info"}


def cases(root: Path) -> list[Path]:
    """The folders of all cases below ``root``."""
    return [file.parent for file in sorted((root / FAMILY).glob("*/expected.json"))]


def expected(folder: Path) -> dict[str, Any]:
    """What the official API computed, as shares of one."""
    content: dict[str, Any] = json.loads((folder / "expected.json").read_text())
    return content


def categories(folder: Path) -> dict[int, bool]:
    """Category id, and whether it is a thing, in the file's order: the position is segship's class id."""
    return {each["id"]: bool(each["isthing"]) for each in json.loads((folder / "gt.json").read_text())["categories"]}


def pairs(folder: Path) -> Iterator[tuple[PanopticMap, PanopticMap]]:
    """Truth and prediction of each image."""
    truth, prediction = (_maps(folder, side) for side in SIDES)
    for image_id, each in truth.items():
        yield each, prediction[image_id]


def _maps(folder: Path, side: str) -> dict[int, PanopticMap]:
    things = categories(folder)
    class_ids = {category: position for position, category in enumerate(things)}
    found = {}
    for annotation in json.loads((folder / f"{side}.json").read_text())["annotations"]:
        rgb = np.asarray(Image.open(folder / side / annotation["file_name"]), np.int32)
        segments = (
            Segment(s["id"], class_ids[s["category_id"]], things[s["category_id"]], crowd=bool(s.get("iscrowd", 0)))
            for s in annotation["segments_info"]
        )
        found[annotation["image_id"]] = PanopticMap(rgb @ np.array([1, 256, 256**2], np.int32), tuple(segments))
    return found


def compact(source: Path, target: Path) -> None:
    """One case, without names, addresses and boxes."""
    for side in SIDES:
        shutil.copytree(source / side, target / side, dirs_exist_ok=True, copy_function=shutil.copyfile)
        content = json.loads((source / f"{side}.json").read_text())
        kept = {key: _kept(content[key]) for key in ("categories", "annotations")}
        (target / f"{side}.json").write_text(json.dumps(kept, separators=(",", ":")) + "\n")
    (target / "expected.json").write_text(json.dumps(expected(source), separators=(",", ":")) + "\n")


def _kept(value: Any) -> Any:
    if isinstance(value, list):
        return [_kept(each) for each in value]
    return {key: _kept(each) for key, each in value.items() if key in _KEPT} if isinstance(value, dict) else value


if __name__ == "__main__":
    for case in cases(Path(sys.argv[1])):
        compact(case, Path(__file__).parent / "cases" / FAMILY / case.name)
