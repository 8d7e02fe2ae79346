"""Progress and messages on standard error, results on standard output."""

from __future__ import annotations

import json
import sys
import time
from importlib.util import find_spec
from types import TracebackType
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from rich.progress import Progress as Bars
    from rich.progress import TaskID


_AGAIN_S = 10.0
"""Without a terminal, how often a long stage tells where it is."""


class Console:
    """Progress bars on a terminal, elsewhere a line for each stage and now and then its time left.

    As a context manager, it tidies up at the end.
    """

    def __init__(self) -> None:
        self._live = sys.stderr.isatty() and find_spec("rich") is not None  # rich comes with the extra `build` only
        self._bars: Bars | None = None
        self._tasks: dict[str, TaskID] = {}
        self._stage, self._begin = "", time.perf_counter()
        self._stage_begin = self._told = self._begin

    def __call__(self, stage: str, done: int, total: int | None) -> None:
        """A :class:`segship.core.progress.Progress`."""
        if self._live:
            self._draw(stage, done, total)
        else:
            self._tell(stage, done, total)
        self._stage = stage

    def _tell(self, stage: str, done: int, total: int | None) -> None:
        now = time.perf_counter()
        if stage != self._stage:
            self._stage_begin = self._told = now
            self._say_line(now, f"{stage}{f' ({total})' if total else ''}")
        elif total and 0 < done < total and now - self._told >= _AGAIN_S:
            self._told = now
            left = (now - self._stage_begin) / done * (total - done)
            self._say_line(now, f"{stage} {done}/{total}, about {left:.0f} s left")

    def _say_line(self, now: float, text: str) -> None:
        click.echo(f"{now - self._begin:6.1f} s  {text}", err=True)

    def _draw(self, stage: str, done: int, total: int | None) -> None:
        from rich.console import Console as RichConsole
        from rich.progress import (
            BarColumn,
            MofNCompleteColumn,
            Progress,
            SpinnerColumn,
            TextColumn,
            TimeElapsedColumn,
            TimeRemainingColumn,
        )

        if self._bars is None:
            columns = (
                SpinnerColumn(),
                TextColumn("{task.description:<28}"),
                BarColumn(),
                MofNCompleteColumn(),
                TimeElapsedColumn(),
                TimeRemainingColumn(),
            )
            self._bars = Progress(*columns, console=RichConsole(stderr=True), transient=False)
            self._bars.start()
        if stage not in self._tasks:
            for task in self._bars.tasks:
                if task.total is None:
                    self._bars.update(task.id, total=1, completed=1)
            self._tasks[stage] = self._bars.add_task(stage, total=total)
        self._bars.update(self._tasks[stage], completed=done, total=total)

    def __enter__(self) -> Console:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._bars is not None:
            for task in self._bars.tasks if error is None else ():
                if task.total is None:
                    self._bars.update(task.id, total=1, completed=1)
            self._bars.stop()


def say(text: str = "") -> None:
    """A line for a person, on standard output."""
    click.echo(text)


def say_json(value: Any) -> None:
    """The one JSON object of ``--json``."""
    click.echo(json.dumps(value, indent=1))


def table(header: list[str], rows: list[list[str]]) -> str:
    """Plain text columns: the first to the left, the others to the right."""
    widths = [max(len(row[column]) for row in [header, *rows]) for column in range(len(header))]

    def line(row: list[str]) -> str:
        cells = [
            cell.ljust(width) if index == 0 else cell.rjust(width)
            for index, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        return "  ".join(cells).rstrip()

    return "\n".join(
        ["  " + line(header), "  " + "-" * (sum(widths) + 2 * (len(widths) - 1)), *("  " + line(row) for row in rows)]
    )
