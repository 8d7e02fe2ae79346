"""Measure the speed of the five families at their usual sizes and write docs/performance.md.

    .venv/bin/python benchmarks/performance.py            (about twenty minutes on two cores; nothing else should run)

All candidates of one network are timed in one run, in turns; every ratio is between medians of that run. Weights are random
(speed does not depend on them), scenes are the calibration images, INT8 is what `segship deploy` would build.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import torch
from networks import NETWORKS, Network
from page import Page
from unseen import where

from segship.backends import load_backend
from segship.core.environment import available_threads
from segship.evidence.measure import Key, Schedule
from segship.evidence.records import Timing
from segship.judging import REFERENCE, machine, time_all
from segship.models import build_module
from segship.pipeline import build, export, load_model
from segship.predictor import Predictor, load_engine
from segship.quantiser import Quantiser
from segship.scenes import write_dataset

ROOT = Path(__file__).parents[1]
BACKENDS = ("onnxruntime", "openvino")
START = "A whole command: `segship predict ENGINE IMAGE` with the demo's UNet, 256 x 256"
RUNS = 3
"""Timed runs of a candidate in each of its turns."""


def main() -> None:
    """Measure and write the page."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("-o", "--output", type=Path, default=ROOT / "docs" / "performance.md")
    arguments.add_argument("--only", default="", help="measure the sections whose title holds this, keep the others of the page")
    options = arguments.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        sections = {network.title: partial(section, network, Path(scratch) / network.family) for network in NETWORKS}
        sections[START] = partial(start_section, Path(scratch))
        Page(options.output, HEAD).measure(sections, options.only)
    print(options.output)


HEAD = """\
# Performance

Written by `benchmarks/performance.py`; do not edit. Batch 1. Each table says where it was measured.

All candidates of a table ran in one process, in turns, PyTorch eager FP32 among them; times are milliseconds, `times` is
PyTorch's median over the candidate's. *Network* is arrays in, arrays out: for PyTorch up to the logits, for an engine up to
the finished label map (resize and decision included), of objects up to the raw detections or segments. *Image* is a JPEG
file in, the finished result out. *Over network* is what reading, preparing and decoding add to the engine's network: the
median of the ratios within each round. *Post* is the decoding alone, raw outputs in, result out (pasting masks, merging
segments; nothing where the label map is the network's own), and its share of ONNX Runtime's FP32 network.
"""


def section(network: Network, folder: Path) -> str:
    """The table of one network."""
    folder.mkdir(parents=True)
    checkpoint = ROOT / "src" / "segship" / "assets" / network.asset if network.asset else random_checkpoint(network, folder)
    write_dataset(folder / "scenes", range(network.calibration), network.size)
    images = sorted((folder / "scenes").glob("*.jpg"))
    model = load_model(checkpoint, **network.facts)
    graph = export(model, image_size=network.size)
    quantiser = Quantiser(model, graph, images)
    engines = {}
    for name in BACKENDS:
        traits = load_backend(name).TRAITS
        engines[f"{name} fp32"] = build(graph_for(quantiser, graph, traits, "fp32"), name, folder / f"{name}-fp32.engine")
        engines[f"{name} int8"] = build(graph_for(quantiser, graph, traits, "int8"), name, folder / f"{name}-int8.engine")
    predictors: dict[str, Predictor] = {REFERENCE: model, **{name: load_engine(engine.path) for name, engine in engines.items()}}
    schedule = Schedule(rounds=network.rounds, runs_per_turn=RUNS if network.rounds > 3 else 1)
    timings = time_all(predictors, images[0], machine(available_threads()), schedule)
    decoding = {name: decode_ms(each, images[0]) for name, each in predictors.items()}
    whole = timings["onnxruntime fp32", "network"].median_ms
    rows = [f"{row(name, timings, engines)} {decoding[name]:.1f} ({100 * decoding[name] / whole:.0f} %) |" for name in predictors]
    header = "| candidate | network median | p95 | times | image median | p95 | times | over network | INT8 layers | MB | post |"
    return "\n".join([f"{where()}.", "", header, "|---|" + "---:|" * 10, *rows, ""])


def random_checkpoint(network: Network, folder: Path) -> Path:
    """A file with random weights, as the official code writes it."""
    torch.manual_seed(0)
    state = network.official(build_module(network.family, network.hyperparameters).state_dict())
    torch.save({network.wrapper: state} if network.wrapper else state, folder / "model.pth")
    return folder / "model.pth"


def decode_ms(predictor: Predictor, image: Path) -> float:
    """Milliseconds from raw outputs to the result: the median of seven."""
    prepared = predictor.prepare(image)
    outputs = predictor.session.run(predictor.feeds(prepared.tensor, prepared.frame))
    seconds = []
    for _ in range(7):
        begin = time.perf_counter()
        predictor.decode(outputs, prepared.frame)
        seconds.append(time.perf_counter() - begin)
    return 1000 * median(seconds)


def graph_for(quantiser: Quantiser, graph: Any, traits: Any, precision: str) -> Any:
    """The graph that a backend compiles."""
    return quantiser.quantised(traits) if precision == "int8" else quantiser.plain(traits)


def row(name: str, timings: dict[Key, Timing], engines: dict[str, Any]) -> str:
    """One candidate's line."""
    network = {each: timing for (each, scope), timing in timings.items() if scope == "network"}
    image = {each: timing for (each, scope), timing in timings.items() if scope == "image"}
    cells = [
        f"{network[name].median_ms:.1f}",
        f"{network[name].p95_ms:.1f}",
        f"{network[REFERENCE].median_ms / network[name].median_ms:.2f}",
    ]
    cells += [
        f"{image[name].median_ms:.1f}",
        f"{image[name].p95_ms:.1f}",
        f"{image[REFERENCE].median_ms / image[name].median_ms:.2f}",
    ]
    cells.append(f"{100 * (over_network(network[name], image[name]) - 1):.0f} %")
    if name in engines:
        report = engines[name].manifest.built.precision
        cells += [f"{report.found.get('int8', 0)} of {len(report.layers)}", f"{engines[name].size_bytes / 1e6:.1f}"]
    else:
        cells += ["", ""]
    return f"| {name} | " + " | ".join(cells) + " |"


def over_network(network: Timing, image: Timing) -> float:
    """Image time over network time: the median of the rounds' own ratios, since the machine's speed drifts between rounds."""
    runs = RUNS if len(network.samples_ms) > RUNS * 3 else 1
    turns = [each.samples_ms[index : index + runs] for each in (network, image) for index in range(0, len(each.samples_ms), runs)]
    half = len(turns) // 2
    return median(median(after) / median(before) for before, after in zip(turns[:half], turns[half:], strict=True))


def start_section(folder: Path) -> str:
    """Whole commands, from process start to its end."""
    checkpoint = ROOT / "src" / "segship" / "assets" / "scenes-unet.pth"
    write_dataset(folder / "start", range(1), (256, 256))
    image = next((folder / "start").glob("*.jpg"))
    model = load_model(checkpoint)
    lines = [
        f"{where()}.",
        "",
        "| engine | median s | of runs |",
        "|---|---:|---:|",
    ]
    for name in BACKENDS:
        graph = export(model, image_size=(256, 256))
        engine = build(graph, name, folder / f"start-{name}.engine")
        seconds = []
        for _ in range(7):
            begin = time.perf_counter()
            subprocess.run(
                [sys.executable, "-m", "segship", "predict", str(engine.path), str(image), "-o", str(folder)],
                check=True,
                capture_output=True,
            )
            seconds.append(time.perf_counter() - begin)
        lines.append(f"| {name} fp32 | {sorted(seconds)[3]:.2f} | 7 |")
    return "\n".join([*lines, ""])


if __name__ == "__main__":
    main()
