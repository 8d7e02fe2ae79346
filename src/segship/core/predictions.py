"""What a prediction is, in the original image's frame. Validated when made."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

LabelArray = NDArray[np.unsignedinteger[Any]]
"""(height, width), uint8 or uint16."""


@dataclass(frozen=True)
class SemanticMap:
    """A class id for each pixel.

    ``labels``: (height, width), uint8 or uint16, class ids from 0.
    """

    labels: LabelArray

    def __post_init__(self) -> None:
        if self.labels.ndim != 2 or self.labels.dtype not in (np.uint8, np.uint16):
            raise ValueError(
                f"a SemanticMap needs labels (height, width) of uint8 or uint16, got {self.labels.shape} {self.labels.dtype}"
            )

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) in pixels of the original image."""
        return self.labels.shape[0], self.labels.shape[1]


Prediction = SemanticMap
