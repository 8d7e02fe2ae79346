"""What a task's metric is, seen from outside: add images one by one, ask for points."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from segship.core.predictions import Prediction

P = TypeVar("P", bound=Prediction, contravariant=True)


@dataclass(frozen=True)
class Scores:
    """Points from 0 to 100. ``per_class``: NaN where a class is in neither truth nor prediction; ``mean``: over the others
    (NaN when there are none). ``support``: how much truth there is of each class, in pixels or objects. ``extras``: further
    numbers of the same images by name, for the reader only (``box AP``)."""

    mean: float
    per_class: NDArray[np.float64]
    support: NDArray[np.int64]
    extras: dict[str, float] = field(default_factory=dict)


class Scorer(Protocol[P]):
    """Adds up what the metric needs of each image; holds no image.

    Made with the number of classes and the id that is not judged (or None); the order of images plays no part.
    """

    def add(self, truth: P, prediction: P) -> None:
        """Count one image."""
        ...

    def scores(self) -> Scores:
        """The metric over all images so far."""
        ...

    def resampled(self, weights: NDArray[np.float64]) -> NDArray[np.float64]:
        """The mean when image i occurs ``weights[r, i]`` times: (resamples, images) to (resamples,), NaN where undefined.

        For the paired bootstrap: whole numbers, each row adding up to the number of images.
        """
        ...
