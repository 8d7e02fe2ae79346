"""Make the compact copy of golden cases that lives in the repository.

    python tests/golden/compact.py FULL_DIRECTORY [FAMILY ...]

The full cases were recorded with the official implementation of each model. The copy keeps what the tests compare:
images, inputs and label maps whole and exact; float arrays thinned out (every 2nd, 4th, ... row and column) until they
are small; the margin as float16. ``outputs`` in the manifest says of each array which part it is.
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

import numpy as np

if __package__ in (None, ""):
    sys.path.insert(0, str(Path(__file__).parents[1]))

from golden.case import CASES, kept_part

FAMILIES = ("unet", "segformer", "pointrend", "panopticfcn", "maskrcnn")
DROPPED = {
    "unet": r"resized|prob",
    "segformer": r"resized|prob",
    "pointrend": r"step\d_fine_s|step\d_up_logits_s",
    "panopticfcn": r"sem_seg_s|inst_boxes",
    "maskrcnn": r"resized_u8|masks_soft_first4|det_boxes_net",
}
"""Between image and input, between logits and labels, and what follows from others: no test compares them."""
EXACT = ("input",)
LARGEST = {
    "unet": (130_000, 40_000),
    "segformer": (130_000, 40_000),
    "pointrend": (80_000, 12_000),
    "panopticfcn": (10_000, 10_000),
    "maskrcnn": (130_000, 40_000),
}
"""Bytes, before compression, that an array of logits, and one of an inner stage, may have: few where a case has dozens."""


def compact(source: Path, target: Path) -> None:
    """One case, ``manifest.json`` and ``io.npz``, from the folder ``source`` to ``target``."""
    manifest = json.loads((source / "manifest.json").read_text())
    with np.load(source / "io.npz") as stored:
        arrays = {name: stored[name] for name in stored.files}
    family, outputs = source.parent.name, dict(manifest["outputs"])
    for name in [name for name in arrays if re.fullmatch(DROPPED[family], name)]:
        del arrays[name], outputs[name]
    for name, array in arrays.items():
        if name == "margin":
            arrays[name] = np.minimum(array, np.float32(60000)).astype(np.float16)
        elif array.dtype == np.float32 and name not in EXACT and array.ndim > (1 if family == "panopticfcn" else 2):
            is_logits = "logits" in name or name == "sem_seg_s"
            axes = (2, 3) if array.ndim == 4 else (1, 2) if family == "pointrend" else (1,)
            arrays[name], outputs[name] = thinned(array, axes, outputs[name], LARGEST[family][0 if is_logits else 1])
    target.mkdir(parents=True, exist_ok=True)
    (target / "manifest.json").write_text(dumped({**manifest, "outputs": outputs}))
    np.savez_compressed(target / "io.npz", **arrays)


def thinned(array: np.ndarray, axes: tuple[int, ...], text: str, largest: int) -> tuple[np.ndarray, str]:
    """The array with every 2nd, 4th, ... place along ``axes`` (rows and columns, or tokens), and its description."""
    step, part = 1, array
    while part.nbytes > largest and min(part.shape[axis] for axis in axes) > 2:
        step *= 2
        part = array[tuple(slice(None, None, step if axis in axes else 1) for axis in range(array.ndim))]
    if step == 1:
        return array, text
    known = (*kept_part(text), *[slice(None)] * array.ndim)[: array.ndim]
    steps = [(each.step or 1) * (step if axis in axes else 1) for axis, each in enumerate(known)]
    brackets = ", ".join(":" if each == 1 else f"{had.start or ''}::{each}" for had, each in zip(known, steps, strict=True))
    return np.ascontiguousarray(part), f"[{brackets}] of: {text.partition(' Stored as')[0]}"


def dumped(manifest: dict[str, Any]) -> str:
    """JSON with one line for each top-level entry."""
    lines = (f" {json.dumps(key)}: {json.dumps(value)}" for key, value in manifest.items())
    return "{\n" + ",\n".join(lines) + "\n}\n"


def main(source: Path, families: list[str]) -> None:
    """Every case of ``families`` below ``source``."""
    for family in families or FAMILIES:
        for case in sorted(path.parent for path in (source / family).glob("*/manifest.json")):
            compact(case, CASES / family / case.name)
            size = (CASES / family / case.name / "io.npz").stat().st_size
            print(f"{family}/{case.name}: {size / 1e6:.2f} MB")


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
