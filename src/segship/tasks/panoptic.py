"""Panoptic segmentation: how instances and stuff become one map, how far two maps agree, and PQ."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from segship.core.backend import Array
from segship.core.predictions import PanopticMap
from segship.core.spec import Frame, ModelSpec, PanopticDecode
from segship.tasks.merge import Parts, panoptic_map
from segship.tasks.panoptic_quality import PanopticQuality, agreement, overlaps

__all__ = ["METRIC", "agreement", "decode", "overlaps", "parts_of", "scorer"]

METRIC = "PQ"


def decode(outputs: Mapping[str, Array], spec: ModelSpec, frame: Frame) -> list[PanopticMap]:
    """The panoptic map of each image, in its frame."""
    assert isinstance(spec.decode, PanopticDecode)
    return [panoptic_map(parts_of(outputs, index), spec.decode, frame) for index in range(len(outputs["count"]))]


def parts_of(outputs: Mapping[str, Array], index: int) -> Parts:
    """What the network says of one image of a batch."""
    count = int(outputs["count"][index])
    return Parts(
        masks=np.asarray(outputs["masks"][index, :count], np.float32),
        scores=np.asarray(outputs["scores"][index, :count], np.float32),
        classes=np.asarray(outputs["classes"][index, :count], np.int64),
        stuff=np.asarray(outputs["stuff"][index], np.float32),
        seen=outputs["stuff_scores"][index] > 0,
    )


def scorer(n_classes: int, ignore: int | None) -> PanopticQuality:
    """A fresh sum for PQ."""
    return PanopticQuality(n_classes, ignore)
