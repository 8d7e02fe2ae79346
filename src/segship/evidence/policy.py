"""The limits that engines are judged by, each with its reason. One place, versioned with the code; no other function
has a default tolerance."""

from __future__ import annotations

from segship.core.precision import Precision
from segship.evidence.invariance import BATCH, ORDER, OTHER_SHAPE, REPEAT, SHAPE_THERE_AND_BACK
from segship.evidence.records import Limit
from segship.evidence.tensors import FLIPPED, FLIPPED_WITH_TIES
from segship.evidence.verify import max_drop

TIE_MARGIN = 1e-3
"""In logits: two FP32 implementations of these networks differ by up to 3e-4 (golden cases), so closer classes are a tie."""

MAX_DROP = 0.5
"""Points of the task's metric that an engine may lose, when the user does not say: under the spread of one training."""

_FLOAT_FLIPS = 0.05
_INT8_FLIPS = 10.0


def tensor_limits(precision: Precision) -> tuple[Limit, ...]:
    """How far the network's own output may be from PyTorch's on any one image, in percent of pixels."""
    if precision == "fp32":
        reason = "FP32 in another order of operations moves labels only at ties; a wrong epsilon or padding moves 0.3 % and more"
        return (Limit(FLIPPED, at_most=_FLOAT_FLIPS, reason=reason),)
    reason = (
        "quantisation moves labels along borders, a few percent of a busy image; swapped channels or a wrong scale move far more"
    )
    return (Limit(FLIPPED_WITH_TIES, at_most=_INT8_FLIPS, reason=reason),)


def prediction_limits(points: float) -> tuple[Limit, ...]:
    """How much of the task's metric (without labels: of the agreement with PyTorch) may be lost over the whole data set."""
    return (max_drop(points, f"--max-drop {points:g}"),)


def invariance_limits(precision: Precision) -> tuple[Limit, ...]:
    """How much an image's result may depend on its company: shares of a label map, or of the logits' spread."""
    kernels = "another batch or shape may choose another kernel, whose rounding moves only ties"
    share = 1e-3 if precision == "fp32" else 5e-3
    return (
        Limit(REPEAT, at_most=0.0, reason="the same input through the same kernels gives the same bits"),
        Limit(BATCH, at_most=share, reason=kernels),
        Limit(ORDER, at_most=share, reason=kernels),
        Limit(SHAPE_THERE_AND_BACK, at_most=0.0, reason="no state may stay behind from another shape"),
        Limit(
            OTHER_SHAPE,
            at_most=share if precision == "fp32" else _INT8_FLIPS / 100,
            reason=f"beside PyTorch at that shape: {kernels}",
        ),
    )
