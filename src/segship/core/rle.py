"""Run lengths of masks as COCO stores them, without pycocotools: writing results must stay light.

Pixels are counted down the columns, zeros first. A compressed string holds the same numbers as differences to the run
before the last one of the same value, in 5-bit groups, lowest first, as printable characters (cocoapi,
``common/maskApi.c``: ``rleEncode``, ``rleToString``, ``rleFrString``).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from segship.core.predictions import BoolArray, MaskCrop
from segship.core.spec import Size

Runs = NDArray[np.int64]
"""Lengths of alternating runs of 0 and 1, the first of 0 (it may be empty); they add up to height x width."""

_MOST_GROUPS = 13
"""5-bit groups of a 64-bit number."""


def runs_of(mask: MaskCrop, size: Size) -> Runs:
    """The run lengths of a mask in an image of ``size``."""
    height, width = size
    columns = mask.pixels.T.astype(np.int8)
    steps = np.diff(columns, axis=1, prepend=np.int8(0), append=np.int8(0))
    starts, ends = (_positions(steps == kind, mask, height) for kind in (1, -1))
    joined = starts[1:] == ends[:-1]  # a run that goes over the bottom into the next column
    starts, ends = starts[np.append(True, ~joined)[: len(starts)]], ends[np.append(~joined, True)[: len(ends)]]
    edges = np.stack([starts, ends], axis=1).ravel()
    runs = np.diff(edges, prepend=0, append=height * width)
    return runs[:-1] if len(runs) > 1 and runs[-1] == 0 else runs


def _positions(edges: BoolArray, mask: MaskCrop, height: int) -> Runs:
    """Where in the image, counted down its columns, the edges (column, row) of the crop are."""
    column, row = np.nonzero(edges)
    return (column + mask.left) * height + row + mask.top


def crop_of(runs: Runs, size: Size) -> MaskCrop:
    """The mask that run lengths describe, cut to its pixels; ValueError when they do not add up to the image."""
    height, width = size
    if np.any(runs < 0) or int(runs.sum()) != height * width:
        raise ValueError(f"its runs add up to {int(runs.sum())} pixels, the image has {height} x {width}")
    edges = np.cumsum(runs)
    if not np.any(runs[1::2]):
        return MaskCrop(0, 0, np.zeros((0, 0), bool))
    ones = np.flatnonzero(runs[1::2])
    left, right = int(edges[2 * ones[0]]) // height, (int(edges[2 * ones[-1] + 1]) - 1) // height + 1
    inside = np.clip(edges, left * height, right * height)
    lengths = np.diff(inside, prepend=left * height)
    columns = np.repeat(np.arange(len(runs)) % 2 == 1, lengths).reshape(right - left, height)
    rows = np.flatnonzero(columns.any(0))
    top, bottom = int(rows[0]), int(rows[-1]) + 1
    return MaskCrop(top, left, np.ascontiguousarray(columns.T[top:bottom]))


def compress(runs: Runs) -> str:
    """COCO's string of run lengths."""
    rest = runs.astype(np.int64)
    rest[3:] -= runs[1:-2]
    groups = np.zeros((len(runs), _MOST_GROUPS), np.uint8)
    used = np.zeros(groups.shape, bool)
    going = np.ones(len(runs), bool)
    for place in range(_MOST_GROUPS):
        used[:, place] = going
        group = rest & 0x1F
        rest >>= 5
        going = going & (rest != np.where(group & 0x10, -1, 0))  # the last group's highest bit is the sign
        groups[:, place] = group + 48 + np.where(going, 0x20, 0)
        if not going.any():
            break
    return groups[used].tobytes().decode("ascii")


def decompress(text: str) -> Runs:
    """The run lengths of COCO's string; ValueError when it is no such string."""
    groups = np.frombuffer(text.encode(), np.uint8).astype(np.int64) - 48
    if len(groups) == 0 or groups.min() < 0 or groups.max() > 0x3F or groups[-1] & 0x20:
        raise ValueError("its compressed counts are cut off or hold characters that COCO does not use")
    last = np.flatnonzero((groups & 0x20) == 0)
    first = np.append(0, last[:-1] + 1)
    if np.any(last - first >= _MOST_GROUPS - 1):
        raise ValueError("its compressed counts hold a number above 60 bits")
    place = np.arange(len(groups)) - np.repeat(first, last - first + 1)
    runs = np.add.reduceat((groups & 0x1F) << (5 * place), first)
    runs -= np.where(groups[last] & 0x10, np.int64(1) << (5 * (place[last] + 1)), 0)
    for start in (1, 2):
        runs[start::2] = np.cumsum(runs[start::2])
    return runs
