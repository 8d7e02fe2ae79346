"""The search for a mixed plan, for reading: what each group of layers loses and saves in INT8, what stays float, and why."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from segship.evidence.records import Deployment
from segship.evidence.report import words
from segship.evidence.report.chart import Chart, chart
from segship.evidence.report.plots import plan_name, search_plot
from segship.evidence.searches import Found, JudgedPlan, Sensitivity, Stays

_NAMED = 4
"""Groups of a plan that are named."""


class GroupRow(NamedTuple):
    """One group of layers. The bars are its loss and its milliseconds in percent of the largest."""

    name: str
    layers: int
    loss: str
    loss_bar: float
    saved: str
    saved_bar: float
    stays: Stays


class RecipeCell(NamedTuple):
    """One way to make INT8's numbers, and the agreement that it lost."""

    recipe: str
    loss: str
    chosen: bool


class PlanRow(NamedTuple):
    """One plan that was judged: ``name`` says what stays float; ``chosen`` marks the plan found."""

    name: str
    kept: str
    drop: str
    network: str
    right: bool
    chosen: bool


class SearchTable(NamedTuple):
    """The search of one backend, most sensitive group first."""

    found: Found
    floats: int
    slower: int
    recipes: list[RecipeCell]
    rows: list[GroupRow]
    finer: list[GroupRow]
    measured: bool
    timed: bool
    plans: list[PlanRow]
    charts: list[tuple[str, Chart | None]]


def search_table(found: Found, deployment: Deployment) -> SearchTable:
    """What the search measured."""
    plot, rows = search_plot(found, deployment), _rows(found.sensitivities)
    return SearchTable(
        found=found,
        floats=sum(row.stays in ("float", "partly") for row in rows),
        slower=sum(row.stays == "slower" for row in rows),
        recipes=[RecipeCell(str(each.recipe), words.points(each.loss), each.recipe == found.recipe) for each in found.recipes],
        rows=rows,
        finer=_rows(found.finer),
        measured=any(entry.loss is not None for entry in found.sensitivities),
        timed=any(entry.saved_ms is not None for entry in found.sensitivities),
        plans=_plans(found),
        charts=[("wide", chart(plot, 840, 380)), ("narrow", chart(plot, 380, 380))],
    )


def _rows(entries: Sequence[Sensitivity]) -> list[GroupRow]:
    most_lost = max((entry.loss or 0.0 for entry in entries), default=0.0) or 1.0
    most_saved = max((abs(entry.saved_ms or 0.0) for entry in entries), default=0.0) or 1.0
    return [
        GroupRow(
            name=entry.group or "all layers",
            layers=entry.layers,
            loss=words.points(entry.loss),
            loss_bar=100 * max(entry.loss or 0.0, 0.0) / most_lost,
            saved=words.points(entry.saved_ms),
            saved_bar=100 * (entry.saved_ms or 0.0) / most_saved,
            stays=entry.stays,
        )
        for entry in entries
    ]


def _kept(plan: JudgedPlan) -> str:
    """What stays in float, the first few by name."""
    more = len(plan.kept) - _NAMED
    return ", ".join(plan.kept[:_NAMED]) + (f" and {more} more" if more > 0 else "")


def _plans(found: Found) -> list[PlanRow]:
    """The right ones by their time, then the wrong ones."""
    ordered = sorted(found.judged, key=lambda each: (not each.right, each.network_ms or float("inf")))
    return [
        PlanRow(plan_name(each), _kept(each), words.points(each.drop), words.ms(each.network_ms), each.right, each.chosen)
        for each in ordered
    ]
