"""Find the fastest engine that is still right: build every candidate, prove it, time it, keep the best."""

from __future__ import annotations

import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import msgspec

from segship import showcase
from segship.candidates import beside_graph, build_candidate, choose, gain_notes, precision_notes, wanted_candidates
from segship.core.engine import Engine, refuse_foreign
from segship.core.errors import BuildFailed
from segship.core.files import replace_directory
from segship.core.progress import Progress, silent
from segship.diagnostics import diagnose
from segship.evidence.calibration import Diagnosis
from segship.evidence.records import Deployment
from segship.evidence.searches import Found
from segship.judging import Judge, Tried
from segship.search import mixed_candidate
from segship.tasks import task_of
from segship.trial import Options, Stages, Trial, notes, scratch_beside, set_up


@dataclass(frozen=True)
class Delivered:
    """What deploy leaves behind: the engine (None when no candidate was right), the report, and all that was found out."""

    engine: Engine | None
    report: Path
    deployment: Deployment

    def as_json(self) -> dict[str, Any]:
        """Plain values: what was chosen, and every candidate with its numbers (without the raw samples)."""
        chosen = next((candidate for candidate in self.deployment.candidates if candidate.chosen), None)
        return {
            "engine": str(self.engine.path) if self.engine else None,
            "report": str(self.report),
            "backend": chosen.backend if chosen else None,
            "precision": chosen.precision if chosen else None,
            "metric": self.deployment.metric_name,
            "max_drop": self.deployment.max_drop,
            "candidates": [candidate.as_json() for candidate in self.deployment.candidates],
            "notes": list(self.deployment.notes),
            "calibration": msgspec.to_builtins(self.deployment.calibration),
            "seconds": self.deployment.seconds,
        }


def deploy(
    checkpoint: Path | str,
    data: Path | str,
    output: Path | str,
    *,
    options: Options | None = None,
    progress: Progress = silent,
    **facts: Any,
) -> Delivered:
    """From checkpoint and images to the fastest engine within ``options.max_drop``, its evidence and its report.

    ``facts`` are those of :func:`segship.load_model`. Nothing is left at ``output`` when anything fails or is interrupted.
    Raises :class:`segship.core.errors.BadInput` and its kinds, and :class:`segship.core.errors.BuildFailed` when no candidate
    can be built. When candidates are built but none is right, ``Delivered.engine`` is None and the report says why.
    """
    options, output = options or Options(), Path(output)
    clock = Stages(progress)
    wanted = wanted_candidates(options)
    refuse_foreign(output)
    trial = set_up(checkpoint, data, options, clock, progress, **facts)
    wanted = beside_graph(wanted, trial.quantiser.graph, options)
    with scratch_beside(output) as scratch:
        tried = [build_candidate(candidate, trial.quantiser, scratch, clock) for candidate in wanted]
        if not any(each.engine for each in tried):
            raise BuildFailed(
                "no candidate could be built: " + "; ".join(f"{each.record.name}: {each.record.skipped}" for each in tried)
            )
        with clock("verify"):
            tried = [trial.judge.prove(each) for each in tried]
        with clock("diagnose"):
            diagnosis = diagnosed(trial, tried)
        with clock("search"):
            mixed, searches = search_mixed(tried, trial, output, options, progress)
        with clock("measure"):
            tried = trial.judge.time([*tried, *mixed], options.schedule, trial.threads)
            tried = trial.judge.profile(choose(tried), trial.threads)
        deployment = summary(trial, tried, options, searches, diagnosis, clock)
        delivered = deliver(deployment, tried, trial.judge, output)
    shutil.rmtree(search_folder(output), ignore_errors=True)
    return delivered


def search_folder(output: Path) -> Path:
    """Where a search keeps its engines until the deployment has ended: beside the output, to be found again."""
    return output.with_name(f".{output.name}.search")


def search_mixed(
    tried: Sequence[Tried], trial: Trial, output: Path, options: Options, progress: Progress
) -> tuple[list[Tried], list[Found]]:
    """With ``--precision auto``: a mixed candidate for each INT8 engine that was built and is not right."""
    if options.precision != "auto" or options.plan is not None:
        return [], []
    wrong = [each for each in tried if each.record.precision == "int8" and each.engine is not None and not each.right]
    end, results = time.monotonic() + 60 * options.budget_minutes, []
    for index, each in enumerate(wrong):
        now = time.monotonic()
        deadline = now + (end - now) / (len(wrong) - index)  # what one backend leaves is the next one's
        folder = search_folder(output)
        results.append(
            mixed_candidate(
                each.record.backend,
                trial,
                folder,
                progress,
                max_drop=options.max_drop,
                every_group=False,
                deadline=deadline,
            )
        )
    return [candidate for candidate, _ in results], [found for _, found in results]


def diagnosed(trial: Trial, tried: Sequence[Tried]) -> Diagnosis | None:
    """Whether the calibration was good enough, where anything was calibrated."""
    integer = next((each.engine for each in tried if each.engine and each.record.precision == "int8"), None)
    if integer is None:
        return None
    return diagnose(trial.quantiser, trial.model, trial.dataset, trial.calibration, integer)


def summary(
    trial: Trial,
    tried: Sequence[Tried],
    options: Options,
    searches: Sequence[Found],
    diagnosis: Diagnosis | None,
    clock: Stages,
) -> Deployment:
    """Everything that was found out."""
    spec, dataset = trial.model.spec, trial.dataset
    said = (*notes(trial), *precision_notes(tried), *gain_notes(tried), *(diagnosis.notes if diagnosis else ()))
    return Deployment(
        title=f"{spec.variant} on {dataset.root.resolve().name}",
        task=spec.task,
        metric_name=task_of(spec).METRIC if dataset.labelled else "agreement",
        max_drop=options.max_drop,
        candidates=tuple(each.record for each in tried),
        calibration_images=len(trial.calibration),
        evaluation_images=len(trial.judged),
        notes=said,
        seconds=clock.seconds,
        searches=tuple(searches),
        calibration=diagnosis,
        created=datetime.now(timezone.utc).isoformat(timespec="seconds"),
    )


def deliver(deployment: Deployment, tried: Sequence[Tried], judge: Judge, output: Path) -> Delivered:
    """Put the chosen engine with evidence and report at ``output``; without one, only a report beside it."""
    chosen = next((each for each in tried if each.record.chosen), None)
    shown = chosen or next((each for each in tried if each.engine is not None), None)
    examples = showcase.worst_examples(shown, judge) if shown else []
    if chosen is None or chosen.engine is None:
        report = output.with_name(f"{output.name.removesuffix('.engine')}.report.html")
        showcase.write_report(report, deployment, None, examples, output)
        return Delivered(None, report, deployment)
    showcase.write_evidence(chosen.engine, deployment, examples)
    showcase.write_report(chosen.engine.path / showcase.REPORT, deployment, chosen.engine.manifest, examples, output)
    replace_directory(chosen.engine.path, output)
    return Delivered(Engine(output, chosen.engine.manifest), output / showcase.REPORT, deployment)
