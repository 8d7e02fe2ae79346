"""Commands that make engines: demo, deploy, export, build."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from segship.cli import options
from segship.cli.console import Console, say, say_json, table
from segship.core.errors import BadArgument

if TYPE_CHECKING:
    from segship.core.precision import PrecisionPlan
    from segship.deploy import Delivered


@click.command()
@click.option(
    "-o", "--output", type=click.Path(path_type=Path), default=Path("segship-demo"), show_default=True, help="Folder to work in."
)
@click.option("--all", "every", is_flag=True, help="All five families, semantic, instance and panoptic: about ten minutes.")
@options.as_json
def demo(output: Path, every: bool, as_json: bool) -> int:
    """The main job on the embedded example: no download, no GPU, about two minutes."""
    from segship.demo import ALL, FIRST, run_demo

    with Console() as progress:
        result = run_demo(output, ALL if every else FIRST, progress=progress)
    if as_json:
        say_json(result.as_json())
        return 0 if result.passed else 1
    for delivered in result.deployments:
        _print(delivered)
    say(f"The whole demo took {result.seconds:.0f} s. Look at {result.deployments[0].report}")
    engine = next((delivered.engine for delivered in result.deployments if delivered.engine is not None), None)
    if engine is not None:
        say(f"Try: segship predict {shlex.join(map(str, (engine.path, result.example_image, '-o', output)))}")
    return 0 if result.passed else 1


@click.command()
@options.path_argument("checkpoint")
@options.data
@click.option("--backend", default="auto", show_default=True, help="auto tries every backend that works here.")
@click.option("--precision", type=click.Choice(["auto", "fp32", "fp16", "int8"]), default="auto", show_default=True)
@options.plan
@options.max_drop
@click.option(
    "--size", type=click.Choice(["auto", "free"]), default="auto", show_default=True, help="free: any image size, always."
)
@options.budget
@options.calibration_images
@options.evaluation_images
@click.option("-o", "--output", type=click.Path(path_type=Path), help="Engine directory; default: NAME.engine here.")
@options.facts
@options.threads
@options.as_json
def deploy(
    checkpoint: Path,
    data: Path,
    backend: str,
    precision: Any,
    plan: Path | None,
    max_drop: float,
    size: Any,
    calibration_images: int,
    evaluation_images: int,
    budget_minutes: float,
    output: Path | None,
    facts: tuple[str, ...],
    threads: int | None,
    as_json: bool,
) -> int:
    """From CHECKPOINT and a folder of images to the fastest engine that is still right, with its evidence and report."""
    from segship.core.plan_file import read_plan
    from segship.deploy import deploy as run
    from segship.trial import Options

    if plan is not None and precision != "auto":
        raise BadArgument(f"--precision {precision} and --plan {plan} both say what to run in: leave one out")
    search = Options(
        backend=backend,
        precision=precision,
        plan=read_plan(plan) if plan is not None else None,
        max_drop=max_drop,
        size=size,
        calibration_images=calibration_images,
        evaluation_images=evaluation_images,
        budget_minutes=budget_minutes,
        threads=threads,
    )
    target = output or Path(f"{checkpoint.resolve().stem}.engine")
    with Console() as progress:
        delivered = run(checkpoint, data, target, options=search, progress=progress, **options.parsed_facts(facts))
    if as_json:
        say_json(delivered.as_json())
    else:
        _print(delivered)
    return 0 if delivered.engine else 1


def _print(delivered: Delivered) -> None:
    """The outcome for a person: verdict, table, where the files are."""
    labelled = any(candidate.metric is not None for candidate in delivered.deployment.candidates)
    rows = [
        [
            f"{'* ' if candidate.chosen else '  '}{candidate.name}",
            _number(candidate.network_ms, 1),
            _number(candidate.image_ms, 1),
            *([_number(candidate.metric, 2)] if labelled else []),
            _number(candidate.drop, 2),
            _number(candidate.agreement, 2),
            _number(candidate.size_bytes / 1e6 if candidate.size_bytes else None, 1),
        ]
        for candidate in delivered.deployment.candidates
    ]
    say(f"\n{delivered.deployment.title}\n")
    metric = [delivered.deployment.metric_name] if labelled else []
    say(table(["  candidate", "network ms", "image ms", *metric, "drop", "agreement %", "MB"], rows))
    for candidate in delivered.deployment.candidates:
        for reason in candidate.reasons:
            say(f"  {candidate.name}: {reason}")
    for note in delivered.deployment.notes:
        say(f"  note: {note}")
    say()
    if delivered.engine is None:
        say(f"  No candidate is right within a drop of {delivered.deployment.max_drop:g}: no engine was written.")
    else:
        say(f"  engine  {delivered.engine.path}")
    say(f"  report  {delivered.report}\n")


def _number(value: float | None, digits: int) -> str:
    return "-" if value is None else f"{value:.{digits}f}"


@click.command()
@options.path_argument("checkpoint")
@click.option("-o", "--output", type=click.Path(path_type=Path), required=True, help="The .onnx file to write.")
@click.option("--image-size", metavar="HxW", help="Fix the size of all images to come; default: any size.")
@click.option("--logits", is_flag=True, help="Give the network's own output instead of the label map.")
@options.float_precision
@options.plan
@click.option(
    "--data",
    type=click.Path(path_type=Path),
    help="Folder of images that show which layers fp16 or bf16 cannot hold (these stay fp32), or the ranges of a plan with int8.",
)
@click.option(
    "--plan-output", type=click.Path(path_type=Path), help="Where the plan goes; default with --precision: NAME.plan.toml beside."
)
@options.facts
@options.as_json
def export(
    checkpoint: Path,
    output: Path,
    image_size: str | None,
    logits: bool,
    precision: Any,
    plan: Path | None,
    data: Path | None,
    plan_output: Path | None,
    facts: tuple[str, ...],
    as_json: bool,
) -> None:
    """Write CHECKPOINT as an optimised ONNX graph, checked against PyTorch before its precision is lowered."""
    from segship.core.files import write_atomically
    from segship.core.plan_file import write_plan
    from segship.core.precision import in_words
    from segship.half import plan_on_folder
    from segship.lowering import with_int8
    from segship.pipeline import export as run
    from segship.pipeline import load_model, with_plan

    asked, size, is_half = _plan(precision, plan), _size(image_size), precision in ("fp16", "bf16")
    is_integer = "int8" in asked.precisions
    if data is not None and not is_half and not is_integer:
        raise BadArgument(
            f"--data {data} is for --precision fp16 or bf16 or a --plan with INT8, whose ranges it shows, and {in_words(asked)} "
            "is asked: add one of these, or leave --data out"
        )
    model = load_model(checkpoint, **options.parsed_facts(facts))
    graph = run(model, image_size=size, output="logits" if logits else None)
    with Console() as progress:
        if data is not None and is_half:
            asked = plan_on_folder(model, graph, data, precision, image_size=size, progress=progress)
        if data is not None and is_integer:
            graph = with_int8(model, graph, asked, data, image_size=size, progress=progress)
        else:
            graph = with_plan(graph, asked)
    write_atomically(output, graph.to_bytes())
    beside = plan_output or (output.with_suffix(".plan.toml") if data is not None and is_half else None)
    if beside is not None:
        write_plan(asked, beside)
    notes = [NOT_LOOKED_FOR] if is_half and data is None else []
    described = {
        "graph": str(output),
        "inputs": [[spec.name, spec.dtype, list(spec.shape)] for spec in graph.signature.inputs],
        "outputs": [[spec.name, spec.dtype, list(spec.shape)] for spec in graph.signature.outputs],
        "passes": [record.name for record in graph.history if record.changed],
        "precision": in_words(graph.plan),
        "plan": str(beside) if beside is not None else None,
        "exceptions": {keep.where: keep.reason for keep in graph.plan.keep},
        "notes": notes,
    }
    if as_json:
        say_json(described)
        return
    inputs = " + ".join(spec.name for spec in graph.signature.inputs)
    say(f"{output}: {inputs} -> {graph.signature.outputs[0].name}, {in_words(graph.plan)}")
    for keep in graph.plan.keep:
        say(f"  {keep.where} stays {keep.precision}: {keep.reason}")
    if beside is not None:
        say(f"  plan  {beside}")
    for note in notes:
        say(f"  note: {note}")


NOT_LOOKED_FOR = "no images were given, so layers that overflow were not looked for: give --data DIR"


@click.command()
@options.path_argument("checkpoint")
@click.option("--backend", default="onnxruntime", show_default=True)
@click.option("--image-size", metavar="HxW", help="Fix the size of all images to come; default: any size.")
@click.option("-o", "--output", type=click.Path(path_type=Path), help="Engine directory; default: NAME.engine here.")
@options.float_precision
@options.plan
@options.facts
@options.as_json
def build(
    checkpoint: Path,
    backend: str,
    image_size: str | None,
    output: Path | None,
    precision: Any,
    plan: Path | None,
    facts: tuple[str, ...],
    as_json: bool,
) -> None:
    """Build an engine of CHECKPOINT without data: nothing is judged (deploy does that)."""
    from segship.pipeline import build as run
    from segship.pipeline import check_precisions, load_model, with_plan
    from segship.pipeline import export as export_graph

    asked = _plan(precision, plan)
    check_precisions(asked, backend)
    graph = export_graph(load_model(checkpoint, **options.parsed_facts(facts)), image_size=_size(image_size))
    engine = run(with_plan(graph, asked), backend, output or Path(f"{checkpoint.resolve().stem}.engine"))
    if as_json:
        say_json({"engine": str(engine.path), "id": engine.manifest.id, "bytes": engine.size_bytes})
    else:
        say(f"{engine.path}: {engine.manifest.backend} {engine.manifest.precision}, {engine.size_bytes / 1e6:.1f} MB, not judged")


def _plan(precision: Any, file: Path | None) -> PrecisionPlan:
    """The plan that the options name: a file's, or one precision for everything."""
    from segship.core.plan_file import read_plan
    from segship.core.precision import PrecisionPlan

    if precision is not None and file is not None:
        raise BadArgument(f"--precision {precision} and --plan {file} both say what to run in: leave one out")
    return read_plan(file) if file is not None else PrecisionPlan(precision or "fp32")


def _size(text: str | None) -> tuple[int, int] | None:
    if text is None:
        return None
    height, cross, width = text.lower().partition("x")
    if not cross or not height.isdecimal() or not width.isdecimal() or min(int(height), int(width)) < 1:
        raise BadArgument(f"--image-size {text} is not HEIGHTxWIDTH in pixels: write for instance 360x480")
    return int(height), int(width)


COMMANDS = (demo, deploy, export, build)
