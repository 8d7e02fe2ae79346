"""The front holds what no other choice beats, and a group's time is found among the kernels."""

from __future__ import annotations

from itertools import combinations, pairwise

import numpy as np
import pytest

from segship.core.profile import Kernel, Profile
from segship.search.front import Item, front
from segship.search.groups import Group
from segship.search.spent import spent_ms


def item(name: str, loss: float | None, ms: float | None) -> Item:
    return Item(Group((name,), (name,)), loss, ms)


def random_items(count: int) -> list[Item]:
    rng = np.random.default_rng(count)
    return [item(f"g{index}", *values) for index, values in enumerate(rng.uniform(0.1, 5.0, (count, 2)).tolist())]


def test_no_choice_of_all_beats_one_on_the_front() -> None:
    items = random_items(7)
    found = front(items, at_most=200)
    for count in range(len(items)):
        for kept in combinations(items, count):
            ms, loss = sum(each.ms for each in kept), sum(each.loss for each in items if each not in kept)
            assert not any(ms < choice.ms - 1e-9 and loss < choice.loss - 1e-9 for choice in found)
    assert all(first.ms < second.ms and first.loss > second.loss for first, second in pairwise(found))


def test_a_long_front_is_thinned_and_keeps_its_ends() -> None:
    items = random_items(24)
    found = front(items, at_most=20)
    assert len(found) <= 20
    assert found[0].kept == ()
    assert len(found[-1].kept) > 20  # nearly everything in float
    assert all(len(choice.kept) < 24 for choice in found)


def test_a_group_that_is_slower_in_int8_is_in_float_in_every_choice() -> None:
    slow = item("slow", None, -0.2)
    assert all(slow in choice.kept for choice in front([*random_items(4), slow]))


def test_an_unmeasured_group_is_as_bad_as_the_worst() -> None:
    items = [item("a", 2.0, 1.0), item("b", None, 1.0)]
    assert front(items)[0].loss == pytest.approx(4.0)


def test_nothing_to_choose() -> None:
    assert front([]) == []
    assert [choice.kept for choice in front([item("all", 1.0, 1.0)])] == [()]


def test_time_goes_to_the_nearest_group() -> None:
    """Shares of the profile, of the time without profiler; what no group holds is nobody's."""
    kernels = [("body/Add", 1.0), ("body.a/Conv", 2.0), ("body.a.b/Conv_1", 3.0), ("t7/quantised", 4.0), ("image_abcd/x", 10.0)]
    profile = Profile(tuple(Kernel(name, "Conv", "float", ms) for name, ms in kernels))
    found = [Group(("body.a",), ("body.a", "body.a.b")), Group(("body",), ("body.c",))]
    assert spent_ms(found, profile, 10.0, {"t7": "body.c"}) == pytest.approx([2.5, 2.5])
