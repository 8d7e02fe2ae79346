"""Whether an engine prepares an image as its checkpoint's model does, and if not, what differs."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from segship.core.spec import ImageInput
from segship.diff.kinds import Finding
from segship.diff.measure import relative_error
from segship.predictor import ImageLike, Predictor

Tensor = NDArray[np.float32]

_EQUAL = 1e-6
"""Relative error of equal preprocessing: the same code on the same pixels gives the same bits; facts in JSON lose none."""


def compare_inputs(reference: Predictor, candidate: Predictor, image: ImageLike) -> Finding | None:
    """None where both networks get the same tensor."""
    expected, found = (each.prepare(each.read(image)).tensor for each in (reference, candidate))
    error = relative_error(found, expected)
    if error <= _EQUAL:
        return None
    evidence = f"{_difference(found, expected)} ({_stated(reference.spec.image, candidate.spec.image)})"
    return Finding(between=("PyTorch", "engine"), path="image", op="input", kind="preprocessing", evidence=evidence, error=error)


def _difference(found: Tensor, expected: Tensor) -> str:
    if found.shape != expected.shape:
        return f"the network input is {_sides(found)}, expected {_sides(expected)}: another resize or padding"
    if relative_error(found[:, ::-1], expected) <= _EQUAL:
        return "the channels are in the opposite order (RGB and BGR are swapped)"
    if (rule := _scale_and_offset(found, expected)) is not None:
        return f"the network input is {rule}: another scale, mean or std"
    if (rule := _scale_and_offset(found[:, ::-1], expected)) is not None:
        return f"the channels are in the opposite order, and then {rule}: another scale, mean or std, too"
    return "the network input differs by no scale and offset: another resize kernel"


def _scale_and_offset(found: Tensor, expected: Tensor) -> str | None:
    """``found`` as a multiple of ``expected`` plus an offset for each channel, where that explains it."""
    lines = []
    for have, want in zip(found[0].astype(np.float64), expected[0].astype(np.float64), strict=True):
        centred = want - want.mean()
        factor = float((centred * have).sum() / max(float(np.square(centred).sum()), 1e-300))
        offset = float(have.mean() - factor * want.mean())
        if relative_error(factor * want + offset, have) > 1e-3:  # float32 means and stds are exact to 1e-6
            return None
        lines.append(f"{factor:.4g} x {offset:+.4g}")
    same = lines[0] if len(set(lines)) == 1 else ", ".join(lines)
    return f"{same} (by channel)" if len(set(lines)) > 1 else f"{same} of the expected one"


def _sides(tensor: Tensor) -> str:
    return f"{tensor.shape[2]} x {tensor.shape[3]} with {tensor.shape[1]} channels"


def _stated(expected: ImageInput, found: ImageInput) -> str:
    """The fields of the two rules that differ."""
    names = [name for name in found.__struct_fields__ if getattr(found, name) != getattr(expected, name)]
    words = (f"{name} {getattr(found, name)} instead of {getattr(expected, name)}" for name in names)
    return "; ".join(words) or "both state the same rule"
