"""How far two tensors are apart, and how far they may be."""

from __future__ import annotations

import numpy as np

from segship.core.backend import Array
from segship.core.precision import Precision

LIMITS: dict[Precision, float] = {"fp32": 1e-4, "fp16": 5e-3, "bf16": 4e-2, "int8": 0.15}
"""Largest relative error that one step may make by itself, given the engine's own inputs of that step.

FP32 in another order of operations stays below 1e-5 (measured on both CPU runtimes); FP16 and BF16 round by 5e-4 and 4e-3,
and a step may hold several operations; INT8 rounds to 256 levels, 0.01 to 0.04 on the tiny networks of the tests, while a
scale four times too small makes 0.6 and more.
"""

ROUNDING: dict[Precision, float] = {"fp32": 1e-6, "fp16": 5e-4, "bf16": 4e-3, "int8": 1e-2}
"""Root mean square of what a tensor loses by rounding, in its standard deviations: half a unit in the last place, in FP32 a few
of them for sums in another order; in INT8 the weights of a layer, too, 256 levels over about eight deviations."""

SHARE_LIMIT = 1e-2
"""Largest share of integers (class ids, orders of a sort) that may differ: a near-tie falls either way by rounding."""


def relative_error(found: Array, expected: Array) -> float:
    """Root mean square of the difference in standard deviations of ``expected``; of integers the share that differs.

    Infinite for another shape, and where a value is not finite that should be (equal infinities are equal).
    """
    if found.shape != expected.shape:
        return float("inf")
    if not found.size:
        return 0.0
    if not np.issubdtype(expected.dtype, np.floating):
        return float(np.mean(found != expected))
    want = expected.astype(np.float64)
    with np.errstate(invalid="ignore", over="ignore"):
        apart = np.where(found == expected, 0.0, found.astype(np.float64) - want)
    if not np.isfinite(apart).all():
        return float("inf")
    return _rms(apart) / spread(want)


def spread(tensor: Array) -> float:
    """Standard deviation of the finite values; their size where all are equal, 1 where all are zero."""
    finite = tensor[np.isfinite(tensor)].astype(np.float64)
    if not finite.size:
        return 1.0
    return float(finite.std()) or float(np.abs(finite).max()) or 1.0


def _rms(values: Array) -> float:
    return float(np.sqrt(np.mean(np.square(values, dtype=np.float64))))
