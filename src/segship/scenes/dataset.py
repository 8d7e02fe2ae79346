"""Scenes on disk, in the layout that `--data` reads."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from PIL import Image

from segship.scenes.classes import CLASSES, COLORS, IGNORE
from segship.scenes.scene import generate

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path


def write_dataset(folder: Path, seeds: Iterable[int], size: tuple[int, int] = (256, 256)) -> tuple[str, ...]:
    """Write one semantic data set: `street-SEED.jpg`, its 8-bit label `street-SEED.png`, and `classes.json`.

    `size` is (height, width) in pixels. JPEG is quality 95 without chroma subsampling, which keeps thin coloured
    things apart. Returns the names written, without suffix; files of the same name are replaced.
    """
    folder.mkdir(parents=True, exist_ok=True)
    about = {"task": "semantic", "ignore": IGNORE, "names": CLASSES, "colors": COLORS}
    (folder / "classes.json").write_text(json.dumps(about, indent=1) + "\n", encoding="utf-8")
    names = []
    for seed in seeds:
        scene, name = generate(seed, size), f"street-{seed:05d}"
        Image.fromarray(scene.image).save(folder / f"{name}.jpg", quality=95, subsampling=0)
        Image.fromarray(scene.semantic).save(folder / f"{name}.png", optimize=True)
        names.append(name)
    return tuple(names)
