"""The verdict on top of the report: one sentence, a few big numbers, and what broke if something did."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, NamedTuple

from segship.evidence.records import Candidate, Deployment, Limit, Verdict
from segship.evidence.report import words

_PYTORCH = ("torch", "pytorch")


class Tile(NamedTuple):
    """One big number: the number, what it is, and what it is compared with."""

    number: str
    what: str
    beside: str


class Speed(NamedTuple):
    """Two times that may be compared, in milliseconds: of the same scope, both measured."""

    scope: str
    reference_ms: float
    candidate_ms: float

    @property
    def factor(self) -> float:
        """How many times faster the candidate is."""
        return self.reference_ms / self.candidate_ms


@dataclass(frozen=True)
class Outcome:
    """``subject`` is the chosen candidate, or the fastest that was tried where none could be chosen."""

    state: Literal["passed", "failed", "nothing"]
    sentence: str
    subject: Candidate | None
    reference: Candidate | None
    tiles: tuple[Tile, ...]
    broken: tuple[str, ...]

    @property
    def subject_name(self) -> str:
        """The subject's short name."""
        return words.candidate_name(self.subject.name) if self.subject else "engine"


def outcome(deployment: Deployment) -> Outcome:
    """What the whole deployment came to."""
    chosen = next((candidate for candidate in deployment.candidates if candidate.chosen), None)
    reference = find_reference(deployment)
    subject = chosen or _fastest_tried(deployment, reference)
    broken = tuple(broken_limits(subject)) if subject else ()
    state: Literal["passed", "failed", "nothing"] = "nothing" if chosen is None else "passed" if _holds(chosen) else "failed"
    sentence = _nothing(deployment, reference) if chosen is None else _sentence(deployment, reference, chosen, state)
    tiles = tuple(_tiles(deployment, reference, subject)) if subject else ()
    return Outcome(state, sentence, subject, reference, tiles, broken)


def find_reference(deployment: Deployment) -> Candidate | None:
    """The candidate that all others are compared with: PyTorch in FP32."""
    ours = [candidate for candidate in deployment.candidates if candidate.backend in _PYTORCH]
    return next((candidate for candidate in ours if candidate.precision == "fp32"), ours[0] if ours else None)


def speed(reference: Candidate | None, candidate: Candidate) -> Speed | None:
    """The two times to compare: image file to mask where both have it, else the network alone, else nothing."""
    if reference is None or candidate is reference:
        return None
    if reference.image_ms and candidate.image_ms:
        return Speed("image file to mask", reference.image_ms, candidate.image_ms)
    if reference.network_ms and candidate.network_ms:
        return Speed("network alone", reference.network_ms, candidate.network_ms)
    return None


def limit_text(limit: Limit) -> str:
    """The bound in words."""
    parts = []
    if limit.at_least is not None:
        parts.append(f"at\u00a0least\u00a0{words.exact(limit.at_least)}")
    if limit.at_most is not None:
        parts.append(f"at\u00a0most\u00a0{words.exact(limit.at_most)}")
    return " and ".join(parts) or "any value"


def measured_text(value: float, limit: Limit) -> str:
    """What was measured, precisely enough to see whether ``limit`` holds."""
    return words.beside(value, [bound for bound in (limit.at_least, limit.at_most) if bound is not None])


def broken_limits(candidate: Candidate) -> Iterator[str]:
    """A sentence for each limit that does not hold."""
    for verdict in candidate.verdicts:
        broken = [limit for limit in verdict.limits if verdict.is_broken(limit)]
        yield from (_broken_limit(verdict, limit) for limit in broken)
        if not broken and not verdict.passed:
            yield f"not true: {verdict.title}"


def _broken_limit(verdict: Verdict, limit: Limit) -> str:
    value = verdict.measured.get(limit.quantity)
    found = "no finite value" if value is None else measured_text(value, limit)
    return f"{words.quantity(limit.quantity)}: {found}, must be {limit_text(limit)}"


def _holds(candidate: Candidate) -> bool:
    """Whether it was checked and every verdict holds: without evidence nothing is right."""
    return bool(candidate.verdicts) and all(candidate.verdicts)


def _fastest_tried(deployment: Deployment, reference: Candidate | None) -> Candidate | None:
    tried = [
        (candidate.image_ms or candidate.network_ms or float("inf"), index)
        for index, candidate in enumerate(deployment.candidates)
        if candidate is not reference and (candidate.verdicts or candidate.network_ms or candidate.image_ms)
    ]
    return deployment.candidates[min(tried)[1]] if tried else None


def _sentence(deployment: Deployment, reference: Candidate | None, chosen: Candidate, state: str) -> str:
    """The chosen candidate in one sentence: how fast, how right."""
    pace, facts = _pace(speed(reference, chosen)), _facts(deployment, reference, chosen)
    name = words.headline_name(chosen)
    if state == "failed":
        start = f"{name} {'failed its checks' if chosen.verdicts else 'was never checked'}" + (
            f", although it {pace}" if pace else ""
        )
        return f"{start}: {', '.join(facts)}." if facts else f"{start}."
    start = f"{name} {pace}" if pace else f"{name} passed its checks"
    return f"{start}: {', '.join(facts)}." if facts else f"{start}."


def _pace(pair: Speed | None) -> str:
    if pair is None:
        return ""
    if 0.99 < pair.factor < 1.01:
        return "is as fast as PyTorch"
    faster = pair.factor > 1
    return f"is {words.times(pair.factor if faster else 1 / pair.factor)} {'faster' if faster else 'slower'} than PyTorch"


def _facts(deployment: Deployment, reference: Candidate | None, chosen: Candidate) -> list[str]:
    facts = []
    if reference and reference.metric is not None and chosen.metric is not None:
        change = f"{words.points(reference.metric, 1)} → {words.points(chosen.metric, 1)}"
        facts.append(f"{deployment.metric_name} {change}".replace(" ", "\u00a0"))
    if chosen.agreement is not None:
        facts.append(f"{words.percent(chosen.agreement)} {words.of_task(deployment.task).agree}")
    return facts


def _nothing(deployment: Deployment, reference: Candidate | None) -> str:
    """Why there is no engine."""
    others = [candidate for candidate in deployment.candidates if candidate is not reference]
    tried = [candidate for candidate in others if candidate.verdicts or candidate.network_ms or candidate.image_ms]
    if not tried:
        return "No engine was delivered: no candidate could be tried."
    many = f"none of the {len(tried)} candidates" if len(tried) > 1 else "not even the only candidate"
    return f"No engine was delivered: {many} that could be tried passed every check."


def _tiles(deployment: Deployment, reference: Candidate | None, subject: Candidate) -> Iterator[Tile]:
    if pair := speed(reference, subject):
        yield _speed_tile(pair, reference, subject)
    if subject.metric is not None:
        yield _metric_tile(deployment, reference, subject)
    if subject.agreement is not None:
        images = f"on {deployment.evaluation_images} images"
        yield Tile(words.percent(subject.agreement), words.of_task(deployment.task).tile, images)
    if subject.size_bytes is not None:
        was = reference.size_bytes if reference else None
        yield Tile(words.size(subject.size_bytes), "on disk", f"PyTorch {words.size(was)}" if was else "weights included")


def _speed_tile(pair: Speed, reference: Candidate | None, subject: Candidate) -> Tile:
    beside = f"{pair.scope}: {words.ms(pair.reference_ms)} → {words.ms(pair.candidate_ms)}"
    if pair.scope == "image file to mask" and reference and reference.network_ms and subject.network_ms:
        beside += f"; network alone {words.times(reference.network_ms / subject.network_ms)}"
    if pair.factor < 0.99:
        return Tile(words.times(1 / pair.factor), "slower than PyTorch", beside)
    return Tile(words.times(pair.factor), "faster than PyTorch", beside)


def _metric_tile(deployment: Deployment, reference: Candidate | None, subject: Candidate) -> Tile:
    beside = f"at most {words.allowance(deployment.max_drop)} may be lost"
    if reference and reference.metric is not None and subject.metric is not None:
        beside = f"PyTorch {words.points(reference.metric)}, change {words.change(subject.metric - reference.metric)}"
        interval = next((v.interval for v in subject.verdicts if v.level == "dataset" and v.interval), None)
        if interval:
            beside += f" (95{words.THIN}%: {words.change(interval[0])} to {words.change(interval[1])})"
    return Tile(words.points(subject.metric), deployment.metric_name, beside)
