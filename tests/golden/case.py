"""One golden case: the official model's checkpoint, image, stages and result, as its manifest tells them."""

from __future__ import annotations

import json
import os
import pickle
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from golden.weights import state_dict

CASES = Path(__file__).parent / "cases"
"""The copy in the repository."""
NAMED = os.environ.get("SEGSHIP_GOLDEN")
"""A directory of all official results; the copy serves where none is named."""

_NUMBER = r"([\d.]+(?:e-?\d+)?)"
_IMAGENET_MEAN, _IMAGENET_STD = [123.675, 116.28, 103.53], [58.395, 57.12, 57.375]


@dataclass(frozen=True)
class Limits:
    """How close a faithful implementation comes: absolute differences of input and logits, the margin (in logits) below
    which a label may flip, and the share of all pixels, in percent, that must have the official label."""

    input: float
    logits: float
    margin: float
    percent: float


DEFAULTS = {"unet": Limits(1e-6, 3e-4, 1e-3, 99.9), "segformer": Limits(1e-5, 2e-4, 1e-3, 99.95)}
"""For manifests whose notes do not say."""


@dataclass(frozen=True)
class Case:
    """The folder ``FAMILY/NAME`` with ``manifest.json`` and ``io.npz``."""

    folder: Path

    @property
    def family(self) -> str:
        return self.folder.parent.name

    @property
    def name(self) -> str:
        return f"{self.family}/{self.folder.name}"

    @cached_property
    def manifest(self) -> dict[str, Any]:
        content: dict[str, Any] = json.loads((self.folder / "manifest.json").read_text())
        return content

    @cached_property
    def arrays(self) -> dict[str, np.ndarray]:
        with np.load(self.folder / "io.npz") as stored:
            return {name: stored[name] for name in stored.files}

    @property
    def model(self) -> dict[str, Any]:
        """Every fact that inference needs."""
        facts: dict[str, Any] = self.manifest["model"]
        return facts

    @property
    def image(self) -> np.ndarray:
        """(height, width, 3) uint8 RGB; a grey image is repeated."""
        image = self.arrays["image"]
        return np.repeat(image.reshape(*image.shape[:2], 1), 3, axis=2) if image.ndim == 2 or image.shape[2] == 1 else image

    @property
    def labels(self) -> np.ndarray:
        """The official label map (height, width)."""
        name = next(name for name in ("mask", "labels", "label_map") if name in self.arrays)
        return self.arrays[name].astype(np.uint16)

    @property
    def margin(self) -> np.ndarray:
        """(height, width): how far each pixel is from another label, in logits."""
        return self.arrays["margin"].astype(np.float32)

    def part(self, name: str, whole: np.ndarray) -> np.ndarray:
        """The part of ``whole`` that the array ``name`` holds."""
        return whole[kept_part(self.manifest["outputs"][name])]

    @cached_property
    def limits(self) -> Limits:
        """Read from the manifest's notes."""
        notes, default = " ".join(self.manifest["notes"]), DEFAULTS[self.family]
        return Limits(
            input=_found(rf"input exact (?:to {_NUMBER}|\(or {_NUMBER} absolute\))", notes, default.input),
            logits=_found(rf"logits \|diff\| <= {_NUMBER}", notes, default.logits),
            margin=_found(rf"wherever margin > {_NUMBER}", notes, default.margin),
            percent=_found(rf"on >= {_NUMBER}% of all", notes, default.percent),
        )

    def write_checkpoint(self, folder: Path) -> Path:
        """The checkpoint file as the official code writes it."""
        return _WRITERS[self.family](state_dict(self.manifest), self.model, folder / self.folder.name)

    @property
    def facts(self) -> dict[str, Any]:
        """Facts that this case states beside the file: those in which it differs from the published configuration."""
        return _FACTS[self.family](self.model)


def of_engines(test: Any) -> Any:
    """A decorator. Exporting a ResNet-50 takes long: by default, engines of small networks are run instead, in tests/pipeline."""
    return test if NAMED else pytest.mark.slow(test)


def cases(root: Path, *families: str) -> Iterator[Case]:
    """Every case of ``families`` (of all that the tests know, if none is named) below ``root``."""
    for family in families or _WRITERS:
        for manifest in sorted((root / family).glob("*/manifest.json")):
            yield Case(manifest.parent)


def kept_part(text: str) -> tuple[slice, ...]:
    """The slices that an array's description gives: ``... subsampled [:, :, ::4, ::4]. Stored as ...``; () for whole arrays."""
    match = re.search(r"\[([:\d, ]*:[:\d, ]*)\]", text)
    if not match:
        return ()
    return tuple(slice(*(int(number) if number else None for number in part.strip().split(":"))) for part in match[1].split(","))


def _found(pattern: str, text: str, default: float) -> float:
    match = re.search(pattern, text)
    return float(next(group for group in match.groups() if group)) if match else default


def _write_flat_with_mask_values(state: dict[str, Any], model: dict[str, Any], path: Path) -> Path:
    return _saved({**_tensors(state), "mask_values": list(range(max(2, model["n_classes"])))}, path)


def _write_mmcv(state: dict[str, Any], model: dict[str, Any], path: Path) -> Path:
    n = model["num_classes"]
    meta = {
        "CLASSES": tuple(f"class {i}" for i in range(n)),
        "PALETTE": [[i, 2 * i % 256, 255] for i in range(n)],
        "iter": 160000,
    }
    return _saved({"meta": meta, "state_dict": _tensors(state), "optimizer": {"state": {}, "param_groups": []}}, path)


def _write_detectron2(state: dict[str, Any], _model: dict[str, Any], path: Path) -> Path:
    """A file of the model zoo: a plain pickle of numpy arrays."""
    content = {"model": state, "__author__": "Detectron2 Model Zoo", "matching_heuristics": True}
    path = path.with_suffix(".pkl")
    path.write_bytes(pickle.dumps(content))
    return path


def _tensors(state: dict[str, Any]) -> dict[str, Any]:
    import torch

    return {key: torch.from_numpy(value) for key, value in state.items()}


def _saved(content: dict[str, Any], path: Path) -> Path:
    import torch

    torch.save(content, path.with_suffix(".pth"))
    return path.with_suffix(".pth")


def _unet_facts(model: dict[str, Any]) -> dict[str, Any]:
    facts = {"scale": model["scale"]}
    return facts if model["n_classes"] > 1 else {**facts, "threshold": model["out_threshold"]}


def _segformer_facts(model: dict[str, Any]) -> dict[str, Any]:
    resize = model["resize"]
    facts: dict[str, Any] = {"test_mode": model["test_mode"]}
    facts["resize"] = {
        "type": "fit",
        "long": max(resize["img_scale"]),
        "short": min(resize["img_scale"]),
        "kernel": "cv2_linear",
        "divisor": resize.get("size_divisor"),
    }
    if model["test_mode"] == "slide":
        facts["slide"] = {"crop": model["test_cfg"]["crop_size"], "stride": model["test_cfg"]["stride"]}
    for fact, official in (("mean", _IMAGENET_MEAN), ("std", _IMAGENET_STD), ("num_heads", [1, 2, 5, 8])):
        if list(model[fact]) != official:
            facts[fact] = tuple(model[fact])
    return facts


def _pointrend_facts(model: dict[str, Any]) -> dict[str, Any]:
    changed = model["config_changes"]
    facts: dict[str, Any] = {
        "subdivision_steps": model["subdivision_steps"],
        "subdivision_points": model["subdivision_num_points"],
        "channels": model["input_format"].lower(),
        "mean": tuple(model["pixel_mean_bgr"]),
        "std": tuple(model["pixel_std"]),
        "stride_in_1x1": model["backbone"]["stride_in_1x1"],
    }
    facts["resize"] = {
        "type": "shortest_edge",
        "short": changed["INPUT.MIN_SIZE_TEST"],
        "long": changed["INPUT.MAX_SIZE_TEST"],
        "kernel": "pil_bilinear",
        "rounding": "detectron2",
    }
    return facts


_WRITERS = {"unet": _write_flat_with_mask_values, "segformer": _write_mmcv, "pointrend": _write_detectron2}
_FACTS = {"unet": _unet_facts, "segformer": _segformer_facts, "pointrend": _pointrend_facts}
