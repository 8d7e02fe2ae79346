"""What one code base's Mask R-CNN is: its keys, and the facts of its published configuration that no checkpoint holds."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from segship.core.errors import BadCheckpoint
from segship.core.spec import Normalise, Resize
from segship.models.checkpoint import Tensors

ANCHOR_SIZES = [32.0, 64.0, 128.0, 256.0, 512.0]
ANCHOR_RATIOS = [0.5, 1.0, 2.0]


@dataclass(frozen=True)
class Layout:
    """``marker``: a key that only this code base has; ``source``: where its published configuration is.

    ``rules``: those hyper-parameters of :class:`MaskRCNN` that leave no trace in the weights; ``to_ours``: the checkpoint's
    tensors under our names, background last; the rest as in :class:`ImageInput` and :class:`InstanceDecode`.
    """

    name: str
    marker: str
    source: str
    rules: Mapping[str, Any]
    resize: Resize
    channels: Literal["rgb", "bgr"]
    normalise: Normalise
    exif_orientation: bool
    paste: Literal["grid", "whole_pixels"]
    to_ours: Callable[[Tensors], Tensors]


Rule = tuple[str, Callable[[re.Match[str]], str]]
"""A pattern for a whole key, and its new name."""


def rename(tensors: Tensors, rules: tuple[Rule, ...]) -> Tensors:
    """Tensors under new names, by the first rule that matches; raises :class:`BadCheckpoint` for a key that none knows."""
    renamed: Tensors = {}
    for key, value in tensors.items():
        for pattern, name in rules:
            if match := re.fullmatch(pattern, key):
                renamed[name(match)] = value
                break
        else:
            raise BadCheckpoint(f"the key {key} is none of a Mask R-CNN with FPN: give an unmodified checkpoint of one")
    return renamed


def numbered(pattern: str, name: str, add: int = 0) -> Rule:
    """``pattern``, followed by ``weight`` or ``bias``, becomes ``name`` with the pattern's number, plus ``add``, for ``{}``."""
    return rf"{pattern}\.(?P<kind>weight|bias)", lambda match: f"{name.format(int(match[1]) + add)}.{match['kind']}"


def named(pattern: str, name: str) -> Rule:
    """``pattern``, followed by ``weight`` or ``bias``, becomes ``name``."""
    return rf"{pattern}\.(?P<kind>weight|bias)", lambda match: f"{name}.{match['kind']}"
