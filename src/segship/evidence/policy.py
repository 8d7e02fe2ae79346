"""The limits that engines are judged by, each with its reason. One place, versioned with the code; no other function
has a default tolerance."""

from __future__ import annotations

from segship.core.precision import Precision
from segship.core.spec import Task
from segship.evidence.invariance import BATCH, ORDER, OTHER_SHAPE, REPEAT, SHAPE_THERE_AND_BACK
from segship.evidence.records import Limit
from segship.evidence.tensors import DISAGREEMENT, FLIPPED, FLIPPED_WITH_TIES
from segship.evidence.verify import max_drop

TIE_MARGIN = 1e-3
"""In logits: two FP32 implementations of these networks differ by up to 3e-4 (golden cases), so closer classes are a tie."""

MAX_DROP = 0.5
"""Points of the task's metric that an engine may lose, when the user does not say: under the spread of one training."""

_FLOAT_FLIPS = 0.05
_INT8_FLIPS = 10.0


_FLOAT_DISAGREEMENT = 1.0
_INT8_DISAGREEMENT = 50.0


def tensor_limits(precision: Precision, task: Task) -> tuple[Limit, ...]:
    """How far the network's own output may be from PyTorch's on any one image, in percent of pixels (or of agreement)."""
    if task != "semantic":
        return (_object_limit(precision),)
    if precision == "fp32":
        reason = "FP32 in another order of operations moves labels only at ties; a wrong epsilon or padding moves 0.3 % and more"
        return (Limit(FLIPPED, at_most=_FLOAT_FLIPS, reason=reason),)
    reason = (
        "quantisation moves labels along borders, a few percent of a busy image; swapped channels or a wrong scale move far more"
    )
    return (Limit(FLIPPED_WITH_TIES, at_most=_INT8_FLIPS, reason=reason),)


def _object_limit(precision: Precision) -> Limit:
    if precision == "fp32":
        reason = (
            "FP32 in another order of operations moves mask borders by single pixels and swaps near-ties; an error loses objects"
        )
        return Limit(DISAGREEMENT, at_most=_FLOAT_DISAGREEMENT, reason=reason)
    reason = (
        "one uncertain object more or less is a large part of an image with few; the data set's verdict judges how often that "
        "is, this one only finds outputs that mean nothing"
    )
    return Limit(DISAGREEMENT, at_most=_INT8_DISAGREEMENT, reason=reason)


def prediction_limits(points: float) -> tuple[Limit, ...]:
    """How much of the task's metric (without labels: of the agreement with PyTorch) may be lost over the whole data set."""
    return (max_drop(points, f"--max-drop {points:g}"),)


def invariance_limits(precision: Precision, task: Task) -> tuple[Limit, ...]:
    """How much an image's result may depend on its company: shares of a label map, of the logits' spread, or of agreement."""
    kernels = "another batch or shape may choose another kernel, whose rounding moves only ties"
    share = 1e-3 if precision == "fp32" else 5e-3
    far = _INT8_FLIPS / 100
    if task != "semantic":  # an object lies on the edge of a threshold as a whole
        share, far = _FLOAT_DISAGREEMENT / 100, _INT8_DISAGREEMENT / 100
    return (
        Limit(REPEAT, at_most=0.0, reason="the same input through the same kernels gives the same bits"),
        Limit(BATCH, at_most=share, reason=kernels),
        Limit(ORDER, at_most=share, reason=kernels),
        Limit(SHAPE_THERE_AND_BACK, at_most=0.0, reason="no state may stay behind from another shape"),
        Limit(
            OTHER_SHAPE,
            at_most=share if precision == "fp32" else far,
            reason=f"beside PyTorch at that shape: {kernels}",
        ),
    )
