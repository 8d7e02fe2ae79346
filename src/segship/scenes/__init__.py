"""Synthetic street scenes with exact truth: pictures to try, teach and test segmentation with, made from a seed."""

from __future__ import annotations

from segship.scenes.classes import CLASSES, COLORS, IGNORE, THINGS
from segship.scenes.dataset import write_dataset
from segship.scenes.scene import SMALLEST_SIDE, Scene, Segment, generate

__all__ = [
    "CLASSES",
    "COLORS",
    "IGNORE",
    "SMALLEST_SIDE",
    "THINGS",
    "Scene",
    "Segment",
    "generate",
    "write_dataset",
]
