"""The rule that gives every golden case its weights: from a checkpoint key and its shape to values, equal on every machine.

So a case needs no weight file; its manifest's ``keys``, ``seed`` and ``overrides`` are the checkpoint.
"""

from __future__ import annotations

import math
import re
import zlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np


def state_dict(manifest: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """The official checkpoint's tensors, in its own order, under its own keys.

    ``overrides`` holds ``[pattern, scale, offset]``: each is applied, in order, to every key that it matches in full.
    """
    state = {}
    for key, shape in manifest["keys"].items():
        value = tensor(key, shape, manifest.get("seed", 0))
        for pattern, scale, offset in manifest.get("overrides", []):
            if re.fullmatch(pattern, key):
                value = (value * scale + offset).astype(value.dtype)
        state[key] = value
    return state


def tensor(key: str, shape: Sequence[int], seed: int = 0) -> np.ndarray:
    """Values of one entry: float32, or int64 zeros for ``num_batches_tracked``."""
    if key.endswith("num_batches_tracked"):
        return np.zeros(shape, np.int64)
    rng = np.random.Generator(np.random.PCG64([seed, zlib.crc32(key.encode())]))
    if key.endswith("running_var"):
        values = rng.uniform(0.8, 1.2, shape)
    elif key.endswith("running_mean"):
        values = 0.1 * rng.standard_normal(shape)
    elif len(shape) >= 2:
        values = 1.2 / math.sqrt(math.prod(shape[1:])) * rng.standard_normal(shape)
    elif key.endswith(("weight", "gamma")):
        values = rng.uniform(0.8, 1.2, shape)
    else:
        values = 0.05 * rng.standard_normal(shape)
    return np.asarray(values, np.float32)
