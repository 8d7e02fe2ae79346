"""Commands that find the best engine: demo, deploy."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from segship.cli import options
from segship.cli.console import Console, say, say_json, table
from segship.core.errors import BadArgument

if TYPE_CHECKING:
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
@click.option(
    "--size", type=click.Choice(["auto", "free"]), default="auto", show_default=True, help="free: any image size, always."
)
@options.search
@click.option("-o", "--output", type=click.Path(path_type=Path), help="Engine directory; default: NAME.engine here.")
@options.facts
@options.as_json
def deploy(
    checkpoint: Path,
    data: Path,
    backend: str,
    precision: Any,
    plan: Path | None,
    size: Any,
    output: Path | None,
    facts: tuple[str, ...],
    as_json: bool,
    **search: Any,
) -> int:
    """From CHECKPOINT and a folder of images to the fastest engine that is still right, with its evidence and report."""
    from segship.core.plan_file import read_plan
    from segship.deploy import deploy as run
    from segship.trial import Options

    if plan is not None and precision != "auto":
        raise BadArgument(f"--precision {precision} and --plan {plan} both say what to run in: leave one out")
    given = read_plan(plan) if plan is not None else None
    asked = Options(backend=backend, precision=precision, plan=given, size=size, **search)
    target = output or Path(f"{checkpoint.resolve().stem}.engine")
    with Console() as progress:
        delivered = run(checkpoint, data, target, options=asked, progress=progress, **options.parsed_facts(facts))
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


COMMANDS = (demo, deploy)
