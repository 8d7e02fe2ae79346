"""The kinds of errors, and for each the sentence that says what to try."""

from __future__ import annotations

from typing import Literal

import msgspec

Kind = Literal[
    "overflow", "nan", "saturation", "half-pixel", "epsilon", "layout", "batch", "preprocessing", "precision", "unexplained"
]

ADVICE: dict[Kind, str] = {
    "overflow": "keep this layer in FP32 or BF16 (an exception for its module path in the precision plan)",
    "nan": "keep this layer in FP32, and look for a division by zero or a root of a negative number in it",
    "saturation": "calibrate on more images like this one, or with the method minmax; or keep this layer in floating point",
    "half-pixel": "export the resize with the rule of the PyTorch module (align_corners, half-pixel centres), and build again",
    "epsilon": "export the normalisation with the epsilon of the PyTorch module, and build again",
    "layout": "look for a Transpose or Reshape in front of this layer that moves the wrong axes, or is missing",
    "batch": "export with a free batch axis: a Reshape or Expand in this layer has the batch of the export as a constant",
    "preprocessing": "give the facts that the engine was built with (--fact NAME=VALUE), or build it again with the right ones",
    "precision": "the engine computes in fewer bits than the plan says: look at its precision report, or allow that precision",
    "unexplained": "compare the weights and attributes of this layer in the graph with the PyTorch module's",
}
"""What to try, by kind."""


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """The first divergence: between which two, at which module path and operator, of what kind, with what evidence."""

    between: tuple[str, str]
    path: str
    op: str
    kind: Kind
    evidence: str
    error: float
    """Relative error that is made there, given right inputs; infinite where values are not finite or the shape is another."""

    @property
    def advice(self) -> str:
        """What to try."""
        return ADVICE[self.kind]


class Cause(msgspec.Struct, frozen=True):
    """What an examination of one step has found out; ``path`` and ``op`` where it is another node than the step's last."""

    kind: Kind
    evidence: str
    path: str = ""
    op: str = ""
