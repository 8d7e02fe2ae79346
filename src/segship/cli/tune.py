"""The command that searches a precision plan: tune."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from segship.cli import options
from segship.cli.console import Console, say, say_json, table

if TYPE_CHECKING:
    from segship.evidence.searches import Found, Sensitivity
    from segship.tune import Tuned

_STAYS = {"int8": "int8", "float": "float", "partly": "in part float", "slower": "float: INT8 is slower"}


@click.command()
@options.path_argument("checkpoint")
@options.data
@click.option("--backend", required=True, help="The plan is measured on this backend's own engines.")
@options.search
@click.option(
    "-o", "--output", type=click.Path(path_type=Path), default=Path("plan.toml"), show_default=True, help="The plan to write."
)
@options.facts
@options.as_json
def tune(checkpoint: Path, data: Path, backend: str, output: Path, facts: tuple[str, ...], as_json: bool, **search: Any) -> int:
    """The fastest INT8 plan for CHECKPOINT that is still right, with what every exception costs. Exit code 1 if there is none.

    Use it with segship deploy --plan. An interrupted search goes on where it stopped.
    """
    from segship.trial import Options
    from segship.tune import tune as run

    with Console() as progress:
        asked = Options(backend=backend, **search)
        tuned = run(checkpoint, data, output, options=asked, progress=progress, **options.parsed_facts(facts))
    if as_json:
        say_json(tuned.as_json())
    else:
        _print(tuned)
    return 0 if tuned.plan is not None else 1


def _print(tuned: Tuned) -> None:
    from segship.core.precision import in_words

    found = tuned.found
    say(f"\n{_groups('group of layers', found.sensitivities)}\n")
    if found.finer:
        say(f"{_groups('part of a group', found.finer)}\n")
    if found.stopped_early:
        say("  The time budget ended before everything was measured.")
    say(f"  {_count(found.engines, 'engine')} built, {_count(len(found.judged), 'plan')} judged, INT8 by {found.recipe}")
    if found.plan is None:
        say(f"  No plan: {tuned.candidate.skipped}\n")
        return
    drop = f", drop {tuned.candidate.drop:.2f}" if tuned.candidate.drop is not None else ""
    say(f"  {in_words(found.plan)}{drop}")
    say(f"  {_times(found)}")
    say(f"  plan  {tuned.plan}: use it with segship deploy --plan\n")


def _groups(title: str, rows: tuple[Sensitivity, ...]) -> str:
    cells = [
        [row.group or "all layers", str(row.layers), _number(row.loss), _number(row.saved_ms), _STAYS[row.stays]] for row in rows
    ]
    return table([title, "layers", "points lost alone", "ms saved", "runs in"], cells)


def _count(number: int, thing: str) -> str:
    return f"{number} {thing}{'s' if number != 1 else ''}"


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"


def _times(found: Found) -> str:
    """The network in FP32, plain INT8 and by the plan, as timed in turns."""
    chosen = next(each.network_ms for each in found.judged if each.chosen)
    assert chosen is not None  # a plan found is a plan timed
    assert found.fp32_ms is not None
    assert found.int8_ms is not None
    slower = "" if chosen < found.fp32_ms else ": INT8 does not pay here, FP32 is the better engine"
    return f"network: FP32 {found.fp32_ms:.1f} ms, plain INT8 {found.int8_ms:.1f} ms, this plan {chosen:.1f} ms{slower}"


COMMANDS = (tune,)
"""Commands that search: tune."""
