"""Panoptic FCN's decisions beside the official ones: candidates, kernels, instances, segments."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from golden.case import Case
from golden.panopticfcn import Limits, differing
from segship.core.predictions import PanopticMap
from segship.core.spec import Frame, ModelSpec, PanopticDecode
from segship.models.panopticfcn.kernels import centre_peaks
from segship.tasks.merge import stuff_labels, thing_masks
from segship.tasks.panoptic import parts_of

_SWAP = 1e-4
"""Two candidates whose scores differ by less may be in either order: so say the manifests."""


def wrong_things(case: Case, stages: Mapping[str, Any]) -> list[str]:
    """What is wrong with candidates, kernels before and after fusion, and mask logits."""
    limits, arrays = Limits(case), case.arrays
    scores, classes, _ = (part[0] for part in stages["candidates"])
    real = scores > 0
    embedded = stages["thing_generator.embed_extractor"][0, :, :, 0].T
    faults, _ = matched(
        f"{case.name}: candidates",
        (arrays["thing_cand_score"], arrays["thing_cand_class"], arrays["thing_kernels_before_fusion"]),
        (scores[real], classes[real], case.part("thing_kernels_before_fusion", embedded[real])),
        (limits.candidates, limits.kernels),
    )
    faults += _wrong_positions(case, stages)
    fused, kept = (part[0] for part in stages["thing_generator"])
    real = kept > 0
    more, order = matched(
        f"{case.name}: fused kernels",
        (arrays["thing_fused_score"], arrays["thing_fused_class"], arrays["thing_kernels"]),
        (kept[real], classes[real], case.part("thing_kernels", fused[real])),
        (limits.candidates, limits.kernels),
    )
    if more:
        return faults + more
    logits = np.einsum("md,dhw->mhw", fused[real][order], stages["feature_encoder"][0])
    return faults + differing(case, "thing_logits_s", logits, limits.logits)


def _wrong_positions(case: Case, stages: Mapping[str, Any]) -> list[str]:
    """Every official candidate must be a peak of ours: its level, class and position."""
    pools = case.model["inference"]["centre average pool per level p3..p7"]
    peaks = [
        centre_peaks(torch.from_numpy(centre), pool)[0].flatten(1).numpy()
        for (centre, _), pool in zip(stages["position_head"], pools, strict=True)
    ]
    columns = (case.arrays[f"thing_cand_{name}"].tolist() for name in ("level", "class", "index"))
    found = np.array([peaks[level - 3][class_id, index] for level, class_id, index in zip(*columns, strict=True)], np.float32)
    return differing(case, "thing_cand_score", found, Limits(case).candidates)


def matched(
    what: str, official: tuple[np.ndarray, ...], found: tuple[np.ndarray, ...], limits: tuple[float | np.ndarray, float]
) -> tuple[list[str], list[int]]:
    """Scores, classes and kernels of two lists: the faults, and which of ``found`` each official one is.

    Neighbours may be swapped where their scores differ by less than :data:`_SWAP`. ``limits``: of scores, one or one for each
    of ``found``, and of kernels.
    """
    near = np.broadcast_to(limits[0], found[0].shape)
    if len(official[0]) != len(found[0]):
        return [f"{what}: {len(found[0])}, officially {len(official[0])}"], []
    left, order = list(range(len(found[0]))), []
    for place, (score, class_id, kernel) in enumerate(zip(*official, strict=True)):
        fits = [
            other
            for other in left
            if found[1][other] == class_id
            and abs(found[0][other] - score) <= near[other]
            and np.max(np.abs(found[2][other] - kernel), initial=0.0) <= limits[1]
            and (other == place or abs(found[0][place] - score) < _SWAP)
        ]
        if not fits:
            return [f"{what}: number {place}, class {class_id} with score {score:.5f}, has no likeness"], []
        left.remove(fits[0])
        order.append(fits[0])
    return [], order


def wrong_stuff(case: Case, stages: Mapping[str, Any]) -> list[str]:
    """What is wrong with the stuff kernels of each level and class, and their logits."""
    limits, arrays = Limits(case), case.arrays
    levels, classes = arrays["stuff_cand_level"] - 3, arrays["stuff_cand_class"]
    embedded = stages["stuff_generator.embed_extractor"][0][:, levels, classes].T
    kernels, scores = (part[0] for part in stages["stuff_generator"])
    seen = np.flatnonzero(scores > 0)
    if seen.tolist() != arrays["stuff_classes"].tolist():
        return [f"{case.name}: stuff classes {seen.tolist()}, officially {arrays['stuff_classes'].tolist()}"]
    means = np.array([arrays["stuff_cand_score"][classes == index].mean() for index in seen], np.float32)
    worst = float(np.abs(scores[seen] - means).max(initial=0.0))
    logits = np.einsum("md,dhw->mhw", kernels[seen], stages["feature_encoder"][0])
    return [
        *([f"{case.name}: stuff scores differ by {worst:.1e}"] if worst > limits.candidates else []),
        *differing(case, "stuff_kernels_before_fusion", embedded, limits.kernels),
        *differing(case, "stuff_kernels", kernels[seen], limits.kernels),
        *differing(case, "stuff_logits_s", logits, limits.logits),
    ]


def wrong_parts(case: Case, outputs: Mapping[str, np.ndarray], spec: ModelSpec, frame: Frame) -> list[str]:
    """What is wrong with the instances (class, score, mask) and the semantic map that the raw outputs lead to."""
    assert isinstance(spec.decode, PanopticDecode)
    limits, parts = Limits(case), parts_of(outputs, 0)
    unknown = np.zeros((len(parts.scores), 1))  # instances are told apart by score and class alone
    near = limits.scores + undecided(parts.masks, parts.scores, spec.decode.mask_threshold, limits.logits)
    faults, order = matched(
        f"{case.name}: instances",
        (case.arrays["inst_scores"], case.arrays["inst_classes"], np.zeros((len(case.arrays["inst_scores"]), 1))),
        (parts.scores, parts.classes, unknown),
        (near, 0.0),
    )
    if faults:
        return faults
    crops = thing_masks(parts.masks[order], spec.decode.mask_threshold, frame)
    found = case.part("inst_masks_bits", np.array([crop.full(frame.image) for crop in crops]))
    official = np.unpackbits(case.arrays["inst_masks_bits"], axis=-1)[..., : frame.image[1]].astype(bool)
    for place, (mine, its) in enumerate(zip(found, official, strict=True)):
        if (same := float(np.mean(mine == its))) < limits.pixels:
            faults.append(f"{case.name}: mask {place} agrees on {same:.2%} of the pixels")
    same = float(np.mean(stuff_labels(parts, frame) == case.arrays["sem_label"]))
    return faults if same >= limits.pixels else [*faults, f"{case.name}: sem_label agrees on {same:.2%} of the pixels"]


def undecided(masks: np.ndarray, scores: np.ndarray, threshold: float, atol: float) -> np.ndarray:
    """How far the score of each of ``masks`` (k, h, w), probabilities, may move: it has the mean over the pixels above
    ``threshold`` as a factor, and pixels whose logits are within ``atol`` of it may be taken for above or below.

    One such pixel of a mask of 30 moved a score by 6e-4 on a processor that rounds otherwise (AVX2 instead of AVX-512).
    """
    inside = masks > threshold
    area = np.maximum(inside.sum((1, 2)), 1)
    mean = np.maximum(np.sum(masks, (1, 2), where=inside) / area, threshold)
    slope = threshold * (1 - threshold)  # of the probability by its logit
    pixels = (np.abs(masks - threshold) < atol * slope).sum((1, 2))
    moved: np.ndarray = scores * (1 - threshold / mean) * pixels / area
    return moved


def wrong_panoptic(case: Case, prediction: PanopticMap, n_things: int) -> list[str]:
    """What is wrong with the panoptic map and its segments."""
    limits, official = Limits(case), json.loads(str(case.arrays["segments_info"]))
    expected = [
        (s["id"], s["category_id"] + (0 if s["isthing"] else n_things - 1), s["isthing"]) for s in official
    ]  # our stuff comes behind the things, without class 0
    found = [(segment.id, segment.class_id, segment.is_thing) for segment in prediction.segments]
    if found != expected:
        return [f"{case.name}: the segments are {found}, officially {expected}"]
    faults = []
    for segment, its in zip(prediction.segments, official, strict=True):
        area = int(np.sum(prediction.ids == segment.id))
        if "area" in its and abs(area - its["area"]) > limits.area * its["area"]:
            faults.append(f"{case.name}: segment {segment.id} has {area} pixels, officially {its['area']}")
        if segment.score is not None and abs(segment.score - its["score"]) > limits.scores:
            faults.append(f"{case.name}: segment {segment.id} scores {segment.score}, officially {its['score']}")
    same = float(np.mean(prediction.ids == case.arrays["panoptic_seg"]))
    return faults if same >= limits.pixels else [*faults, f"{case.name}: the map agrees on {same:.3%} of the pixels"]


def wrong_instance_ids(case: Case, outputs: Mapping[str, np.ndarray], prediction: PanopticMap) -> list[str]:
    """The objects that became segments must be the official ones: their places in the list of instances."""
    official = [s["instance_id"] for s in json.loads(str(case.arrays["segments_info"])) if s["isthing"]]
    scores = outputs["scores"][0].tolist()
    found = [scores.index(np.float32(segment.score)) for segment in prediction.segments if segment.is_thing]
    return [] if found == official else [f"{case.name}: the instances {found} became segments, officially {official}"]
