"""Prove INT8, mixed and half precision on trained networks and unseen images; write docs/precision.md.

    .venv/bin/python benchmarks/precision.py [--camvid FOLDER] [--nuclei FOLDER] [--only WORDS]

About half an hour on two cores; nothing else should run while engines are timed. FOLDER holds `val` (to deploy on) and `test`
(to judge on). `--only` measures the sections whose title holds the words and keeps the others of the page.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from page import Page
from unseen import MAX_DROP, ROOT, Job, demo_jobs, folder_jobs, in_cells, judge_of, where

from segship import load_engine, load_model
from segship.backends import load_backend
from segship.backends.onnxruntime import open_as_written
from segship.core.backend import Traits
from segship.core.engine import Engine
from segship.core.graph import Graph
from segship.core.precision import PrecisionPlan
from segship.datasets import for_model, open_dataset
from segship.datasets.dataset import strided
from segship.deploy import deploy
from segship.evidence.measure import Schedule
from segship.evidence.records import Candidate, Deployment, Verdict
from segship.evidence.verify import REFERENCE_METRIC
from segship.graph.plan import int8_plan
from segship.graph.recipe import written
from segship.graph.typed import rounded
from segship.half import observed_plan
from segship.judging import REFERENCE
from segship.pipeline import ModelPredictor, build, export
from segship.predictor import Predictor
from segship.quantiser import Quantiser
from segship.tasks import task_of
from segship.trial import Options
from segship.tune import tune

TUNE, UNSEEN, CALIBRATION = 200, 48, 32
RUNTIME, SEARCH_MINUTES = "onnxruntime", 2
OPTIONS = Options(
    max_drop=MAX_DROP,
    calibration_images=CALIBRATION,
    evaluation_images=40,
    budget_minutes=3,
    schedule=Schedule(rounds=15, budget_s=30),
)
TENSOR_CORES = Traits(
    precisions=("fp32", "fp16", "int8"), activations="symmetric", int8_ops=("Conv", "ConvTranspose", "MatMul", "Gemm")
)
"""What a machine with half-precision kernels wants of INT8 beside them."""

VERDICT = "drop", "change, 95 %", "agreement", "mask IoU, pixels / objects"
HEAD = """\
# Precision

Written by `benchmarks/precision.py`; do not edit. Every number on accuracy is from images that no network, calibration or
search has seen before; the reference is PyTorch FP32 on the same images. *Drop* is in points of the task's metric, *change* its
95 % interval by paired bootstrap; *agreement* is label-free: pixels with PyTorch's label or segment, objects by the overlap of
those that match; *mask IoU* is of the objects that both found and are sure of (score 0.5): all their pixels taken together, as
label agreement takes them, and as the mean over objects, where one pixel of a distant sign counts as much as a hundred of a car.

- **Engines**: `segship deploy --max-drop 0.5` on other images, all candidates timed in one run, in turns, the chosen one in bold;
  milliseconds are medians, *image* is an image file in, the result out; *times* is FP32 on the same runtime over this engine.
  *Mixed* is what the search found where plain INT8 was not right, *by the search* the exceptions that it made.
- **Plans**: on ONNX Runtime, plain INT8 from two images and from as many as there are, and what `segship tune` finds in two minutes:
  how the numbers are made (decision 0012), layers that stay float beside the backend's own; *times* is FP32's network over this one.
- **Half precision**: the graphs that `segship export` writes for machines with the kernels, by a reference that rounds each result to
  its stated type (float32 sums). *Blind* is a graph without images, the others keep in FP32 what came near the end of the type.
"""


def main() -> None:
    """Measure and write the page."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--camvid", type=Path)
    arguments.add_argument("--nuclei", type=Path)
    arguments.add_argument("--only", default="", help="for instance `Half precision` or `scenes-unet`")
    arguments.add_argument("-o", "--output", type=Path, default=ROOT / "docs" / "precision.md")
    options = arguments.parse_args()
    with tempfile.TemporaryDirectory() as name:
        scratch = Path(name)
        demo = demo_jobs(scratch, tune=TUNE, unseen=UNSEEN)
        real = [
            *folder_jobs(options.camvid, "CamVid test", "semantic", "camvid-unet.pth", "camvid-segformer"),
            *folder_jobs(options.nuclei, "nuclei test", "instance", "nuclei-maskrcnn.pth"),
        ]
        kinds = (("Engines", engines, [*demo, *real]), ("Plans", plans, demo), ("Half precision", half, demo))
        sections = {f"{kind}: {job.title}": partial(run, job, scratch) for kind, run, jobs in kinds for job in jobs}
        Page(options.output, HEAD).measure(sections, options.only)
    print(options.output)


def engines(job: Job, scratch: Path) -> str:
    """What deploy makes of the job, every engine judged on unseen images."""
    job.draw()
    output = scratch / f"{job.title}.engine"
    deployment = deploy(job.checkpoint, job.tune, output, options=OPTIONS).deployment
    model = load_model(job.checkpoint)
    quantiser, judge = quantiser_of(model, job), judge_of(model, job, UNSEEN)
    rows = []
    for candidate in deployment.candidates[1:]:
        cells = [""] * 7
        if candidate.skipped is None:
            engine = again(candidate, deployment, quantiser, scratch)
            with load_engine(engine.path) as predictor:
                verdict = judge.compare(predictor, candidate.name)
            cells = [*in_cells(verdict), in_int8(engine), exceptions(candidate, quantiser), f"{engine.size_bytes / 1e6:.1f}"]
        name = f"**{candidate.name}**" if candidate.chosen else candidate.name
        rows.append([name, *speed(candidate, deployment), *cells])
    pytorch = deployment.candidates[0]
    rows.insert(0, [pytorch.name, *speed(pytorch, deployment), *[""] * 7])
    names = "network ms", "times", "image ms", "times", *VERDICT, "INT8 layers", "by the search", "MB"
    return f"{said(verdict, model, job)}\n\n{table(('engine', *names), rows)}"


def again(candidate: Candidate, deployment: Deployment, quantiser: Quantiser, scratch: Path) -> Engine:
    """The engine of a candidate: deploy keeps only the chosen one, and the same graph builds the same engine."""
    traits = load_backend(candidate.backend).TRAITS
    recipe = next((each.recipe for each in deployment.searches if each.backend == candidate.backend and candidate.plan), None)
    graph = quantiser.plain(traits) if candidate.precision == "fp32" else quantiser.quantised(traits, candidate.plan, recipe)
    return build(graph, candidate.backend, scratch / f"{candidate.name.replace(' ', '-')}.engine")


def speed(candidate: Candidate, deployment: Deployment) -> list[str]:
    """Milliseconds and times FP32 on the same runtime, of network and image."""
    plain = next((each for each in deployment.candidates if each.name == f"{candidate.backend} fp32"), candidate)
    pairs = (candidate.network_ms, plain.network_ms), (candidate.image_ms, plain.image_ms)
    return [text for ms, before in pairs for text in ((f"{ms:.1f}", f"{before / ms:.2f}") if ms and before else ("", ""))]


def in_int8(engine: Engine) -> str:
    """How many of the weighted layers the runtime runs in INT8."""
    report = engine.manifest.built.precision
    return f"{report.found.get('int8', 0)} of {len(report.layers)}" if report.found is not None else "not told"


def exceptions(candidate: Candidate, quantiser: Quantiser) -> str:
    """How many exceptions to INT8 the search added to the backend's own."""
    own = quantiser.plan(load_backend(candidate.backend).TRAITS).keep
    return str(len(set(candidate.plan.keep) - set(own))) if candidate.plan is not None else ""


def plans(job: Job, scratch: Path) -> str:
    """Plain INT8 calibrated on few and on many images, and the plan that a search finds, on one runtime."""
    job.draw()
    model, traits = load_model(job.checkpoint), load_backend(RUNTIME).TRAITS
    judge = judge_of(model, job, UNSEEN)
    options = replace(OPTIONS, backend=RUNTIME, budget_minutes=SEARCH_MINUTES)
    found = tune(job.checkpoint, job.tune, scratch / "plan.toml", options=options).found
    chosen = next((each.network_ms for each in found.judged if each.chosen), None)
    rows = []
    for name, count, plan, recipe, ms in (
        ("plain INT8", 2, None, None, None),
        ("plain INT8", TUNE, None, None, found.int8_ms),
        ("searched", CALIBRATION, found.plan, found.recipe, chosen),
    ):
        if name == "searched" and plan is None:
            rows.append([name, str(count), str(recipe), "no plan was right", *[""] * 5])
            continue
        quantiser = quantiser_of(model, job, count)
        engine = build(quantiser.quantised(traits, plan, recipe), RUNTIME, scratch / "plan.engine")
        with load_engine(engine.path) as predictor:
            verdict = judge.compare(predictor, name)
        added = len(set(plan.keep) - set(quantiser.plan(traits).keep)) if plan is not None else 0
        times = f"{found.fp32_ms / ms:.2f}" if ms and found.fp32_ms else ""
        rows.append([name, str(len(quantiser.images)), str(recipe or quantiser.recipe), str(added), times, *in_cells(verdict)])
    return f"{said(verdict, model, job)}\n\n{table(('plan', 'images', 'numbers by', 'exceptions', 'times', *VERDICT), rows)}"


def half(job: Job, scratch: Path) -> str:
    """Graphs for machines with half-precision kernels."""
    job.draw()
    model = load_model(job.checkpoint)
    quantiser, judge = quantiser_of(model, job), judge_of(model, job, UNSEEN)
    graph = quantiser.graph
    fp16, bf16 = (observed_plan(model, graph, quantiser.images, precision) for precision in ("fp16", "bf16"))
    mixed = int8_plan(graph, TENSOR_CORES, keep=fp16.keep, rest="fp16")
    plans = {"FP16, blind": PrecisionPlan("fp16"), "FP16": fp16, "BF16": bf16, "INT8 + FP16": mixed}
    rows = []
    for name, plan in plans.items():
        typed = written(graph, plan, quantiser.calibrate().tensors)
        verdict = judge.compare(as_typed(typed), name)
        rows.append([name, *in_cells(verdict), in_float(typed), str(sum(keep.precision == "fp32" for keep in plan.keep))])
    names = "weighted layers in FP32", "exceptions to FP32"
    return f"{said(verdict, model, job)}\n\n{table(('graph', *VERDICT, *names), rows)}"


def as_typed(graph: Graph) -> Predictor:
    """A predictor by the reference that rounds."""
    return Predictor(graph.spec, open_as_written(rounded(graph)), graph.signature)


def in_float(graph: Graph) -> str:
    """How many of the weighted layers stay in FP32."""
    asked = list(graph.asked().values())
    return f"{asked.count('fp32')} of {len(asked)}"


def quantiser_of(model: ModelPredictor, job: Job, count: int = CALIBRATION) -> Quantiser:
    """Calibrates on ``count`` images to deploy on, evenly strided; the graph's size is fixed where all images have one."""
    samples = for_model(open_dataset(job.tune, job.task), model.spec).samples
    sizes = {model.size_of(sample.image) for sample in samples}
    graph = export(model, image_size=sizes.pop() if len(sizes) == 1 else None)
    return Quantiser(model, graph, [samples[index].image for index in strided(range(len(samples)), min(count, len(samples)))])


def said(verdict: Verdict, model: ModelPredictor, job: Job) -> str:
    """What judged, what PyTorch reaches there, and where it was measured."""
    metric = task_of(model.spec).METRIC
    return (
        f"Judged on {verdict.images} images ({job.judged_on}): {REFERENCE} has {verdict.measured[REFERENCE_METRIC]:.2f} {metric}.\n"
        f"{where()}."
    )


def table(names: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table, the first column to the left."""
    lines = [names, ["---", *["---:"] * (len(names) - 1)], *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


if __name__ == "__main__":
    main()
