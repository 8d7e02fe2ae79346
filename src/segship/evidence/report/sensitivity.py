"""What the search for a mixed plan measured, as a table with every number already written out."""

from __future__ import annotations

from typing import NamedTuple

from segship.core.precision import PrecisionPlan
from segship.evidence.report import words
from segship.evidence.searches import Found


class GroupRow(NamedTuple):
    """A group of layers that the search measured; ``bar`` is percent of the table's widest, ``kept`` whether it stays float."""

    name: str
    layers: int
    loss: str
    bar: float
    kept: bool


class RecipeCell(NamedTuple):
    """One way to make INT8's numbers, and the agreement that it lost."""

    recipe: str
    loss: str
    chosen: bool


class SearchTable(NamedTuple):
    """The search of one backend, most sensitive group first."""

    backend: str
    probe_images: int
    engines: int
    plan: PrecisionPlan | None
    kept: int
    recipe: str
    recipes: list[RecipeCell]
    rows: list[GroupRow]
    stopped_early: bool


def search_table(found: Found) -> SearchTable:
    """What the search measured, for reading."""
    patterns = {keep.where for keep in found.plan.keep if keep.precision == "fp32"} if found.plan else set()
    largest = max([entry.loss for entry in found.sensitivities], default=0.0) or 1.0
    rows = [
        GroupRow(
            name=entry.group or "all layers",
            layers=entry.layers,
            loss=words.points(entry.loss),
            bar=100 * max(entry.loss, 0.0) / largest,
            kept=bool(patterns & {entry.group, f"{entry.group}.*"}),
        )
        for entry in found.sensitivities
    ]
    recipes = [RecipeCell(str(each.recipe), words.points(each.loss), each.recipe == found.recipe) for each in found.recipes]
    kept = sum(row.kept for row in rows)
    numbers = (found.backend, found.probe_images, found.engines, found.plan, kept, str(found.recipe))
    return SearchTable(*numbers, recipes, rows, found.stopped_early)
