"""What evidence is: verdicts and timings, appended to an engine and never changed.

Every record holds enough to be judged alone: what was compared with what, on how many images, the limits, all samples.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Literal, TypeVar, get_args

import msgspec

from segship.core.environment import Environment
from segship.core.errors import BadEngine
from segship.core.files import storage_errors
from segship.core.precision import PrecisionPlan
from segship.core.profile import Profile, Role
from segship.core.spec import Task
from segship.evidence.calibration import Diagnosis
from segship.evidence.searches import Found

Level = Literal["tensors", "predictions", "dataset", "invariance"]


class Limit(msgspec.Struct, frozen=True):
    """A bound on one measured quantity and why it is where it is."""

    quantity: str
    at_most: float | None = None
    at_least: float | None = None
    reason: str = ""

    def holds(self, value: float) -> bool:
        """Whether ``value`` is within the bound; NaN never is."""
        above = self.at_least is None or value >= self.at_least
        below = self.at_most is None or value <= self.at_most
        return above and below and value == value


class ClassScore(msgspec.Struct, frozen=True):
    """The metric of one class in points, of the reference (PyTorch) and of the engine; None where the class never occurs.

    ``support`` is how much of the class the truth holds (or the reference, without labels), in pixels or objects.
    """

    name: str
    reference: float | None
    candidate: float | None
    support: int


class ImageScore(msgspec.Struct, frozen=True):
    """Agreement of engine and reference on one image, in percent, as their task defines it."""

    image: str
    agreement: float


class Verdict(msgspec.Struct, frozen=True, kw_only=True):
    """One comparison of a candidate with a reference, and whether it holds.

    ``measured``: quantity name to value. ``interval``: 95 % paired-bootstrap interval of the metric's change
    (candidate minus reference, points). ``notes``: facts a reader must know, such as a skip.
    """

    level: Level
    title: str
    reference: str
    candidate: str
    images: int
    measured: dict[str, float]
    limits: tuple[Limit, ...]
    passed: bool
    interval: tuple[float, float] | None = None
    classes: tuple[ClassScore, ...] = ()
    worst: tuple[ImageScore, ...] = ()
    notes: tuple[str, ...] = ()
    created: str = ""

    def __bool__(self) -> bool:
        return self.passed

    def is_broken(self, limit: Limit) -> bool:
        """Whether a limit was broken.

        A quantity without a value was either left out, which breaks nothing, or not finite, which fails the verdict: so it is
        broken when no other limit explains a failure.
        """
        if limit.quantity in self.measured:
            return not limit.holds(self.measured[limit.quantity])
        known = [other for other in self.limits if other.quantity in self.measured]
        return not self.passed and all(other.holds(self.measured[other.quantity]) for other in known)


class Timing(msgspec.Struct, frozen=True, kw_only=True):
    """Wall-clock samples of one candidate, taken in turns with the others named in ``beside``.

    ``scope``: ``"network"`` is the network alone, arrays in and out; ``"image"`` is image file in, mask out.
    """

    candidate: str
    scope: Literal["network", "image"]
    input_size: tuple[int, int]
    batch: int
    threads: int
    samples_ms: tuple[float, ...]
    beside: tuple[str, ...]
    environment: Environment
    created: str = ""

    @property
    def median_ms(self) -> float:
        """Median of the samples."""
        ordered = sorted(self.samples_ms)
        middle = len(ordered) // 2
        return ordered[middle] if len(ordered) % 2 else (ordered[middle - 1] + ordered[middle]) / 2

    @property
    def quiet_ms(self) -> float:
        """First quartile of the samples: other processes only ever add time, so this ranks candidates best on a busy machine."""
        return sorted(self.samples_ms)[len(self.samples_ms) // 4]

    @property
    def p95_ms(self) -> float:
        """95th percentile of the samples (nearest rank)."""
        ordered = sorted(self.samples_ms)
        return ordered[min(len(ordered) - 1, -(-95 * len(ordered) // 100) - 1)]


class Candidate(msgspec.Struct, frozen=True, kw_only=True):
    """One way to run the model that ``deploy`` tried (PyTorch eager FP32 is one too), with all that was found out.

    ``name`` such as ``"openvino int8"``; ``chosen`` marks the delivered one; ``skipped`` says why it was not tried,
    or why it cannot be chosen although it was. ``metric`` in points of the task's own (mIoU, mask AP, PQ), None without labels;
    ``drop`` is PyTorch's metric minus this one's (without labels: 100 minus agreement). ``plan``: a mixed one's, found or given.
    ``profile``: where the time goes, of the chosen one and of those that INT8 does not make much faster.
    """

    name: str
    backend: str
    precision: str
    chosen: bool = False
    skipped: str | None = None
    network_ms: float | None = None
    image_ms: float | None = None
    metric: float | None = None
    drop: float | None = None
    agreement: float | None = None
    size_bytes: int | None = None
    plan: PrecisionPlan | None = None
    profile: Profile | None = None
    verdicts: tuple[Verdict, ...] = ()
    timings: tuple[Timing, ...] = ()

    @property
    def reasons(self) -> tuple[str, ...]:
        """Why it was not tried or cannot be chosen: one sentence each, none when it can."""
        broken = [
            f"{verdict.level} broken: {limit.quantity} is {verdict.measured.get(limit.quantity, float('nan')):.4g}, "
            f"allowed {'at most' if limit.at_most is not None else 'at least'} "
            f"{limit.at_most if limit.at_most is not None else limit.at_least:g}"
            for verdict in self.verdicts
            for limit in verdict.limits
            if verdict.is_broken(limit)
        ]
        return (*((self.skipped,) if self.skipped else ()), *broken)

    def as_json(self) -> dict[str, object]:
        """Plain values without the raw samples, per-image scores and single kernels."""
        plain = msgspec.to_builtins(msgspec.structs.replace(self, timings=(), profile=None))
        del plain["timings"]
        shares = {role: round(self.profile.share(role), 2) for role in get_args(Role)} if self.profile else None
        plain["profile"] = shares
        plain["verdicts"] = [
            {"level": v.level, "passed": v.passed, "measured": v.measured, "interval": v.interval} for v in self.verdicts
        ]
        return {**plain, "reasons": list(self.reasons)}


class Deployment(msgspec.Struct, frozen=True, kw_only=True):
    """Everything ``deploy`` found out: the source of the report."""

    title: str
    task: Task = "semantic"
    metric_name: str
    max_drop: float
    candidates: tuple[Candidate, ...]
    calibration_images: int
    evaluation_images: int
    notes: tuple[str, ...]
    seconds: dict[str, float]
    """Wall-clock seconds of each stage, in order."""
    searches: tuple[Found, ...] = ()
    calibration: Diagnosis | None = None
    created: str


Record = TypeVar("Record", bound=msgspec.Struct)


def append(file: Path, record: msgspec.Struct) -> None:
    """Append one record as a JSON line: the whole line or, on a full disk, nothing."""
    with storage_errors(file):
        file.parent.mkdir(parents=True, exist_ok=True)
        with file.open("ab", buffering=0) as stream:
            end, line = stream.seek(0, os.SEEK_END), msgspec.json.encode(record) + b"\n"
            try:
                while line:
                    line = line[stream.write(line) :]
            except BaseException:
                stream.truncate(end)
                raise


def read(file: Path, kind: type[Record]) -> list[Record]:
    """All records of a file, oldest first; an empty list if there is none. Raises :class:`BadEngine` for a damaged one."""
    if not file.is_file():
        return []
    try:
        return [msgspec.json.decode(line, type=kind) for line in file.read_bytes().splitlines() if line.strip()]
    except msgspec.DecodeError as error:
        raise BadEngine(f"the evidence {file} is damaged ({error}): deploy or verify again") from error
