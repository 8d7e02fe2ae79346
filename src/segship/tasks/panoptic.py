"""Panoptic segmentation: how instances and stuff become one map, how far two maps agree, and PQ."""

from __future__ import annotations

from collections.abc import Mapping

from segship.core.backend import Array
from segship.core.predictions import PanopticMap
from segship.core.spec import Frame, ModelSpec
from segship.tasks.panoptic_quality import PanopticQuality, agreement

__all__ = ["METRIC", "agreement", "decode", "scorer"]

METRIC = "PQ"


def decode(outputs: Mapping[str, Array], spec: ModelSpec, frame: Frame) -> list[PanopticMap]:
    """The panoptic map of each image, in its frame."""
    raise NotImplementedError


def scorer(n_classes: int, ignore: int | None) -> PanopticQuality:
    """A fresh sum for PQ."""
    return PanopticQuality(n_classes, ignore)
