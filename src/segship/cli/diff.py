"""The command that looks inside: diff."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from segship.cli import options
from segship.cli.console import Console, say, say_json, table

if TYPE_CHECKING:
    from segship.diff import Report, Step

_ROWS = 12


@click.command()
@options.path_argument("checkpoint")
@options.path_argument("engine", required=False)
@click.option("--image", type=click.Path(path_type=Path), required=True, help="A real image: noise hides what images show.")
@click.option("--every-step", is_flag=True, help="Compare inner tensors, too, where the result agrees.")
@options.facts
@options.as_json
def diff(checkpoint: Path, engine: Path | None, image: Path, every_step: bool, facts: tuple[str, ...], as_json: bool) -> int:
    """Where ENGINE first differs from CHECKPOINT: the layer, the kind of error, what to try. Exit code 1 if it does.

    Without ENGINE: the checkpoint beside its own graph, and the layers that would leave the range of FP16.
    """
    from segship.diff import diff as with_engine
    from segship.diff import diff_graph

    stated = options.parsed_facts(facts)
    with Console() as progress:
        if engine is not None:
            report = with_engine(checkpoint, engine, image, every_step=every_step, progress=progress, **stated)
        else:
            report = diff_graph(checkpoint, image, progress=progress, **stated)
    if as_json:
        say_json({"engine": None if engine is None else str(engine), **report.as_json()})
    else:
        _print(report)
        if engine is None:
            _print_risks(report)
    return 0 if report.passed else 1


def _print(report: Report) -> None:
    if report.steps:
        rows = [[step.path, step.op, f"{step.error:.1e}", f"{step.own:.1e}", step.state] for step in _shown(report.steps)]
        say(f"\n{table(['module path', 'operator', 'error', 'own error', 'verdict'], rows)}\n")
    for note in report.notes:
        say(f"  note: {note}")
    found = report.finding
    if found is None:
        say("  No divergence.\n")
        return
    say(f"  {found.between[1]} diverges from {found.between[0]} at {found.path} ({found.op}): {found.kind}")
    say(f"    found  {found.evidence}")
    say(f"    try    {found.advice}\n")


def _print_risks(report: Report) -> None:
    """What float16 could not hold."""
    if not report.risks:
        say("  FP16 holds every tensor and every inner sum of this image.\n")
        return
    words = {"overflow": "reaches {:.3g}", "inner sum": "sums up to {:.3g}", "subnormal": "{:.0%} subnormal"}
    rows = [[risk.path, risk.op, words[risk.kind].format(risk.value)] for risk in report.risks]
    say(f"{table(['module path', 'operator', 'in FP16 (largest: 65504)'], rows)}\n")
    say("  try    keep these layers in FP32 or BF16 (exceptions in the precision plan)\n")


def _shown(steps: tuple[Step, ...]) -> list[Step]:
    """The steps around the first that diverges; where none does, those with the largest error of their own, in order."""
    first = next((index for index, step in enumerate(steps) if step.state == "diverges"), None)
    if first is not None:
        return list(steps[max(0, first - _ROWS // 2) : first + _ROWS // 2])
    worst = sorted(range(len(steps)), key=lambda index: -steps[index].own)[:_ROWS]
    return [steps[index] for index in sorted(worst)]


COMMANDS = (diff,)
