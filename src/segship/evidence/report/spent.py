"""Where the time of engines goes, for reading: shares of INT8 kernels, float operators and conversions."""

from __future__ import annotations

from typing import NamedTuple

from segship.core.profile import Profile, Role
from segship.evidence.gains import explained
from segship.evidence.records import Deployment
from segship.evidence.report import words

_KINDS = 8
_KERNELS = 15


class Part(NamedTuple):
    """A part of the time: of all kernels of one role, or of one operator among them; ``share`` in percent."""

    name: str
    share: float
    role: str


class KernelRow(NamedTuple):
    """One kernel by its node's name."""

    name: str
    kind: str
    role: str
    share: str


class SpentTable(NamedTuple):
    """The profile of one candidate."""

    name: str
    chosen: bool
    sentence: str
    roles: list[Part]
    kinds: list[Part]
    kernels: list[KernelRow]


_ROLES: tuple[tuple[Role, str], ...] = (
    ("int8", "INT8 kernels"),
    ("float", "float operators"),
    ("convert", "casts, Q/DQ, reorders"),
)


def spent_tables(deployment: Deployment) -> list[SpentTable]:
    """One for each candidate that was profiled, the chosen one first."""
    profiled = [(each, each.profile) for each in deployment.candidates if each.profile is not None and each.profile.kernels]
    ordered = sorted(profiled, key=lambda entry: not entry[0].chosen)
    return [
        SpentTable(
            name=words.candidate_name(each.name),
            chosen=each.chosen,
            sentence=explained(each, deployment.candidates) or "",
            roles=[Part(name, profile.share(role), role) for role, name in _ROLES],
            kinds=_kinds(profile),
            kernels=[
                KernelRow(kernel.name or words.NONE, kernel.kind, kernel.role, words.percent(share))
                for kernel, share in profile.slowest(_KERNELS)
            ],
        )
        for each, profile in ordered
    ]


def _kinds(profile: Profile) -> list[Part]:
    """The operators that take longest, whatever they run in."""
    parts = [Part(kind, share, role) for role, _ in _ROLES for kind, share in profile.kinds(role)]
    return sorted(parts, key=lambda part: -part.share)[:_KINDS]
