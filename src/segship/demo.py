"""The main job on the embedded example: two small networks trained on synthetic street scenes, taken to verified engines."""

from __future__ import annotations

import time
from dataclasses import dataclass
from importlib.resources import as_file, files
from pathlib import Path
from typing import Any

from segship.core.progress import Progress, silent
from segship.deploy import Delivered, Options, deploy
from segship.evidence.measure import Schedule
from segship.scenes import write_dataset

MODELS = {"scenes-unet": "scenes-unet.pth", "scenes-segformer": "scenes-segformer"}
"""Engine name to checkpoint in the package's assets."""

SEED = 9_000_000
"""First seed of the demo's scenes: far from those that the networks were trained on."""

_N_SCENES = 32
_SIZE = (256, 256)


@dataclass(frozen=True)
class Demo:
    """What the demo made."""

    deployments: list[Delivered]
    example_image: Path
    seconds: float

    @property
    def passed(self) -> bool:
        """Whether every model has an engine that is right."""
        return all(delivered.engine is not None for delivered in self.deployments)

    def as_json(self) -> dict[str, Any]:
        """Plain values."""
        return {
            "passed": self.passed,
            "seconds": round(self.seconds, 1),
            "example_image": str(self.example_image),
            "deployments": [delivered.as_json() for delivered in self.deployments],
        }


def run_demo(folder: Path, *, progress: Progress = silent) -> Demo:
    """Draw scenes into ``folder``, deploy the embedded checkpoints on them, leave engines and reports in ``folder``."""
    begin = time.perf_counter()
    scenes = folder / "scenes"
    progress("draw scenes", 0, _N_SCENES)
    write_dataset(scenes, range(SEED, SEED + _N_SCENES), _SIZE)
    options = Options(max_drop=0.5, calibration_images=12, schedule=Schedule(rounds=5, budget_s=12))
    deployments = []
    for name, asset in MODELS.items():
        with as_file(files("segship") / "assets" / asset) as checkpoint:
            deployments.append(
                deploy(checkpoint, scenes, folder / f"{name}.engine", options=options, progress=_prefixed(progress, name))
            )
    example = sorted(scenes.glob("*.jpg"))[0]
    return Demo(deployments, example, time.perf_counter() - begin)


def _prefixed(progress: Progress, name: str) -> Progress:
    def tell(stage: str, done: int, total: int | None) -> None:
        progress(f"{name}: {stage}", done, total)

    return tell
