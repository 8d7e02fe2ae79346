"""Trained networks, images to deploy them on, and images unseen until then that judge them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from segship.core.environment import available_threads
from segship.core.progress import silent
from segship.core.spec import Task
from segship.datasets import for_model, open_dataset
from segship.datasets.dataset import strided
from segship.demo import ALL
from segship.evidence.records import Verdict
from segship.evidence.verify import AGREEMENT, DROP, MATCHED_IOU, OBJECT_IOU
from segship.judging import Judge, machine
from segship.pipeline import ModelPredictor
from segship.scenes import write_dataset

ROOT = Path(__file__).parents[1]
MAX_DROP = 0.5
_SIZE = (256, 256)
_TUNE, _UNSEEN = 7_000_000, 8_000_000
"""First seeds: scenes that no network was trained on, and of each other different."""


@dataclass(frozen=True)
class Job:
    """A checkpoint, the folder to deploy it on, the folder that judges it, and how that is called."""

    checkpoint: Path
    task: Task
    tune: Path
    unseen: Path
    judged_on: str
    scenes: tuple[int, int] | None = None
    """How many scenes to draw into ``tune`` and ``unseen``; None where the folders are given."""

    @property
    def title(self) -> str:
        """The checkpoint's name."""
        return self.checkpoint.stem

    def draw(self) -> None:
        """Draw what scenes are missing: jobs of one task share them."""
        for folder, first, count in zip((self.tune, self.unseen), (_TUNE, _UNSEEN), self.scenes or (), strict=False):
            if not folder.exists():
                write_dataset(folder, range(first, first + count), _SIZE, self.task)


def demo_jobs(scratch: Path, *, tune: int, unseen: int) -> list[Job]:
    """The demo's networks, on scenes in ``scratch``."""
    assets = ROOT / "src" / "segship" / "assets"
    return [
        Job(
            assets / model.asset,
            model.task,
            scratch / f"tune-{model.task}",
            scratch / f"unseen-{model.task}",
            f"{unseen} scenes",
            (tune, unseen),
        )
        for model in ALL
    ]


def folder_jobs(folder: Path | None, judged_on: str, task: Task, *names: str) -> list[Job]:
    """Trained networks of ``weights`` on a folder that holds ``val`` (to deploy on) and ``test`` (to judge on), if one is given."""
    weights = ROOT / "weights"
    return [Job(weights / name, task, folder / "val", folder / "test", judged_on) for name in names] if folder else []


def judge_of(model: ModelPredictor, job: Job, at_most: int) -> Judge:
    """Judges predictors beside ``model`` on at most so many unseen images; PyTorch runs once on each."""
    data = for_model(open_dataset(job.unseen, job.task), model.spec)
    samples = [data.samples[index] for index in strided(range(len(data)), min(at_most, len(data)))]
    return Judge(model, data, samples, MAX_DROP, silent)


def in_cells(verdict: Verdict) -> list[str]:
    """Drop, its 95 % interval as change, agreement, mask IoU of matched objects by pixels and by objects."""
    low, high = verdict.interval or (float("nan"), float("nan"))
    matched = [verdict.measured[name] for name in (MATCHED_IOU, OBJECT_IOU) if name in verdict.measured]
    return [
        f"{verdict.measured[DROP]:.2f}",
        f"{low:+.2f} to {high:+.2f}",
        f"{verdict.measured[AGREEMENT]:.2f} %",
        " / ".join(f"{each:.2f}" for each in matched),
    ]


def where() -> str:
    """Processor, threads and the packages that compute, in a sentence."""
    here = machine(available_threads())
    runs = ", ".join(f"{name} {here.packages[name]}" for name in ("torch", "onnxruntime", "openvino"))
    return f"{here.processor.model} ({' '.join(here.processor.instruction_sets)}), {here.threads} threads, {runs}"
