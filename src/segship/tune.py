"""Find the fastest plan of one backend that is still right, and write it as a file that a person can read and edit."""

from __future__ import annotations

import shutil
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from segship.backends import deployable_backend
from segship.core.errors import BadArgument
from segship.core.plan_file import write_plan
from segship.core.progress import Progress, silent
from segship.evidence.records import Candidate
from segship.evidence.searches import Found
from segship.search import mixed_candidate
from segship.trial import Options, Stages, set_up


@dataclass(frozen=True)
class Tuned:
    """What tune leaves behind. ``plan``: the file; None when no plan was right, and ``candidate.skipped`` says so."""

    plan: Path | None
    candidate: Candidate
    found: Found

    def as_json(self) -> dict[str, Any]:
        """Plain values: the plan, what it was judged to be, and all that was measured on the way."""
        return {
            "plan": str(self.plan) if self.plan else None,
            "candidate": self.candidate.as_json(),
            "search": msgspec.to_builtins(self.found),
        }


def tune(
    checkpoint: Path | str,
    data: Path | str,
    output: Path | str,
    *,
    options: Options,
    progress: Progress = silent,
    **facts: Any,
) -> Tuned:
    """Search ``options.backend`` for the fastest plan within ``options.max_drop``, also where plain INT8 is right.

    ``facts`` are those of :func:`segship.load_model`. An interrupted search goes on where it stopped; nothing is at ``output``
    before it ends. Raises :class:`segship.core.errors.BadInput` and its kinds.
    """
    output = Path(output)
    if output.is_dir():  # found out now, not after half an hour
        raise BadArgument(f"{output} is a folder, and the plan is a file: name one with -o, for instance {output / 'plan.toml'}")
    known = deployable_backend(options.backend).TRAITS.precisions
    if "int8" not in known:
        raise BadArgument(
            f"the backend {options.backend} runs {' and '.join(known)}, no INT8, so there is nothing to tune: choose another"
        )
    trial = set_up(checkpoint, data, options, Stages(progress), progress, **facts)
    deadline = time.monotonic() + 60 * options.budget_minutes
    folder = output.with_name(f".{output.name}.search")
    tried, found = mixed_candidate(
        options.backend, trial, folder, progress, max_drop=options.max_drop, every_group=True, deadline=deadline
    )
    if found.plan is not None:
        write_plan(found.plan, output)
    shutil.rmtree(folder, ignore_errors=True)
    return Tuned(output if found.plan is not None else None, tried.record, found)
