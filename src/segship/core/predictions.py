"""What a prediction is, in the original image's frame. Validated when made. Truth has the same types."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

LabelArray = NDArray[np.unsignedinteger[Any]]
"""(height, width), uint8 or uint16."""
BoolArray = NDArray[np.bool_]


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


@dataclass(frozen=True)
class MaskCrop:
    """The part of a mask that holds its pixels: ``pixels`` (h, w) bool, its first pixel at (``top``, ``left``) of the image.

    Masks of a hundred instances are mostly empty: kept whole they would take a hundred times the image.
    """

    top: int
    left: int
    pixels: BoolArray

    @property
    def area(self) -> int:
        """Pixels that belong to the mask."""
        return int(np.count_nonzero(self.pixels))

    def full(self, size: tuple[int, int]) -> BoolArray:
        """The mask of the whole image, (height, width) bool."""
        whole = np.zeros(size, bool)
        h, w = self.pixels.shape
        whole[self.top : self.top + h, self.left : self.left + w] = self.pixels
        return whole


@dataclass(frozen=True)
class Instances:
    """Objects, each with a class, a box, a mask and a score, best score first.

    ``size``: (height, width) of the original image. ``boxes`` (n, 4) float32: x0, y0, x1, y1 in its pixels, edges (not pixel
    centres). ``scores`` (n,) float32, 1 for truth. ``classes`` (n,) int64, class ids from 0. ``masks``: n crops.
    ``crowd`` (n,) bool, truth only: regions of many objects, where a detection is neither right nor wrong (COCO
    ``iscrowd``).
    """

    size: tuple[int, int]
    boxes: NDArray[np.float32]
    scores: NDArray[np.float32]
    classes: NDArray[np.int64]
    masks: tuple[MaskCrop, ...]
    crowd: BoolArray | None = None

    def __post_init__(self) -> None:
        n = len(self.masks)
        found = {"boxes": self.boxes.shape, "scores": self.scores.shape, "classes": self.classes.shape}
        if found != {"boxes": (n, 4), "scores": (n,), "classes": (n,)}:
            raise ValueError(f"Instances need one box, score, class and mask for each object, got {n} masks and {found}")
        for mask in self.masks:
            h, w = mask.pixels.shape
            if mask.top < 0 or mask.left < 0 or mask.top + h > self.size[0] or mask.left + w > self.size[1]:
                raise ValueError(f"a mask of {h} x {w} at ({mask.top}, {mask.left}) leaves the image of {self.size}")

    def __len__(self) -> int:
        return len(self.masks)


@dataclass(frozen=True)
class Segment:
    """One region of a panoptic map: an object, or all of one stuff class.

    ``id`` is its number in the map, from 1; ``score`` is None for stuff and for truth; ``crowd`` as in COCO, truth only.
    """

    id: int
    class_id: int
    is_thing: bool
    score: float | None = None
    crowd: bool = False


@dataclass(frozen=True)
class PanopticMap:
    """A segment for each pixel, or none.

    ``ids``: (height, width) int32 segment ids, 0 where there is none (void). ``segments``: what the ids mean; each id in the
    map has exactly one entry, each entry at least one pixel.
    """

    ids: NDArray[np.int32]
    segments: tuple[Segment, ...] = field(default=())

    def __post_init__(self) -> None:
        if self.ids.ndim != 2 or self.ids.dtype != np.int32:
            raise ValueError(f"a PanopticMap needs ids (height, width) of int32, got {self.ids.shape} {self.ids.dtype}")
        present = set(_values(self.ids).tolist()) - {0}
        named = [segment.id for segment in self.segments]
        if len(set(named)) != len(named) or present != set(named):
            raise ValueError(
                f"the map holds the segments {sorted(present)[:8]}, its list names {sorted(named)[:8]}: each needs one entry"
            )

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) in pixels of the original image."""
        return self.ids.shape[0], self.ids.shape[1]


def _values(ids: NDArray[np.int32]) -> NDArray[np.int64]:
    """The values that occur, rising. Counting takes a tenth of the time of sorting, where the numbers are small."""
    small = ids.size > 0 and ids.min() >= 0 and ids.max() < ids.size
    return np.flatnonzero(np.bincount(ids.ravel())) if small else np.unique(ids).astype(np.int64)


Prediction = SemanticMap | Instances | PanopticMap
