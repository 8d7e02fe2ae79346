"""A golden case of Mask R-CNN: its facts, and every difference from the official implementation as a sentence."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch

from golden.case import Case, kept_part
from golden.weights import state_dict
from segship.core.predictions import Instances

FAMILY = "maskrcnn"


@dataclass(frozen=True)
class Limits:
    """``maps``: share of a map's largest value (the strict one); ``box`` in pixels; ``pixels``: share of all, in percent."""

    maps: float
    box: float
    score: float
    proposals: float
    logits: float
    iou: float
    pixels: float
    input: float = 1e-5


class MaskRCNNCase(Case):
    """The folder ``maskrcnn/NAME`` of mmdetection's or torchvision's model."""

    @property
    def is_mmdetection(self) -> bool:
        return "mmdetection" in self.model["name"]

    @cached_property
    def tensors(self) -> dict[str, torch.Tensor]:
        return {key: torch.from_numpy(value) for key, value in state_dict(self.manifest).items()}

    def write(self, path: Path, tensors: dict[str, torch.Tensor] | None = None) -> Path:
        """The checkpoint file as the official code writes it."""
        state = self.tensors if tensors is None else tensors
        torch.save({"meta": {"epoch": 24}, "state_dict": state} if self.is_mmdetection else state, path)
        return path

    @property
    def facts(self) -> dict[str, Any]:
        return _mmdetection_facts(self.model) if self.is_mmdetection else _torchvision_facts(self.model)

    @cached_property
    def bounds(self) -> Limits:
        """Read from the manifest's notes."""
        number, notes = r"([\d.]+(?:e-?\d+)?)", self.manifest["notes"]

        def found(pattern: str, default: float) -> float:
            match = re.search(pattern.replace("#", number), notes)
            return float(match[1]) if match else default

        return Limits(
            maps=found("# is (?:a fair|the) strict limit", 2e-5),
            box=found("boxes within # px", 0.05),
            score=found("scores within #", 1e-3),
            proposals=found(">= # % of rows", 99.5) / 100,
            logits=found("mask_logits: abs #", 2e-2),
            iou=found("IoU per instance >= #", 0.99),
            pixels=found("<= # % of all pixels", 0.05),
        )

    @property
    def labels(self) -> np.ndarray:
        """(n,) class ids of segship: torchvision's label 0 is the background."""
        official: np.ndarray = self.arrays["det_labels"].astype(np.int64)
        return official if self.is_mmdetection else official - 1

    @property
    def masks(self) -> np.ndarray:
        """(n, height, width) bool, in the image."""
        return np.unpackbits(self.arrays["masks_packed"], axis=-1, count=self.image.shape[1]).astype(bool)

    def tap(self, name: str, whole: np.ndarray) -> np.ndarray:
        """What the official code would have in place of our ``whole``: its background first, where that is its custom."""
        if self.is_mmdetection or name != "bbox_cls_score":
            return whole
        return np.roll(whole, 1, axis=1)


def cases(root: Path) -> Iterator[MaskRCNNCase]:
    """Every case of the family below ``root``."""
    for manifest in sorted((root / FAMILY).glob("*/manifest.json")):
        yield MaskRCNNCase(manifest.parent)


def _mmdetection_facts(model: dict[str, Any]) -> dict[str, Any]:
    anchors, rpn, rcnn, pipeline = model["anchors"], model["rpn"], model["rcnn"], model["test_pipeline"]
    scale = pipeline["img_scale"]
    return {
        "resize": {"type": "fit", "long": max(scale), "short": min(scale), "kernel": "cv2_linear"},
        "divisor": pipeline["pad_size_divisor"],
        "mean": pipeline["mean"],
        "std": pipeline["std"],
        "anchor_sizes": [float(stride * scale) for stride in anchors["strides"] for scale in anchors["scales"]],
        "anchor_ratios": anchors["ratios"],
        "anchor_offset": anchors["center_offset"],
        "rpn_per_level": rpn["nms_pre"],
        "rpn_total": rpn["max_per_img"],
        "rpn_nms": rpn["nms_iou"],
        "rpn_min_size": rpn["min_bbox_size"],
        "rpn_stds": rpn["target_stds"],
        "sampling_ratio": model["box_roi"]["sampling_ratio"],
        "box_stds": model["box_head"]["target_stds"],
        "score_threshold": rcnn["score_thr"],
        "nms": rcnn["nms_iou"],
        "detections": rcnn["max_per_img"],
        "mask_threshold": model["mask_head"]["mask_thr_binary"],
    }


def _torchvision_facts(model: dict[str, Any]) -> dict[str, Any]:
    rpn, box, transform = model["rpn"], model["box"], model["transform"]
    long, short = transform["max_size"], transform["min_size"]
    return {
        "resize": {"type": "shortest_edge", "short": short, "long": long, "kernel": "float_linear", "rounding": "torchvision"},
        "divisor": transform["size_divisible"],
        "mean": transform["mean"],
        "std": transform["std"],
        "anchor_sizes": model["anchors"]["sizes"],
        "anchor_ratios": model["anchors"]["ratios"],
        "rpn_per_level": rpn["pre_nms_top_n"],
        "rpn_total": rpn["post_nms_top_n"],
        "rpn_nms": rpn["nms"],
        "rpn_min_size": rpn["min_size"],
        "rpn_stds": [1 / weight for weight in rpn["coder_weights"]],
        "sampling_ratio": box["roi"]["sampling_ratio"],
        "box_stds": [1 / weight for weight in box["coder_weights"]],
        "box_min_size": box["min_size"],
        "score_threshold": box["score_thresh"],
        "nms": box["nms"],
        "detections": box["detections_per_img"],
    }


TAPS = {
    "backbone.bottom_up": ("c2", "c3", "c4", "c5"),
    "backbone": ("p2", "p3", "p4", "p5", "p6"),
    "proposal_generator.anchors": ("", "", "", "", "anchors_p6"),
    "proposal_generator": ("boxes", "scores"),
    "roi_heads.box_pooler": ("bbox_roi_feats",),
    "roi_heads.box_predictor.cls_score": ("bbox_cls_score",),
    "roi_heads.box_predictor.bbox_pred": ("bbox_pred",),
    "roi_heads.mask_head": ("mask_logits",),
}
"""Module path, and the names of what it gives."""

_BY_LEVEL = {"objectness_logits": "rpn_cls", "anchor_deltas": "rpn_bbox"}


@contextmanager
def recorded(module: Any) -> Iterator[dict[str, np.ndarray]]:
    """While the block runs: what every tapped part of the network gives, by the arrays' names."""
    stages: dict[str, np.ndarray] = {}

    def keep(names: tuple[str, ...]) -> Any:
        def hook(_module: Any, _inputs: Any, output: Any) -> None:
            values = [output] if isinstance(output, torch.Tensor) else output
            stages.update({name: value.numpy().copy() for name, value in zip(names, values, strict=True)})

        return hook

    def keep_level(kind: str) -> Any:
        def hook(_module: Any, _inputs: Any, output: torch.Tensor) -> None:
            level = 2 + sum(name.startswith(kind) for name in stages)
            stages[f"{kind}_p{level}"] = output.numpy().copy()

        return hook

    handles = [module.get_submodule(path).register_forward_hook(keep(names)) for path, names in TAPS.items()]
    head = module.proposal_generator.rpn_head
    handles += [head.get_submodule(part).register_forward_hook(keep_level(kind)) for part, kind in _BY_LEVEL.items()]
    try:
        yield stages
    finally:
        for handle in handles:
            handle.remove()


def wrong_input(case: MaskRCNNCase, tensor: np.ndarray) -> list[str]:
    """What is wrong with the network input."""
    name = "input" if "input" in case.arrays else "input_s4"
    worst = float(np.abs(case.part(name, tensor) - case.arrays[name]).max())
    return [] if worst <= case.bounds.input else [f"{case.name}: {name} differs by {worst:.2e}, allowed {case.bounds.input}"]


def wrong_stages(case: MaskRCNNCase, stages: dict[str, np.ndarray]) -> list[str]:
    """What is wrong with the inner maps and the heads, first stage first."""
    faults = []
    for name in (name for name in case.arrays if re.fullmatch(r"[cp]\d|rpn_\w+_p\d|anchors_p\d", name)):
        faults += _compared(case, name, case.part(name, stages[name]), case.bounds.maps)
    rows = _proposal_rows(case, stages)
    faults += _wrong_proposals(case, rows)
    for name in ("bbox_roi_feats", "bbox_cls_score", "bbox_pred"):
        ours, official = case.part(name, case.tap(name, stages[name])[rows]), case.arrays[name]
        known = rows[kept_part(case.manifest["outputs"][name])[0]] >= 0
        if name == "bbox_pred" and not case.is_mmdetection:
            official = official[:, 4:]  # the background's
        # boxes of proposals may differ by hundredths of a pixel, and so do features: hence not the limit of maps
        faults += _compared(case, name, ours[known], 1e-3, official[known])
    return faults


def _proposal_rows(case: MaskRCNNCase, stages: dict[str, np.ndarray]) -> np.ndarray:
    """(official proposals,) our row for each, or -1."""
    boxes, scores, official = stages["boxes"][0], stages["scores"][0], case.arrays["proposals"]
    apart = np.abs(official[:, None, :4] - boxes[None]).max(-1)
    apart = np.where(np.abs(official[:, None, 4] - scores[None]) <= 1e-4, apart, np.inf)
    nearest = apart.argmin(1)
    found: np.ndarray = np.where(apart.min(1) <= case.bounds.box, nearest, -1)
    if abs(len(official) - int((scores >= 0).sum())) > 0.005 * len(official):
        found[:] = -1
    return found


def _wrong_proposals(case: MaskRCNNCase, rows: np.ndarray) -> list[str]:
    share = float((rows >= 0).mean())
    if share >= case.bounds.proposals:
        return []
    return [f"{case.name}: {share:.2%} of the proposals are found, {case.bounds.proposals:.2%} must be"]


def _compared(case: MaskRCNNCase, name: str, ours: np.ndarray, limit: float, official: np.ndarray | None = None) -> list[str]:
    """``limit`` is a share of the largest official value."""
    official = case.arrays[name] if official is None else official
    if ours.shape != official.shape:
        return [f"{case.name}: {name} is {ours.shape}, the official {official.shape}"]
    worst = float(np.abs(ours - official).max(initial=0) / np.abs(official).max(initial=1e-12))
    return [] if worst <= limit else [f"{case.name}: {name} differs by {worst:.2e} of its largest value, allowed {limit:.0e}"]


def wrong_detections(case: MaskRCNNCase, found: Instances) -> list[str]:
    """What is wrong with the objects: each official one must have its own counterpart."""
    rows, limits = counterparts(case, found), case.bounds
    n = len(case.labels)
    if len(found) != n or -1 in rows:
        return [f"{case.name}: {len(found)} objects, {int((rows >= 0).sum())} of the {n} official ones are among them"]
    faults = []
    apart = float(np.abs(found.scores[rows] - case.arrays["det_scores"]).max(initial=0))
    if apart > limits.score:
        faults.append(f"{case.name}: scores differ by {apart:.1e}, allowed {limits.score}")
    ours = np.array([found.masks[row].full(found.size) for row in rows], bool).reshape(case.masks.shape)
    areas = case.masks.sum((1, 2))
    both, either = (ours & case.masks).sum((1, 2)), (ours | case.masks).sum((1, 2))
    iou = np.where(areas > 100, both / np.maximum(either, 1), 1.0)
    if iou.min(initial=1) < limits.iou:
        faults.append(f"{case.name}: the masks of object {iou.argmin()} have an IoU of {iou.min():.4f}, allowed {limits.iou}")
    different = 100 * float((ours != case.masks).mean()) if ours.size else 0.0
    if different > limits.pixels:
        faults.append(f"{case.name}: {different:.3f} % of the masks' pixels differ, allowed {limits.pixels}")
    return faults


def counterparts(case: MaskRCNNCase, found: Instances) -> np.ndarray:
    """(official objects,) our row for each, or -1: the same class and the same box, each row once."""
    rows = np.full(len(case.labels), -1)
    for index, (box, label) in enumerate(zip(case.arrays["det_boxes"], case.labels, strict=True)):
        apart = np.where(found.classes == label, np.abs(found.boxes - box).max(-1), np.inf)
        apart[rows[rows >= 0]] = np.inf
        if len(apart) and apart.min() <= case.bounds.box:
            rows[index] = apart.argmin()
    return rows


def wrong_mask_logits(case: MaskRCNNCase, stages: dict[str, np.ndarray], found: Instances) -> list[str]:
    """What is wrong with the logits of each object's own class."""
    rows = counterparts(case, found)
    if -1 in rows or not len(rows):
        return []
    own = stages["mask_logits"][rows, case.labels]
    ours = case.part("mask_logits", own)
    worst = float(np.abs(ours - case.arrays["mask_logits"]).max())
    return (
        [] if worst <= case.bounds.logits else [f"{case.name}: mask logits differ by {worst:.2e}, allowed {case.bounds.logits}"]
    )
