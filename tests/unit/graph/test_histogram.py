"""Ranges from streamed histograms are those of the values themselves."""

from __future__ import annotations

import numpy as np
import pytest

from segship.graph.histogram import BINS, Clipping, Histogram, PackedHistogram, Range
from segship.graph.int8_recipe import METHODS
from segship.graph.passes.insert_qdq import scale_and_zero_point


def learnt(*images: np.ndarray) -> Histogram:
    histogram = Histogram()
    for image in images:
        histogram.add(float(image.min()), float(image.max()), image)
    return histogram


def quantisation_error(values: np.ndarray, bounds: Range) -> float:
    scale, zero_point = scale_and_zero_point(bounds)
    levels = np.clip(np.rint(values / scale) + zero_point, 0, 255)
    return float(np.mean((values - (levels - zero_point) * scale) ** 2))


def test_extremes_are_exact_and_zero_is_always_inside() -> None:
    histogram = learnt(np.array([1.25, 3.5], np.float32), np.array([2.0, 5.75], np.float32))
    assert histogram.bounds("minmax") == Range(0.0, 5.75)
    assert learnt(np.array([-3.0, -1.0], np.float32)).bounds("minmax") == Range(-3.0, 0.0)


def test_growing_range_loses_no_count_and_moves_none_across_a_bin(rng: np.random.Generator) -> None:
    parts = [rng.standard_normal(5000).astype(np.float32) * scale for scale in (0.01, 1, 0.1, 300, 7)]
    streamed = learnt(*parts)
    whole = np.concatenate(parts)
    at_once = learnt(whole)
    assert streamed.counts.sum() == whole.size
    assert streamed.exponent == at_once.exponent
    assert np.array_equal(streamed.counts, at_once.counts)


def test_order_of_images_does_not_matter(rng: np.random.Generator) -> None:
    parts = [rng.standard_normal(1000).astype(np.float32) * scale for scale in (5, 0.2, 40)]
    forward, backward = learnt(*parts), learnt(*parts[::-1])
    assert np.array_equal(forward.counts, backward.counts)
    assert forward.bounds("mse") == backward.bounds("mse")


def test_percentile_cuts_a_lonely_outlier_and_minmax_does_not(rng: np.random.Generator) -> None:
    values = rng.standard_normal(1_000_000).astype(np.float32)
    values[0] = 400
    histogram = learnt(values)
    assert histogram.bounds("minmax").high == 400
    found = histogram.bounds("percentile")
    width = 2.0 ** (histogram.exponent + 1) / BINS
    assert abs(found.high - np.quantile(values, 1 - 1e-5)) <= 2 * width
    assert abs(found.low - np.quantile(values, 1e-5)) <= 2 * width


def test_least_error_is_smaller_than_that_of_the_whole_range(rng: np.random.Generator) -> None:
    values = rng.laplace(size=400_000).astype(np.float32)
    histogram = learnt(values)
    best, whole = (quantisation_error(values, histogram.bounds(method)) for method in ("mse", "minmax"))
    assert best < 0.8 * whole


def test_values_without_a_tail_keep_their_range(rng: np.random.Generator) -> None:
    values = rng.uniform(-1, 3, 100_000).astype(np.float32)
    found = learnt(values).bounds("mse")
    assert found.low == pytest.approx(-1, abs=0.03)
    assert found.high == pytest.approx(3, abs=0.09)


def test_a_tensor_of_zeros_is_no_trouble() -> None:
    histogram = learnt(np.zeros(10, np.float32))
    for method in METHODS:
        bounds = histogram.bounds(method)
        assert (bounds.low, bounds.high) == (0, 0)
        scale, zero_point = scale_and_zero_point(bounds)
        assert (float(scale), int(zero_point)) == (1.0, 0)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_values_that_are_not_finite_are_refused(bad: float) -> None:
    histogram = Histogram()
    with pytest.raises(ValueError, match="run from"):
        histogram.add(min(bad, 0.0), bad, np.zeros(3, np.float32))
    with pytest.raises(ValueError, match="run from"):
        histogram.add(bad, 1.0, np.zeros(3, np.float32))


def test_packing_keeps_everything(rng: np.random.Generator) -> None:
    histogram = learnt(rng.standard_normal(1000).astype(np.float32))
    again = Histogram.unpacked(histogram.packed())
    assert (again.low, again.high, again.exponent) == (histogram.low, histogram.high, histogram.exponent)
    assert np.array_equal(again.counts, histogram.counts)


@pytest.mark.parametrize("counts", ["", "AAAA", "not base64!"])
def test_damaged_counts_are_refused(counts: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        Histogram.unpacked(PackedHistogram(0, 1, 1, counts))


def test_clipping_counts_what_a_range_leaves_out_and_no_rounding(rng: np.random.Generator) -> None:
    values = rng.standard_normal(400_000).astype(np.float32)
    histogram = learnt(values)
    assert histogram.clipping(histogram.bounds("minmax")) == Clipping(0.0, 0.0)
    found = histogram.clipping(Range(-2.0, 2.0))
    half_a_step = 4 / 255 / 2
    beyond = np.maximum(np.abs(values) - 2, 0)
    beyond[beyond <= half_a_step] = 0
    assert found.share == pytest.approx(np.mean(beyond > 0), abs=1e-3)  # bins are 1/256 wide
    assert found.error == pytest.approx(np.sum(beyond**2) / np.sum(values**2), rel=0.02)
