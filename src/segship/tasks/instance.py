"""Instance segmentation: what detections mean, how far two lists of objects agree, and mask AP."""

from __future__ import annotations

from collections.abc import Mapping

from segship.core.backend import Array
from segship.core.predictions import Instances
from segship.core.spec import Frame, ModelSpec

METRIC = "mask AP"


def decode(outputs: Mapping[str, Array], spec: ModelSpec, frame: Frame) -> list[Instances]:
    """Objects of each image, their masks pasted into its frame."""
    raise NotImplementedError
