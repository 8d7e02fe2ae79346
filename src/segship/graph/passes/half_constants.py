"""Constants in half precision: what they become, and which of them cannot."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

_SENTINEL = 1e8
"""No activation is so large: such a constant says "never" or "everything" (masks of -1e9, clip limits of 3.4e38)."""

_SENTINEL_OPS = ("Add", "Clip", "Concat", "Expand", "Max", "Min", "Pad", "Sub", "Where")
"""Operators that such a constant means the same to when it is the largest value there is."""

_ADDED = ("Add", "Sub")

_LARGEST_LOSS = 2.0**-8
"""Of a constant's own size (root mean square). Rounding to bfloat16 costs at most this, to float16 an eighth, unless the
values are subnormal there."""


def largest(kind: ir.DataType) -> float:
    """The largest finite value of a floating-point type: 65504 of float16, 3.4e38 of bfloat16."""
    return float(ml_dtypes.finfo(kind.numpy()).max)  # type: ignore[no-untyped-call]


def smallest_normal(kind: ir.DataType) -> float:
    """The smallest value above zero that still has all its bits: 6.1e-5 of float16, 1.2e-38 of bfloat16."""
    return float(ml_dtypes.finfo(kind.numpy()).smallest_normal)  # type: ignore[no-untyped-call]


def in_half(content: NDArray[Any], kind: ir.DataType, op_type: str) -> NDArray[Any]:
    """``content`` (float32) rounded to ``kind``; sentinels become the largest value that ``op_type`` can bear."""
    limit = largest(kind) / (2 if op_type in _ADDED else 1)  # adding to the largest value itself would give infinity
    bounded = np.where(np.isfinite(content) & (np.abs(content) >= _SENTINEL), np.clip(content, -limit, limit), content)
    with np.errstate(over="ignore"):
        rounded: NDArray[Any] = bounded.astype(kind.numpy())
    return rounded


def why_not(content: NDArray[Any], kind: ir.DataType, op_type: str) -> str | None:
    """Why ``content`` (float32) cannot be ``kind`` as an input of an ``op_type``; None when it can."""
    finite = content[np.isfinite(content)].astype(np.float64)
    if not finite.size:
        return None
    biggest = float(np.abs(finite).max())
    if biggest > largest(kind):
        if biggest < _SENTINEL or op_type not in _SENTINEL_OPS:
            return f"a constant reaches {biggest:.2g}, {name_of(kind)} ends at {largest(kind):.5g}"
        finite = finite[np.abs(finite) < _SENTINEL]
    size = float(np.sqrt(np.sum(finite**2)))
    with np.errstate(over="ignore"):
        lost = float(np.sqrt(np.sum((finite.astype(np.float32).astype(kind.numpy()).astype(np.float64) - finite) ** 2)))
    if not lost <= _LARGEST_LOSS * size:
        smallest = float(np.abs(finite[finite != 0]).min())
        return f"constants as small as {smallest:.2g} lose {100 * lost / size:.2g} % in {name_of(kind)}"
    return None


def clamps(content: NDArray[Any], kind: ir.DataType) -> bool:
    """Whether :func:`in_half` replaces a sentinel."""
    return bool(np.any(np.isfinite(content) & (np.abs(content) > largest(kind))))


def name_of(kind: ir.DataType) -> str:
    """The type's name as numpy writes it."""
    return kind.numpy().name
