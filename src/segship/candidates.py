"""Which engines to try, how each is built, and which of them is delivered."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import msgspec

from segship.backends import DEPLOYABLE, deployable_backend, load_backend
from segship.core.errors import BackendUnavailable, BadArgument, BuildFailed
from segship.core.graph import Graph
from segship.core.precision import PrecisionPlan
from segship.evidence import gains
from segship.evidence.records import Candidate
from segship.graph.int8_recipe import Recipe, parse_recipe
from segship.graph.plan import check_kernels, check_plan
from segship.judging import Tried
from segship.pipeline import build, with_plan
from segship.quantiser import Quantiser
from segship.trial import Options, Stages

_PLANNED = "mixed"
"""Precision of a candidate that is built by a plan of the user's."""


def wanted_candidates(options: Options) -> list[Candidate]:
    """Every backend and precision to try; those that cannot be tried here carry the reason.

    Raises :class:`BadArgument` for FP16 (no backend here runs it on this processor), for a plan with it or an unknown recipe, and
    for a backend that makes no engine of a graph, :class:`BackendUnavailable` when the one backend asked for is missing.
    """
    if options.plan is not None and options.plan.recipe is not None:
        parse_recipe(options.plan.recipe)
    names = DEPLOYABLE if options.backend == "auto" else (options.backend,)
    if options.backend != "auto":
        deployable_backend(options.backend)
    candidates = []
    for name in names:
        backend = load_backend(name)
        for precision in _precisions(options):
            plan = options.plan if precision == _PLANNED else None
            needed = sorted(plan.precisions if plan is not None else {precision})
            problem = backend.probe()
            if problem is None and (missing := [each for each in needed if each not in backend.TRAITS.precisions]):
                problem = (
                    f"{name} accepts {missing[0]} graphs and runs them in fp32 on this processor; "
                    f"it runs {', '.join(backend.TRAITS.precisions)}"
                )
            record = Candidate(name=f"{name} {precision}", backend=name, precision=precision, plan=plan, skipped=problem)
            candidates.append(record)
    _check_any(candidates, options)
    return candidates


def beside_graph(candidates: Sequence[Candidate], graph: Graph, options: Options) -> list[Candidate]:
    """The candidates as the graph shows them: a backend without the INT8 kernels that a plan of the user's asks for is skipped.

    Raises :class:`BadArgument` for a plan that covers nothing somewhere, and when no backend is left that has its kernels.
    """
    if options.plan is not None:
        check_plan(graph, options.plan)
    seen = [msgspec.structs.replace(each, skipped=each.skipped or _no_kernels(each, graph)) for each in candidates]
    _check_any(seen, options)
    return seen


def _no_kernels(candidate: Candidate, graph: Graph) -> str | None:
    try:
        check_kernels(graph, candidate.plan or PrecisionPlan("fp32"), load_backend(candidate.backend))
    except BadArgument as error:
        return str(error)
    return None


def _check_any(candidates: Sequence[Candidate], options: Options) -> None:
    """Raise when nothing that was asked for can be built, with the reasons."""
    asked = [candidate for candidate in candidates if candidate.plan is options.plan]
    if all(candidate.skipped for candidate in asked):
        reasons = "; ".join(dict.fromkeys(str(candidate.skipped) for candidate in asked))
        kind = BadArgument if options.precision == "fp16" or options.plan is not None else BackendUnavailable
        wanted = "this --plan" if options.plan is not None else f"--precision {options.precision}"
        raise kind(f"nothing to build with --backend {options.backend} and {wanted}: {reasons}")


def _precisions(options: Options) -> tuple[str, ...]:
    """What is tried on each backend: with a plan of the user's, that and FP32 to compare with."""
    if options.plan is not None:
        return ("fp32", _PLANNED)
    return ("fp32", "int8") if options.precision == "auto" else (options.precision,)


def build_candidate(candidate: Candidate, quantiser: Quantiser, scratch: Path, clock: Stages) -> Tried:
    """The candidate's engine, in the scratch directory; a build that fails is a recorded fact."""
    if candidate.skipped:
        return Tried(candidate, None)
    integer = candidate.precision == "int8" or (candidate.plan is not None and "int8" in candidate.plan.precisions)
    try:
        if integer:
            with clock("calibrate"):
                quantiser.calibrate(_recipe(candidate))
        with clock("build"):
            graph = _graph(candidate, quantiser, integer=integer)
            calibrated = quantiser.record(_recipe(candidate)) if integer else None
            path = scratch / f"{candidate.name.replace(' ', '-')}.engine"
            return Tried(candidate, build(graph, candidate.backend, path, calibration=calibrated))
    except BuildFailed as error:
        return Tried(candidate, None).with_(skipped=str(error))


def _recipe(candidate: Candidate) -> Recipe | None:
    """How a plan wants INT8's numbers made; None: as usual."""
    return parse_recipe(candidate.plan.recipe) if candidate.plan is not None and candidate.plan.recipe is not None else None


def _graph(candidate: Candidate, quantiser: Quantiser, *, integer: bool) -> Graph:
    """The graph for the candidate's backend, by the candidate's plan or by the backend's own."""
    traits, plan = load_backend(candidate.backend).TRAITS, candidate.plan
    if integer:
        return quantiser.quantised(traits, plan, _recipe(candidate))
    return with_plan(quantiser.graph, plan) if plan is not None else quantiser.plain(traits)


def choose(tried: Sequence[Tried]) -> list[Tried]:
    """Mark the fastest right candidate, judged by image file to mask: that is what a user waits for."""
    best = min((each for each in tried if each.right), key=image_time, default=None)
    return [each.with_(chosen=best is not None and each is best) for each in tried]


def image_time(tried: Tried) -> float:
    """Milliseconds from image file to mask, as little disturbed by other processes as can be; infinite if not timed."""
    return min((timing.quiet_ms for timing in tried.record.timings if timing.scope == "image"), default=float("inf"))


def precision_notes(tried: Sequence[Tried]) -> tuple[str, ...]:
    """A sentence for each built candidate that the runtime runs in another precision than asked, or cannot tell."""
    found = []
    for each in tried:
        if each.engine is None:
            continue
        report = each.engine.manifest.built.precision
        if report.found is None:
            found.append(f"{each.record.name}: the runtime cannot be asked what its layers run in")
        elif report.disagreements:
            first = report.disagreements[0]
            found.append(
                f"{each.record.name}: {len(report.disagreements)} of {len(report.layers)} layers run in another precision than "
                f"asked (first {first.layer}: {first.found} instead of {first.asked})"
            )
    return tuple(found)


def gain_notes(tried: Sequence[Tried]) -> tuple[str, ...]:
    """A sentence for each INT8 or mixed candidate that is not much faster than FP32: where its time goes."""
    records = [each.record for each in tried]
    unpaid = [record for record in records if not gains.pays(record, records)]
    sentences = ((record.name, gains.explained(record, records)) for record in unpaid)
    return tuple(f"{name}: {sentence}" for name, sentence in sentences if sentence is not None)
