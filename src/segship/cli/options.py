"""Options that several commands share."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from segship.core.errors import BadArgument

_F = TypeVar("_F", bound=Callable[..., Any])


class Finite(click.FloatRange):
    """A number in a range; "nan" lies in every range that only compares, and is none."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        number = float(super().convert(value, param, ctx))
        if not math.isfinite(number):
            self.fail(f"{value} is no finite number: give one, for instance 0.5", param, ctx)
        return number


as_json = click.option("--json", "as_json", is_flag=True, help="Print one JSON object on standard output, nothing else there.")
threads = click.option(
    "--threads", type=click.IntRange(1, 256), help="Processor threads; default: all cores this process may use."
)
facts = click.option(
    "--fact",
    "facts",
    multiple=True,
    metavar="NAME=VALUE",
    help="A fact the checkpoint does not hold, as JSON or plain text (scale=1.0); may be given several times.",
)
float_precision = click.option(
    "--precision",
    type=click.Choice(["fp32", "fp16", "bf16"]),
    help="For the whole network; default: fp32. INT8: --plan and --data, or segship deploy.",
)
plan = click.option("--plan", type=click.Path(path_type=Path), help="Precision plan, a TOML file: see docs/precision-plans.md.")
_max_drop = click.option(
    "--max-drop",
    type=Finite(0, 100),
    default=0.5,
    show_default=True,
    help="Points of the task's metric that may be lost.",
)
_budget = click.option(
    "--budget-minutes",
    type=Finite(0),
    default=30.0,
    show_default=True,
    help="Time for the search of a plan: what was measured by then is judged.",
)
_calibration_images = click.option("--calibration-images", type=click.IntRange(1), default=64, show_default=True)
_evaluation_images = click.option("--evaluation-images", type=click.IntRange(1), default=100, show_default=True)
full_masks = click.option(
    "--full-masks", is_flag=True, help="Of instances: paste their masks at the image's size inside the network."
)
data = click.option("--data", type=click.Path(path_type=Path), required=True, help="Folder of images, with or without labels.")


def search(command: _F) -> _F:
    """Options of a command that judges engines on images, named as the fields of :class:`segship.trial.Options`."""
    for option in (threads, _evaluation_images, _calibration_images, _budget, _max_drop):
        command = option(command)
    return command


_NO_FACTS = (
    "checkpoint",
    "data",
    "options",
    "output",
    "path",
    "progress",
    "threads",
)  # arguments of the functions that take facts


def path_argument(name: str, **more: Any) -> Callable[[_F], _F]:
    """A path argument; whether it exists is checked where it is read, with a better sentence."""
    return click.argument(name, type=click.Path(path_type=Path), **more)


def parsed_facts(facts: tuple[str, ...]) -> dict[str, Any]:
    """``NAME=VALUE`` pairs as a dict; a value that is no JSON is text."""
    result: dict[str, Any] = {}
    for fact in facts:
        name, equals, value = fact.partition("=")
        if not equals or not name:
            raise BadArgument(f"--fact {fact} is not NAME=VALUE: write for instance --fact scale=1.0")
        if name in _NO_FACTS:
            raise BadArgument(f"{name} is no fact about a model: leave it out of --fact")
        try:
            result[name] = json.loads(value)
        except ValueError:
            result[name] = value
    return result
