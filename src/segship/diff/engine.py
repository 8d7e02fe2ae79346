"""The first divergence between the graph and an engine that was made of it."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median

from segship.core.backend import Feeds
from segship.core.engine import Engine
from segship.core.errors import RunFailed
from segship.core.graph import Graph
from segship.core.precision import Precision
from segship.core.progress import Progress, silent
from segship.diff.explain import explain
from segship.diff.inner import Inner, open_inner, smoothed
from segship.diff.kinds import Cause, Finding
from segship.diff.measure import relative_error
from segship.diff.segment import values_of
from segship.diff.walk import Step, Walk, walk
from segship.graph.passes.edit import place

_BETWEEN = ("graph", "engine")
_SMALL = 0.05
"""Own errors below may be rounding in fewer bits: bfloat16 makes 4e-3 in each operation."""

_SCALED = (
    "the plan moves outliers of channels into weights (smooth): tensors between such layers are scaled, and were passed over"
)

_COARSENESS: tuple[Precision, ...] = ("fp32", "fp16", "bf16", "int8")


def coarsest(engine: Engine) -> Precision:
    """The coarsest precision in the engine's plan."""
    plan = engine.manifest.plan
    return max((plan.default, *(each.precision for each in plan.keep)), key=_COARSENESS.index)


def diverging_step(
    engine: Engine, graph: Graph, feeds: Feeds, progress: Progress = silent
) -> tuple[Finding | None, tuple[Step, ...], tuple[str, ...]]:
    """Walk the engine's tensors on ``feeds``: the finding (None where every step agrees), the steps, and notes."""
    inner = open_inner(engine, graph)
    try:
        walked = walk(graph, inner, feeds, precision=coarsest(engine), progress=progress)
    except RunFailed as error:
        return _failing(graph, inner, feeds, error), (), ()
    notes = (*_notes(walked, inner, graph, feeds), *([_SCALED] if smoothed(engine) else []))
    return _finding(walked), tuple(walked.steps), notes


def _finding(walked: Walk) -> Finding | None:
    segment = walked.first
    if segment is None:
        return None
    cause = explain(segment)
    if cause.kind == "unexplained" and (smooth := _smooth(walked.steps)) is not None:
        cause = smooth
    path, op = segment.place
    others = [place(node) for node in segment.weighted[:-1]]
    hidden = f"; the engine shows no tensor between {others[0]} and {segment.name}" if others and not cause.path else ""
    return Finding(
        between=_BETWEEN,
        path=cause.path or path,
        op=cause.op or op,
        kind=cause.kind,
        evidence=cause.evidence + hidden,
        error=relative_error(segment.found, segment.expected),
    )


def _smooth(steps: Sequence[Step]) -> Cause | None:
    """Whether many steps make a small error of like size, so that none of them stands out: rounding, not a fault."""
    own = [step.own for step in steps if step.state == "diverges"]
    if len(own) < 3 or own[0] > _SMALL or own[0] > 10 * median(own):
        return None
    evidence = (
        f"{len(own)} of {len(steps)} tensors are off by themselves, by {median(own):.1e} in the median and {max(own):.1e} "
        f"at most: no step stands out, the error only grows, to {steps[-1].error:.1e}"
    )
    return Cause("precision", evidence)


def _failing(graph: Graph, inner: Inner, feeds: Feeds, error: RunFailed) -> Finding:
    """The first tensor that the engine cannot compute; with several images, that is what a fixed batch looks like."""
    names = list(inner.held)
    works, fails = 0, len(names)
    while fails - works > 1:
        middle = (works + fails) // 2
        if _runs(inner, feeds, names[:middle]):
            works = middle
        else:
            fails = middle
    node = values_of(graph.ir.graph)[names[fails - 1]].producer()
    several = len(next(iter(feeds.values()))) > 1
    return Finding(
        between=_BETWEEN,
        path=place(node) if node is not None else names[fails - 1],
        op=node.op_type if node is not None else "input",
        kind="batch" if several else "unexplained",
        evidence=f"the engine fails there{' with a batch of 2' if several else ''}: {error}",
        error=float("inf"),
    )


def _runs(inner: Inner, feeds: Feeds, names: Sequence[str]) -> bool:
    try:
        inner.run(feeds, names)
    except RunFailed:
        return False
    return True


def _notes(walked: Walk, inner: Inner, graph: Graph, feeds: Feeds) -> tuple[str, ...]:
    """What could not be compared, and whether looking has changed what was looked at."""
    total = sum(1 for node in graph.ir.graph)
    notes = [
        f"the engine's file holds {len(inner.held)} tensors of the graph's {total} nodes; the others are fused, and seen in those"
    ]
    if walked.hidden:
        notes.append(f"{walked.hidden} tensors are held in a form of the engine's own and were passed over")
    if (effect := inner.effect(feeds)) > 0:
        notes.append(
            f"asking for inner tensors moved the engine's result by {effect:.1e} (relative error): other fusions were chosen"
        )
    return tuple(notes)
