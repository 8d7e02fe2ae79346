"""Instance segmentation: what detections mean, how far two lists of objects agree, and mask AP."""

from __future__ import annotations

from collections.abc import Mapping

from segship.core.backend import Array
from segship.core.predictions import Instances
from segship.core.spec import Frame, ModelSpec
from segship.tasks.average_precision import AveragePrecision
from segship.tasks.matching import agreement

__all__ = ["METRIC", "agreement", "decode", "scorer"]

METRIC = "mask AP"


def decode(outputs: Mapping[str, Array], spec: ModelSpec, frame: Frame) -> list[Instances]:
    """Objects of each image, their masks pasted into its frame."""
    raise NotImplementedError


def scorer(n_classes: int, ignore: int | None) -> AveragePrecision:
    """A fresh sum for mask AP. Objects have no id that is not judged: regions of crowds say so themselves."""
    return AveragePrecision(n_classes)
