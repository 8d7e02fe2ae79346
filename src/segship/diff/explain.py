"""Name the kind of an error from the tensors of the step that makes it.

Every kind is tried out: the graph's step is run again with one thing changed, and what then gives the other side's values
is the explanation. A kind without such a proof is not named.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import permutations, product

import numpy as np
import onnx_ir as ir

from segship.core.backend import Array
from segship.core.errors import SegshipError
from segship.diff.kinds import Cause
from segship.diff.measure import relative_error
from segship.diff.ranges import LARGEST
from segship.diff.segment import Edit, Segment
from segship.graph.passes.edit import module_path

_EPSILONS = (0.0, 1e-12, 1e-8, 1e-7, 1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 1e-1)
_COORDINATES = ("half_pixel", "align_corners", "asymmetric", "pytorch_half_pixel", "half_pixel_symmetric")
_NEAREST = ("floor", "ceil", "round_prefer_floor", "round_prefer_ceil")
_ROI_COORDINATES = ("half_pixel", "output_half_pixel")
_EXPLAINED = 0.1
"""Share of the error that may be left when the right thing is changed: quantisation noise, or a value beside the candidates."""


def explain(segment: Segment) -> Cause:
    """The kind of error that the step makes, ``unexplained`` (with what can be said) where none can be proved."""
    for examine in (_not_finite, _batch, _clipped, _resize, _epsilon, _layout):
        cause = examine(segment)
        if cause is not None:
            return cause
    return Cause("unexplained", _described(segment))


def _not_finite(segment: Segment) -> Cause | None:
    if segment.found.shape != segment.expected.shape:
        return None
    bad = ~np.isfinite(segment.found) & np.isfinite(segment.expected)
    if not bad.any():
        return None
    kinds = [name for name, test in (("infinite", np.isinf), ("NaN", np.isnan)) if test(segment.found).any()]
    share = f"{100 * bad.mean():.2g} % of the values are {' or '.join(kinds)}"
    largest = _largest(segment)
    if largest > LARGEST:
        return Cause("overflow", f"{share}; this step works with numbers up to {largest:.3g}, float16 ends at {LARGEST:.0f}")
    if np.isinf(segment.found).any():
        return Cause("overflow", f"{share}; the right values reach {_peak(segment.expected):.3g} only")
    return Cause("nan", f"{share}, though the inputs are finite and at most {largest:.3g} large")


def _largest(segment: Segment) -> float:
    """Largest number that the step meets when it is computed right: inputs, results, and sums inside normalisations."""
    inner = segment.inner()
    peaks = [_peak(array) for array in [*segment.inputs.values(), *inner.values(), segment.expected]]
    for node in segment.nodes:
        source = node.inputs[0].name if node.inputs and node.inputs[0] is not None else None
        array = inner.get(source or "", segment.inputs.get(source or ""))
        if array is not None and node.op_type in ("LayerNormalization", "InstanceNormalization"):
            axes = (-1,) if node.op_type == "LayerNormalization" else tuple(range(2, array.ndim))
            peaks.append(_peak(np.sum(np.square(array, dtype=np.float64), axis=axes)))
    return max(peaks)


def _peak(array: Array) -> float:
    finite = array[np.isfinite(array)]
    return float(np.abs(finite).max()) if finite.size else 0.0


def _batch(segment: Segment) -> Cause | None:
    """Whether the second image of a batch gets the first one's values, or only the first is right."""
    found, expected = segment.found, segment.expected
    if found.shape != expected.shape:
        if found.ndim == expected.ndim and found.shape[1:] == expected.shape[1:] and expected.shape[0] > 1:
            return Cause("batch", f"the result has {found.shape[0]} items for a batch of {expected.shape[0]}")
        return None
    if found.ndim < 2 or len(found) < 2:
        return None
    first = relative_error(found[0], expected[0])
    rest = min(relative_error(item, want) for item, want in zip(found[1:], expected[1:], strict=True))
    copied = max(relative_error(item, found[0]) for item in found[1:])
    if copied <= _EXPLAINED * rest:
        return Cause("batch", "every item of a batch gets the values of the first")
    if first <= _EXPLAINED * rest:
        return Cause("batch", f"the first item of a batch is right (error {first:.1e}), the others are not ({rest:.1e})")
    return None


def _clipped(segment: Segment) -> Cause | None:
    found, expected = segment.found.astype(np.float64), segment.expected.astype(np.float64)
    if found.shape != expected.shape or not found.size:
        return None
    low, high = float(found.min()), float(found.max())
    step = (high - low) / 255  # of 8 bits over the range that occurs
    beyond = ((expected > high + step) & (found > high - step)) | ((expected < low - step) & (found < low + step))
    lost = np.square(found - expected)
    if not beyond.any() or lost[beyond].sum() < 0.5 * lost.sum():
        return None
    share = 100 * float(lost[beyond].sum() / lost.sum())
    return Cause(
        "saturation",
        f"{100 * beyond.mean():.2g} % of the values lie beyond [{low:.3g}, {high:.3g}], where the engine's range ends "
        f"(they reach from {expected.min():.3g} to {expected.max():.3g}), and make {share:.0f} % of the error",
    )


def _resize(segment: Segment) -> Cause | None:
    """Whether another rule of coordinates gives the other side's values: at one node, or at all of its kind."""
    for node in segment.nodes:
        alike = [each for each in segment.nodes if each.op_type == node.op_type]
        for name, edit in _other_rules(node):
            for nodes in ([node], alike) if node is alike[0] and len(alike) > 1 else ([node],):
                if _left(segment, nodes, edit) <= _EXPLAINED:
                    words = f"{_other(segment)} values fit the rule {name}, the graph says {_rule_of(node)}"
                    return _at(node, Cause("half-pixel", words))
    return None


def _other_rules(node: ir.Node) -> Iterator[tuple[str, Edit]]:
    if node.op_type == "Resize":
        for mode, rule in product(dict.fromkeys((_text(node, "mode", "nearest"), "linear", "nearest")), _COORDINATES):
            for nearest in _NEAREST if mode == "nearest" else ("round_prefer_floor",):
                words = f"{mode}, {rule}" + (f", {nearest}" if mode == "nearest" else "")
                yield words, _set(mode=mode, coordinate_transformation_mode=rule, nearest_mode=nearest)
    elif node.op_type == "RoiAlign":
        for rule in _ROI_COORDINATES:
            yield rule, _set(coordinate_transformation_mode=rule)
    elif node.op_type == "GridSample":
        for corners in (0, 1):
            yield f"align_corners {corners}", _set(align_corners=corners)


def _rule_of(node: ir.Node) -> str:
    if node.op_type == "GridSample":
        return f"align_corners {node.attributes.get_int('align_corners', 0)}"
    mode = f"{_text(node, 'mode', 'nearest')}, " if node.op_type == "Resize" else ""
    return mode + _text(node, "coordinate_transformation_mode", "half_pixel")


def _text(node: ir.Node, name: str, default: str) -> str:
    return node.attributes.get_string(name, default) or default


def _epsilon(segment: Segment) -> Cause | None:
    """Whether another epsilon gives the other side's values, of all normalisations and candidates the best."""
    nodes = [node for node in segment.nodes if "epsilon" in node.attributes or node.op_type.endswith("Normalization")]
    trials = [(_left(segment, [node], _set(epsilon=value)), node, value) for node in nodes for value in _EPSILONS]
    left, node, value = min(trials, key=lambda trial: trial[0], default=(1.0, None, 0.0))
    if node is None or left > _EXPLAINED:
        return None
    own = node.attributes.get_float("epsilon", 1e-5)
    return _at(node, Cause("epsilon", f"{_other(segment)} values fit an epsilon of {value:g}, the graph says {own:.3g}"))


def _layout(segment: Segment) -> Cause | None:
    """Whether moving axes (or reversing one) of the result, or of an input, gives the other side's values."""
    target, current = segment.other, segment.expected if segment.candidate == "engine" else segment.found
    error = relative_error(target, current)
    for words, moved in _moved(current, target.shape):
        if _share_left(relative_error(moved, target), error) <= _EXPLAINED:
            return Cause("layout", f"{_other(segment)} values are the expected ones with {words}")
    within = segment.inner() if segment.candidate == "graph" else {}  # an engine's own inner tensors are walked themselves
    for name, array in {**segment.inputs, **within}.items():
        for words, moved in _moved(array, array.shape):
            if _from_other_input(segment, name, moved) <= _EXPLAINED:
                return Cause("layout", f"{_other(segment)} values follow from {name} with {words}")
    return None


def _moved(array: Array, shape: tuple[int, ...]) -> Iterator[tuple[str, Array]]:
    """Every other arrangement of ``array`` in ``shape``: its axes in another order, or one of them reversed."""
    if array.size != np.prod(shape) or array.ndim > 5:
        return
    for order in permutations(range(array.ndim)):
        moved = np.ascontiguousarray(array.transpose(order)).reshape(shape)
        if array.shape != shape or not np.array_equal(moved, array):
            yield f"its axes in the order {order}", moved
    for axis in range(1, array.ndim) if array.shape == shape else ():
        yield f"axis {axis} reversed", np.ascontiguousarray(np.flip(array, axis))


def _left(segment: Segment, nodes: Sequence[ir.Node], edit: Edit) -> float:
    """Share of the error that is left when these nodes are edited."""
    return _tried(segment, lambda: segment.run({node.name or "": edit for node in nodes}))


def _from_other_input(segment: Segment, name: str, array: Array) -> float:
    """Share of the error that is left when one input is another array."""
    return _tried(segment, lambda: segment.run(inputs={name: array}))


def _tried(segment: Segment, run: Callable[[], Array]) -> float:
    try:
        left = relative_error(run(), segment.other)
    except SegshipError:  # what was tried is no valid operator here
        return 1.0
    return _share_left(left, relative_error(segment.found, segment.expected))


def _share_left(left: float, error: float) -> float:
    return left / error if np.isfinite(error) else float(left > _EXPLAINED)


def _set(**attributes: str | int | float) -> Edit:
    def edit(node: ir.Node) -> None:
        for name, value in attributes.items():
            node.attributes[name] = ir.convenience.convert_attribute(name, value)

    return edit


def _at(node: ir.Node, cause: Cause) -> Cause:
    return Cause(cause.kind, cause.evidence, module_path(node), node.op_type)


def _other(segment: Segment) -> str:
    return "the engine's" if segment.candidate == "engine" else "PyTorch's"


def _described(segment: Segment) -> str:
    found, expected = segment.found.astype(np.float64), segment.expected.astype(np.float64)
    if found.shape != expected.shape:
        return f"the shape is {found.shape}, expected {expected.shape}"
    centred = expected - expected.mean()
    factor = float((centred * found).sum() / max(float(np.square(centred).sum()), 1e-300))
    worst = np.unravel_index(int(np.abs(found - expected).argmax()), found.shape)
    return (
        f"no known kind of error explains it; best fit: {factor:.3g} times the expected values; the largest difference is at "
        f"{tuple(int(each) for each in worst)}: {float(found[worst]):.4g} instead of {float(expected[worst]):.4g}"
    )
