"""The main job on the embedded example: small networks trained on synthetic street scenes, taken to verified engines."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import as_file, files
from pathlib import Path
from typing import Any, NamedTuple

from segship.core.progress import Progress, silent
from segship.core.spec import Task
from segship.deploy import Delivered, deploy
from segship.evidence.measure import Schedule
from segship.scenes import write_dataset
from segship.trial import Options


class Model(NamedTuple):
    """A network of the demo: its checkpoint in the package's assets is ``asset``, its engine is called after ``name``."""

    name: str
    asset: str
    task: Task


FIRST = (Model("scenes-unet", "scenes-unet.pth", "semantic"), Model("scenes-segformer", "scenes-segformer", "semantic"))
"""What the demo shows in three minutes."""

ALL = (
    *FIRST,
    Model("scenes-pointrend", "scenes-pointrend.pth", "semantic"),
    Model("scenes-maskrcnn", "scenes-maskrcnn.pth", "instance"),
    Model("scenes-panopticfcn", "scenes-panopticfcn.pth", "panoptic"),
)
"""All five families, all three tasks."""

SEED = 9_000_000
"""First seed of the demo's scenes: far from those that the networks were trained on."""

SCENES: dict[Task, str] = {"semantic": "scenes", "instance": "scenes-instance", "panoptic": "scenes-panoptic"}
"""Folder of each task's scenes: the same pictures, with labels of its kind."""

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


def run_demo(folder: Path, models: Sequence[Model] = FIRST, *, progress: Progress = silent) -> Demo:
    """Draw scenes into ``folder``, deploy the embedded checkpoints on them, leave engines and reports in ``folder``."""
    begin = time.perf_counter()
    for number, task in enumerate(tasks := {model.task for model in models}):
        progress("draw scenes", number, len(tasks))
        write_dataset(folder / SCENES[task], range(SEED, SEED + _N_SCENES), _SIZE, task)
    options = Options(max_drop=0.5, calibration_images=12, schedule=Schedule(rounds=5, budget_s=12))
    deployments = []
    for name, asset, task in models:
        with as_file(files("segship") / "assets" / asset) as checkpoint:
            engine, told = folder / f"{name}.engine", _prefixed(progress, name)
            deployments.append(deploy(checkpoint, folder / SCENES[task], engine, options=options, progress=told))
    example = sorted((folder / SCENES[models[0].task]).rglob("*.jpg"))[0]
    return Demo(deployments, example, time.perf_counter() - begin)


def _prefixed(progress: Progress, name: str) -> Progress:
    def tell(stage: str, done: int, total: int | None) -> None:
        progress(f"{name}: {stage}", done, total)

    return tell
