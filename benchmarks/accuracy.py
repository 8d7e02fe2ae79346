"""Deploy the embedded and, where its images are given, the CamVid network; judge the chosen engine on unseen images; write docs/accuracy.md.

    .venv/bin/python benchmarks/accuracy.py [--camvid FOLDER]      (about twenty minutes on two cores)

FOLDER holds `val` (to deploy on) and `test` (to judge on). For the demo's networks both are freshly drawn scenes.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

from segship import load_engine, load_model
from segship.core.environment import available_threads
from segship.datasets import for_model, open_dataset
from segship.demo import ALL
from segship.deploy import deploy
from segship.evidence.verify import AGREEMENT, CANDIDATE_METRIC, DROP, REFERENCE_METRIC, compare_predictions, max_drop
from segship.judging import machine
from segship.scenes import write_dataset
from segship.tasks import task_of
from segship.trial import Options

ROOT = Path(__file__).parents[1]
SCENES = 60
ASSETS = ROOT / "src" / "segship" / "assets"
HEADER = (
    "| network | judged on | metric | chosen engine | PyTorch | engine | drop | change, 95 % | agreement | times (image) | MB |"
)


def main() -> None:
    """Measure and write the page."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--camvid", type=Path)
    arguments.add_argument("-o", "--output", type=Path, default=ROOT / "docs" / "accuracy.md")
    options = arguments.parse_args()
    with tempfile.TemporaryDirectory() as name:
        scratch = Path(name)
        for task in ("semantic", "instance", "panoptic"):
            write_dataset(scratch / f"scenes-{task}", range(7_000_000, 7_000_000 + SCENES), (256, 256), task)
            write_dataset(scratch / f"unseen-{task}", range(8_000_000, 8_000_000 + SCENES), (256, 256), task)
        jobs = [
            (ASSETS / model.asset, scratch / f"scenes-{model.task}", scratch / f"unseen-{model.task}", f"{SCENES} scenes")
            for model in ALL
        ]
        if options.camvid:
            jobs.append((ROOT / "weights" / "camvid-unet.pth", options.camvid / "val", options.camvid / "test", "CamVid test"))
        rows = [row(*job, scratch) for job in jobs]
    here = machine(available_threads())
    head = (
        "# Accuracy\n\nWritten by `benchmarks/accuracy.py`; do not edit. `segship deploy --max-drop 0.5` on one set of images chose the\n"
        "engine, another set of images, unseen until then, judged it, PyTorch FP32 on the same images beside it. *Agreement* is\n"
        "label-free: of pixels with PyTorch's label or segment, of objects by the overlap of those that match. *Times* is PyTorch's\n"
        "median over the engine's, image file in, result out, measured side by side while deploying.\n\n"
        f"{here.processor.model}, {here.threads} threads, "
        + ", ".join(f"{key} {value}" for key, value in here.packages.items())
        + ".\n\n"
    )
    options.output.write_text("\n".join([head + HEADER, "|---|---|---|---|" + "---:|" * 7, *rows, ""]))


def row(checkpoint: Path, tune: Path, unseen: Path, judged_on: str, scratch: Path) -> str:
    """Deploy on ``tune``, judge on ``unseen``."""
    options = Options(max_drop=0.5, calibration_images=32, evaluation_images=40)
    delivered = deploy(checkpoint, tune, scratch / f"{checkpoint.stem}.engine", options=options)
    if delivered.engine is None:
        return f"| {checkpoint.stem} | {judged_on} | | none was right within 0.5 points | | | | | | | |"
    chosen = next(candidate for candidate in delivered.deployment.candidates if candidate.chosen)
    pytorch = delivered.deployment.candidates[0]
    model, engine = load_model(checkpoint), load_engine(delivered.engine.path)
    data = for_model(open_dataset(unseen, model.spec.task), model.spec)
    found = compare_predictions(
        (model.predict(sample.image) for sample in data.samples),
        (engine.predict(sample.image) for sample in data.samples),
        (data.load_truth(sample) for sample in data.samples),
        task=task_of(engine.spec),
        classes=engine.spec.classes,
        ignore=data.ignore,
        limits=[max_drop(0.5, "the budget that the engine was chosen with")],
        names=[sample.name for sample in data.samples],
        title="unseen images",
        reference=pytorch.name,
        candidate=chosen.name,
    )
    times = pytorch.image_ms / chosen.image_ms if pytorch.image_ms and chosen.image_ms else float("nan")
    points = [found.measured[quantity] for quantity in (REFERENCE_METRIC, CANDIDATE_METRIC, DROP)]
    low, high = found.interval or (float("nan"), float("nan"))
    numbers = [f"{value:.2f}" for value in points] + [
        f"{low:+.2f} to {high:+.2f}",
        f"{found.measured[AGREEMENT]:.2f} %",
        f"{times:.1f}",
    ]
    return f"| {checkpoint.stem} | {judged_on} | {task_of(engine.spec).METRIC} | {chosen.name} | {' | '.join(numbers)} | {delivered.engine.size_bytes / 1e6:.1f} |"


if __name__ == "__main__":
    main()
