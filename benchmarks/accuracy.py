"""Deploy the embedded and, where its images are given, the CamVid network; judge the chosen engine on unseen images; write docs/accuracy.md.

    .venv/bin/python benchmarks/accuracy.py [--camvid FOLDER]      (about twenty minutes on two cores)

FOLDER holds `val` (to deploy on) and `test` (to judge on). For the demo's networks both are freshly drawn scenes.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

from unseen import MAX_DROP, ROOT, Job, demo_jobs, folder_jobs, in_cells, judge_of, where

from segship import load_engine, load_model
from segship.deploy import deploy
from segship.evidence.verify import CANDIDATE_METRIC, REFERENCE_METRIC
from segship.tasks import task_of
from segship.trial import Options

SCENES, AT_MOST = 60, 1000
HEADER = (
    "| network | judged on | metric | chosen engine | PyTorch | engine | drop | change, 95 % | agreement | mask IoU | "
    "times (image) | MB |"
)
HEAD = """\
# Accuracy

Written by `benchmarks/accuracy.py`; do not edit. `segship deploy --max-drop 0.5` on one set of images chose the
engine, another set of images, unseen until then, judged it, PyTorch FP32 on the same images beside it. *Agreement* is
label-free: of pixels with PyTorch's label or segment, of objects by the overlap of those that match; *mask IoU* is that of the
objects that both found. *Times* is PyTorch's median over the engine's, image file in, result out, measured side by side while
deploying.
"""


def main() -> None:
    """Measure and write the page."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--camvid", type=Path)
    arguments.add_argument("-o", "--output", type=Path, default=ROOT / "docs" / "accuracy.md")
    options = arguments.parse_args()
    with tempfile.TemporaryDirectory() as name:
        jobs = demo_jobs(Path(name), tune=SCENES, unseen=SCENES)
        jobs += folder_jobs(options.camvid, "CamVid test", "semantic", "camvid-unet.pth")
        rows = [row(job, Path(name)) for job in jobs]
    options.output.write_text("\n".join([HEAD, f"{where()}.\n", HEADER, "|---|---|---|---|" + "---:|" * 8, *rows, ""]))


def row(job: Job, scratch: Path) -> str:
    """Deploy on one set of images, judge on the other."""
    job.draw()
    options = Options(max_drop=MAX_DROP, calibration_images=32, evaluation_images=40)
    delivered = deploy(job.checkpoint, job.tune, scratch / f"{job.title}.engine", options=options)
    if delivered.engine is None:
        return f"| {job.title} | {job.judged_on} | | none was right within {MAX_DROP} points | | | | | | | | |"
    chosen = next(candidate for candidate in delivered.deployment.candidates if candidate.chosen)
    pytorch = delivered.deployment.candidates[0]
    with load_engine(delivered.engine.path) as engine:
        found = judge_of(load_model(job.checkpoint), job, AT_MOST).compare(engine, chosen.name)
        metric = task_of(engine.spec).METRIC
    times = pytorch.image_ms / chosen.image_ms if pytorch.image_ms and chosen.image_ms else float("nan")
    points = [f"{found.measured[quantity]:.2f}" for quantity in (REFERENCE_METRIC, CANDIDATE_METRIC)]
    numbers = [*points, *in_cells(found), f"{times:.1f}", f"{delivered.engine.size_bytes / 1e6:.1f}"]
    return f"| {job.title} | {job.judged_on} | {metric} | {chosen.name} | {' | '.join(numbers)} |"


if __name__ == "__main__":
    main()
