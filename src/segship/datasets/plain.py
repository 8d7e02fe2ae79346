"""Images without labels, also in nested folders: enough to calibrate and to compare an engine with PyTorch."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from segship.datasets.dataset import Dataset, Sample
from segship.datasets.images import images_below

NAME = "plain"
TASK = None


def claims(root: Path) -> bool:
    """Whether there is any image."""
    return bool(images_below(root))


def read(root: Path) -> Dataset:
    """Every image below ``root``, sorted by path; the path without suffix is the name (with it, where that is not unique)."""
    files = images_below(root)
    stems = [file.relative_to(root).with_suffix("").as_posix() for file in files]
    uses = Counter(stems)
    samples = tuple(
        Sample(stem if uses[stem] == 1 else file.relative_to(root).as_posix(), file)
        for stem, file in zip(stems, files, strict=True)
    )
    return Dataset(root=root, layout=NAME, task=None, classes=None, colors=None, ignore=None, samples=samples)
