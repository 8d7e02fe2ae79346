"""Least divergence: equal to the definition written out, right for one side and two, and quick."""

from __future__ import annotations

import time

import numpy as np
import pytest

from segship.graph.entropy import LEVELS, least_divergence
from segship.graph.histogram import Histogram
from unit.graph.test_histogram import learnt


def divergence(histogram: Histogram, low: float, high: float) -> float:
    """KL(P || Q) by the definition of Migacz (2017), bin by bin."""
    counts = histogram.counts.astype(float)
    middle = len(counts) // 2
    counts[middle] = min(counts[middle], counts[middle + 1])
    width, step = 2.0 ** (histogram.exponent + 1) / len(counts), (high - low) / (LEVELS - 1)
    level = np.rint((np.arange(len(counts)) - middle + 0.5) * width / step) + np.rint(-low / step)
    inside = (level >= 0) & (level < LEVELS) & (counts > 0)
    places = np.flatnonzero(inside)
    p, q = np.where(inside, counts, 0), np.zeros(len(counts))
    p[places[0]] += counts[: places[0]].sum()
    p[places[-1]] += counts[places[-1] + 1 :].sum()
    for each in np.unique(level[inside]):
        members = inside & (level == each)
        q[members] = counts[members].sum() / members.sum()
    held = p > 0
    p, q = p[held] / p.sum(), q[held] / q.sum()
    return float(np.sum(p * np.log(p / q)))


@pytest.mark.parametrize("shape", ["laplace", "student", "relu", "uniform"])
def test_no_other_end_has_less_divergence_by_the_definition(shape: str, rng: np.random.Generator) -> None:
    drawn = {
        "laplace": rng.laplace(size=200_000),
        "student": rng.standard_t(3, 200_000),
        "relu": np.maximum(rng.standard_normal(200_000), 0),
        "uniform": rng.uniform(-1, 3, 200_000),
    }
    histogram = learnt(drawn[shape].astype(np.float32))
    found, whole = histogram.bounds("entropy"), histogram.bounds("minmax")
    best = divergence(histogram, found.low, found.high)
    assert best <= divergence(histogram, whole.low, whole.high)
    if found.low < 0:  # the end that was chosen last, against every 64th part of it
        others = [divergence(histogram, whole.low * share, found.high) for share in np.geomspace(1, 1 / 8, 64)]
        assert best == pytest.approx(min(others), abs=1e-9)  # one number by two formulas: only rounding may differ


def test_a_long_tail_is_clipped_on_its_own_side_only(rng: np.random.Generator) -> None:
    values = np.concatenate([rng.standard_normal(400_000), rng.uniform(20, 60, 20)]).astype(np.float32)
    found = learnt(values).bounds("entropy")
    assert found.high < 20
    assert found.low < 0.8 * values.min()


def test_zeros_of_a_relu_do_not_outweigh_its_values(rng: np.random.Generator) -> None:
    normal = rng.standard_normal(400_000)
    found = learnt(np.maximum(normal, 0).astype(np.float32)).bounds("entropy")
    assert found.low == 0
    assert found.high > 0.75 * normal.max()  # with the zeros counted it was 0.59 of the largest value


def test_a_hundred_tensors_take_no_second(rng: np.random.Generator) -> None:
    histogram = learnt(rng.laplace(size=400_000).astype(np.float32))
    begin = time.perf_counter()
    for _ in range(10):
        histogram.bounds("entropy")
    assert (time.perf_counter() - begin) * 10 < 1  # 0.07 s are found


def test_a_tensor_of_zeros_keeps_its_range() -> None:
    assert least_divergence(np.zeros(64, np.int64), 0.5, (0.0, 0.0)) == (0.0, 0.0)
