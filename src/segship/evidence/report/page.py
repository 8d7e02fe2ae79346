"""From records to one HTML file. Templates write, Jinja escapes, nothing here touches a disk or a clock."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from functools import cache
from itertools import groupby

from jinja2 import Environment, PackageLoader, StrictUndefined

from segship.core.engine import Manifest
from segship.core.environment import Environment as Machine
from segship.core.graph import PassRecord
from segship.draw import palette
from segship.evidence.records import Candidate, ClassScore, Deployment, Timing
from segship.evidence.report import tables, words
from segship.evidence.report.calibration import calibration_table
from segship.evidence.report.chart import chart
from segship.evidence.report.outcome import Outcome, outcome
from segship.evidence.report.pictures import ExamplePicture, css, examples, legend
from segship.evidence.report.plots import candidates_plot
from segship.evidence.report.sensitivity import search_table
from segship.evidence.report.spent import spent_tables

_OPEN_CLASSES = 16
"""Classes shown before the rest is folded away."""


def render(
    deployment: Deployment,
    manifest: Manifest | None,
    pictures: Sequence[ExamplePicture],
    *,
    engine: str = "NAME.engine",
) -> str:
    """The report as one self-contained HTML page: no script, and nothing loaded from anywhere.

    ``manifest`` None: no engine was delivered. ``engine``: the path to write in the commands at the end.
    The same values give the same text.
    """
    result, plot = outcome(deployment), candidates_plot(deployment)
    environment = _environment()
    return environment.get_template("page.html").render(
        deployment=deployment,
        task=words.of_task(deployment.task),
        manifest=manifest,
        outcome=result,
        charts=[("wide", chart(plot, 840, 430)), ("narrow", chart(plot, 380, 400))],
        candidates=tables.candidate_rows(deployment),
        classes=tables.class_rows(_class_scores(result), _class_colors(manifest), deployment.max_drop),
        open_classes=_OPEN_CLASSES,
        labelled=any(candidate.metric is not None for candidate in deployment.candidates),
        verdicts=[(verdict, list(tables.guard_rows(verdict))) for verdict in (result.subject.verdicts if result.subject else ())],
        examples=examples(pictures, result.subject_name),
        legend=legend(pictures),
        calibration=calibration_table(deployment.calibration) if deployment.calibration else None,
        searches=[search_table(found, deployment) for found in deployment.searches],
        spent=spent_tables(deployment),
        precision=tables.precision_rows(manifest.built.precision) if manifest else [],
        stages=_stages(manifest),
        machine=_machine(deployment, result),
        timing=_timing(result),
        commands=_commands(manifest, deployment, engine),
    )


@cache
def _environment() -> Environment:
    """Jinja with escaping on for every file, also for the SVG, and no silence about a name that does not exist."""
    environment = Environment(
        loader=PackageLoader("segship.evidence.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(
        change=words.change,
        percent=words.percent,
        seconds=words.seconds,
        day=words.day,
        backend_name=words.backend_name,
        candidate_name=words.candidate_name,
        quantity=words.quantity,
    )
    return environment


def _class_scores(result: Outcome) -> tuple[ClassScore, ...]:
    """Per-class scores of the subject: those against the truth, else any."""
    verdicts = sorted(result.subject.verdicts, key=lambda verdict: verdict.level != "dataset") if result.subject else []
    return next((verdict.classes for verdict in verdicts if verdict.classes), ())


def _class_colors(manifest: Manifest | None) -> dict[str, str]:
    if manifest is None:
        return {}
    colors = palette(manifest.spec.classes, manifest.spec.colors)
    return {name: css(color) for name, color in zip(manifest.spec.classes, colors, strict=True)}


def _stages(manifest: Manifest | None) -> list[tuple[str, list[PassRecord]]]:
    """The graph's passes, those of one stage together."""
    if manifest is None:
        return []
    return [(stage, list(records)) for stage, records in groupby(manifest.history, key=lambda record: record.stage)]


def _timing(result: Outcome) -> Timing | None:
    """How the subject was timed."""
    timings = result.subject.timings if result.subject else ()
    return next((timing for timing in timings if timing.scope == "network"), timings[0] if timings else None)


def _machine(deployment: Deployment, result: Outcome) -> Machine | None:
    """Where the numbers were measured."""
    ordered: list[Candidate] = [result.subject] if result.subject else []
    timings = [timing for candidate in (*ordered, *deployment.candidates) for timing in candidate.timings]
    return timings[0].environment if timings else None


def _commands(manifest: Manifest | None, deployment: Deployment, engine: str) -> list[tuple[str, str]]:
    """What to do with the engine, and how to make it again: purpose and command."""
    if manifest is None:
        return []
    name, backend, checkpoint = (shlex.quote(each) for each in (engine, manifest.backend, manifest.spec.checkpoint.name))
    precision, drop = _asked(manifest, deployment), words.exact(deployment.max_drop)
    return [
        ("Segment your pictures", f"segship predict {name} photo.jpg -o masks"),
        ("Check it on your data", f"segship verify {name} --data DIR"),
        ("Time it on your machine", f"segship bench {name} --against {checkpoint}"),
        ("Look inside", f"segship inspect {name}"),
        (
            "Make it again",
            f"segship deploy {checkpoint} --data DIR --backend {backend} {precision} --max-drop {drop} -o {name}",
        ),
    ]


def _asked(manifest: Manifest, deployment: Deployment) -> str:
    """What makes deploy build the chosen engine again: of a mixed one, the search that found it, or the plan that was given."""
    chosen = next((candidate for candidate in deployment.candidates if candidate.chosen), None)
    if chosen is None or chosen.precision != "mixed":
        return f"--precision {manifest.precision}"
    return "--precision auto" if deployment.searches else "--plan PLAN.toml"
