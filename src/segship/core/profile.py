"""Where an engine's time goes, kernel by kernel, as its own runtime measures it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from typing import Literal

import msgspec

Role = Literal["int8", "float", "convert"]
"""``convert`` is work that only precisions and layouts make: casts, Quantize/Dequantize, reorders."""


class Kernel(msgspec.Struct, frozen=True):
    """One kernel of an engine and the median of its time in milliseconds.

    ``name`` is the ONNX node's, as far as the runtime keeps it (module path, ``/``, operator); ``kind`` is the operator in the
    runtime's words.
    """

    name: str
    kind: str
    role: Role
    ms: float

    @property
    def path(self) -> str:
        """Module path, or what stands before the first ``/`` of a name that has none; empty without a ``/``."""
        return self.name.partition("/")[0] if "/" in self.name else ""


class Profile(msgspec.Struct, frozen=True):
    """All kernels of one run, in the order of execution. Empty where the runtime cannot be asked.

    A profiler slows every kernel down, small ones most: shares mean something, sums in milliseconds do not.
    """

    kernels: tuple[Kernel, ...] = ()

    @property
    def total_ms(self) -> float:
        """Sum over all kernels."""
        return sum(kernel.ms for kernel in self.kernels)

    def share(self, role: Role) -> float:
        """Percent of the time in kernels of ``role``; 0 for an empty profile."""
        return self._percent(kernel.ms for kernel in self.kernels if kernel.role == role)

    def kinds(self, role: Role) -> list[tuple[str, float]]:
        """Percent of the time by operator, of kernels of ``role``, the largest first."""
        spent: defaultdict[str, float] = defaultdict(float)
        for kernel in self.kernels:
            if kernel.role == role:
                spent[kernel.kind] += kernel.ms
        return [(kind, self._percent([ms])) for kind, ms in sorted(spent.items(), key=lambda entry: -entry[1])]

    def slowest(self, count: int) -> list[tuple[Kernel, float]]:
        """The ``count`` slowest kernels, each with its percent of the time."""
        ordered = sorted(self.kernels, key=lambda kernel: -kernel.ms)[:count]
        return [(kernel, self._percent([kernel.ms])) for kernel in ordered]

    def _percent(self, spent: Iterable[float]) -> float:
        return 100 * sum(spent) / (self.total_ms or 1.0)
