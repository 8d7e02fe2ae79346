"""Layers fall into few groups by module path, and a group's patterns address exactly its layers."""

from __future__ import annotations

import pytest

from segship.core.precision import Keep
from segship.search.groups import groups

LAYERS = [
    "stem.conv",
    *(f"body.block{block}.{part}" for block in range(4) for part in ("q", "k", "v", "out")),
    "head.linear",
    "head.last",
]


@pytest.mark.parametrize("at_most", [1, 3, 6, 10, 100])
def test_every_layer_is_in_one_group(at_most: int) -> None:
    found = groups(LAYERS, at_most)
    assert len(found) <= at_most
    assert [layer for group in found for layer in group.layers] == LAYERS


def test_the_largest_module_is_looked_into_first() -> None:
    assert [group.name for group in groups(LAYERS, 6)] == [
        "stem",
        "body.block0",
        "body.block1",
        "body.block2",
        "body.block3",
        "head",
    ]


@pytest.mark.parametrize("at_most", [1, 3, 6, 10, 100])
def test_patterns_cover_the_group_and_nothing_else(at_most: int) -> None:
    for group in groups(LAYERS, at_most):
        keeps = [Keep(pattern, "fp32", "a test") for pattern in group.patterns]
        covered = [layer for layer in LAYERS if any(keep.covers(layer, "Conv") for keep in keeps)]
        assert covered == list(group.layers)


def test_a_module_that_is_also_a_layer() -> None:
    layers = ["a", "a.b", "a.c", "d"]
    found = groups(layers, 2)
    assert [group.layers for group in found] == [("a", "a.b", "a.c"), ("d",)]
    assert found[0].patterns == ("a", "a.*")


def test_no_layer_no_group() -> None:
    assert groups([], 5) == []
