"""Single steps: export, build."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from segship.cli import options
from segship.cli.console import Console, say, say_json
from segship.core.errors import BadArgument
from segship.core.precision import PrecisionPlan, in_words

if TYPE_CHECKING:
    from segship.core.graph import Graph


@click.command()
@options.path_argument("checkpoint")
@click.option("-o", "--output", type=click.Path(path_type=Path), required=True, help="The .onnx file to write.")
@click.option("--image-size", metavar="HxW", help="Fix the size of all images to come; default: any size.")
@options.full_masks
@click.option("--logits", is_flag=True, help="Give the network's own output instead of the label map.")
@options.float_precision
@options.plan
@click.option(
    "--data",
    type=click.Path(path_type=Path),
    help="Folder of images that show which layers fp16 or bf16 cannot hold (these stay fp32), or the ranges of a plan with INT8.",
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
    full_masks: bool,
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
    from segship.half import plan_on_folder
    from segship.lowering import lowered
    from segship.pipeline import export as run
    from segship.pipeline import load_model

    if full_masks and logits:
        raise BadArgument("--full-masks and --logits both say what the graph gives: leave one out")
    asked, size, is_half = _plan(precision, plan), _size(image_size), precision in ("fp16", "bf16")
    if data is not None and not is_half and "int8" not in asked.precisions:
        raise BadArgument(
            f"--data {data} is for --precision fp16 or bf16 or a --plan with INT8, whose ranges it shows, and {in_words(asked)} "
            "is asked: add one of these, or leave --data out"
        )
    model = load_model(checkpoint, **options.parsed_facts(facts))
    graph = run(model, image_size=size, output="instances" if full_masks else "logits" if logits else None)
    with Console() as progress:
        if data is not None and is_half:
            asked = plan_on_folder(model, graph, data, precision, image_size=size, progress=progress)
        graph, _ = lowered(model, graph, asked, data, image_size=size, progress=progress)
    write_atomically(output, graph.to_bytes())
    beside = plan_output or (output.with_suffix(".plan.toml") if data is not None and is_half else None)
    if beside is not None:
        write_plan(asked, beside)
    notes = [NOT_LOOKED_FOR] if is_half and data is None else []
    if as_json:
        say_json(_described(output, graph, beside, notes))
    else:
        _say(output, graph, beside, notes)


def _described(output: Path, graph: Graph, beside: Path | None, notes: list[str]) -> dict[str, Any]:
    """What was written, as plain values."""
    return {
        "graph": str(output),
        "inputs": [[spec.name, spec.dtype, list(spec.shape)] for spec in graph.signature.inputs],
        "outputs": [[spec.name, spec.dtype, list(spec.shape)] for spec in graph.signature.outputs],
        "passes": [record.name for record in graph.history if record.changed],
        "precision": in_words(graph.plan),
        "plan": str(beside) if beside is not None else None,
        "exceptions": {keep.where: keep.reason for keep in graph.plan.keep},
        "notes": notes,
    }


def _say(output: Path, graph: Graph, beside: Path | None, notes: list[str]) -> None:
    """What was written, for a person."""
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
@options.full_masks
@options.float_precision
@options.plan
@click.option("--data", type=click.Path(path_type=Path), help="Folder of images that show the ranges of a plan with INT8.")
@options.facts
@options.as_json
def build(
    checkpoint: Path,
    backend: str,
    image_size: str | None,
    output: Path | None,
    full_masks: bool,
    precision: Any,
    plan: Path | None,
    data: Path | None,
    facts: tuple[str, ...],
    as_json: bool,
) -> None:
    """Build an engine of CHECKPOINT: nothing is judged (deploy does that)."""
    from segship.backends import load_backend
    from segship.graph.plan import check_kernels
    from segship.lowering import lowered
    from segship.pipeline import build as run
    from segship.pipeline import check_precisions, load_model
    from segship.pipeline import export as export_graph

    asked, size = _plan(precision, plan), _size(image_size)
    if data is not None and "int8" not in asked.precisions:
        raise BadArgument(f"--data {data} shows the ranges of a --plan with INT8, and {in_words(asked)} is asked: leave it out")
    check_precisions(asked, backend)
    model = load_model(checkpoint, **options.parsed_facts(facts))
    graph = export_graph(model, image_size=size, output="instances" if full_masks else None)
    check_kernels(graph, asked, load_backend(backend))
    with Console() as progress:
        bits = load_backend(backend).TRAITS.weight_bits
        graph, calibration = lowered(model, graph, asked, data, image_size=size, weight_bits=bits, progress=progress)
    engine = run(graph, backend, output or Path(f"{checkpoint.resolve().stem}.engine"), calibration=calibration)
    if as_json:
        say_json({"engine": str(engine.path), "id": engine.manifest.id, "bytes": engine.size_bytes})
    else:
        say(f"{engine.path}: {engine.manifest.backend} {engine.manifest.precision}, {engine.size_bytes / 1e6:.1f} MB, not judged")


def _plan(precision: Any, file: Path | None) -> PrecisionPlan:
    """The plan that the options name: a file's, or one precision for everything."""
    from segship.core.plan_file import read_plan

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


COMMANDS = (export, build)
