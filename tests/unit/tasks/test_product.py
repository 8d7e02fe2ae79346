"""Products on one thread: their numbers, and that they leave no thread spinning."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

from segship.tasks.product import product

IDLE = """
import time
import numpy as np
from segship.tasks.product import product
a, b = np.ones((800, 28), np.float32), np.ones((28, 1216), np.float32)
product(a, b)
begin = time.process_time()
time.sleep(0.02)
print(time.process_time() - begin)
"""


@pytest.mark.parametrize("shape", [(800, 28, 1216), (1, 1, 1), (0, 28, 5), (7, 0, 3), (3, 300_000, 2)])
@pytest.mark.parametrize("kind", [np.float32, np.float64])
def test_numbers_are_those_of_the_product(shape: tuple[int, int, int], kind: type) -> None:
    m, k, n = shape
    random = np.random.default_rng(0)
    first, second = random.random((m, k)).astype(kind), random.random((n, k)).astype(kind).T
    # sums of up to 300,000 terms in another order: 1e-4 is ten times what float32 loses there
    np.testing.assert_allclose(product(first, second), first @ second, rtol=1e-4)
    assert product(first, second).dtype == kind


def test_no_thread_spins_afterwards() -> None:
    # a fresh process, because other tests may have woken the pool; with the plain product this is 8 ms, without spinning 0.1
    spent = float(subprocess.run([sys.executable, "-c", IDLE], check=True, capture_output=True, text=True).stdout)
    assert spent < 0.002
