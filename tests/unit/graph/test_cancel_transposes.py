"""Transposes that undo each other go; the numbers stay."""

from __future__ import annotations

import numpy as np
import pytest

from segship.core.graph import Graph
from segship.graph.passes.cancel_transposes import cancel_transposes
from unit.graph.networks import Net, PlainSession, images, kinds

LAST, FIRST = (0, 2, 3, 1), (0, 3, 1, 2)


def turned(*perms: tuple[int, ...], seen: bool = False) -> Graph:
    """A convolution, Transposes, a convolution; ``seen``: what the first Transpose gives is read by another node, too."""
    net = Net()
    x = first = net.conv(net.image, "first", 3, 3)
    for index, perm in enumerate(perms):
        x = net.node("Transpose", [x], f"turn{index}/Transpose", perm=perm)
        first = x if index == 0 else first
    x = net.conv(x, "last", 3, 4)
    if seen:
        mean = net.node("ReduceMean", [first], "mean/ReduceMean", keepdims=1)
        x = net.node("Add", [x, mean], "add/Add", 4)
    return net.done(x, 4)


@pytest.mark.parametrize("perms", [(LAST, FIRST), (LAST, FIRST, LAST, FIRST), (FIRST, LAST)])
def test_the_numbers_are_the_same_and_the_transposes_are_gone(perms: tuple[tuple[int, ...], ...]) -> None:
    graph = turned(*perms)
    found = cancel_transposes(graph)
    assert found.history[-1].changed
    assert "Transpose" not in kinds(found)
    image = images(1)[0]
    expected, found_logits = (PlainSession(each).run({"image": image})["logits"] for each in (graph, found))
    assert np.array_equal(found_logits, expected)


def test_a_transpose_that_another_node_reads_stays() -> None:
    graph = turned(LAST, FIRST, seen=True)
    found = cancel_transposes(graph)
    assert kinds(found).count("Transpose") == 1
    image = images(1)[0]
    expected, found_logits = (PlainSession(each).run({"image": image})["logits"] for each in (graph, found))
    assert np.array_equal(found_logits, expected)


def test_what_turns_on_is_left_alone() -> None:
    graph = turned((0, 1, 3, 2), (0, 2, 3, 1), (0, 2, 3, 1))
    assert not cancel_transposes(graph).history[-1].changed
