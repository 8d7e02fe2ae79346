"""Matrix products that wake no other thread.

numpy's OpenBLAS splits products of more than 2**18 multiplications over a pool whose threads then spin for up to 60 ms.
The network of the next image would run beside them: that made the demo's Panoptic FCN take 112 instead of 64 ms
(docs/decisions/0015). No public call of numpy stops it, so each product stays below that size.
"""

from __future__ import annotations

import math
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

_ONE_THREAD = 1 << 18
"""Multiplications up to which OpenBLAS stays on the caller's thread (``interface/gemm.c``: SMP_THRESHOLD_MIN times
GEMM_MULTITHREAD_THRESHOLD)."""

Real = TypeVar("Real", np.float32, np.float64)


def product(first: NDArray[Real], second: NDArray[Real]) -> NDArray[Real]:
    """``first @ second`` for matrices (m, k) and (k, n) of one type, tile by tile; as fast as on one thread at once."""
    (m, k), n = first.shape, second.shape[1]
    result = np.empty((m, n), first.dtype)
    side = max(1, math.isqrt(_ONE_THREAD // max(k, 1)))
    for top in range(0, m, side):
        for left in range(0, n, side):
            tile = slice(top, top + side), slice(left, left + side)
            np.matmul(first[tile[0]], second[:, tile[1]], out=result[tile])
    return result
