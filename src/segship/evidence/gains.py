"""Why INT8 pays, or does not: where the time of an engine goes, in one sentence."""

from __future__ import annotations

from collections.abc import Sequence

from segship.core.profile import Profile
from segship.evidence.records import Candidate

PAYS = 1.2
"""Factor over its FP32 sibling from which INT8 needs no explanation: below, casts and float operators eat what it gains."""

_MOST = 3
"""Operators named in a sentence."""
_SMALL = 3.0
"""Percent of the time below which an operator is not worth naming."""


def sibling(candidate: Candidate, candidates: Sequence[Candidate]) -> Candidate | None:
    """The FP32 engine of the same backend that an INT8 or mixed candidate was timed beside."""
    if candidate.precision == "fp32" or candidate.network_ms is None:
        return None
    same = (each for each in candidates if each.backend == candidate.backend and each.precision == "fp32")
    return next((each for each in same if each.network_ms is not None), None)


def pays(candidate: Candidate, candidates: Sequence[Candidate]) -> bool:
    """Whether it is at least ``PAYS`` times faster than its sibling; where there is nothing to compare, nothing is missing."""
    other = sibling(candidate, candidates)
    if other is None or other.network_ms is None or candidate.network_ms is None:
        return True
    return other.network_ms >= PAYS * candidate.network_ms


def explained(candidate: Candidate, candidates: Sequence[Candidate]) -> str | None:
    """What INT8 saves or costs beside its sibling, and :func:`time_in_words` of its profile; None without a profile.

    ``INT8 saves 9 % of the network's time: 61 % is in operators that run in float (TopK 22 %), 8 % in casts, ...``
    """
    other, profile = sibling(candidate, candidates), candidate.profile
    if profile is None or not profile.kernels:
        return None
    where = time_in_words(profile)
    if other is None or other.network_ms is None or candidate.network_ms is None:
        return where
    saved = 100 * (1 - candidate.network_ms / other.network_ms)
    if abs(saved) < 0.5:  # percent: nothing, as it would be written
        return f"INT8 is as fast as FP32: {where}"
    gain = f"saves {saved:.0f} % of the network's time" if saved > 0 else f"costs {-saved:.0f} % more time than FP32"
    return f"INT8 {gain}: {where}"


def time_in_words(profile: Profile) -> str:
    """Shares of INT8 kernels, of what stayed float (with its largest operators), and of conversions."""
    named = ", ".join(f"{kind} {share:.0f} %" for kind, share in profile.kinds("float")[:_MOST] if share >= _SMALL)
    parts = [f"{profile.share('float'):.0f} % is in operators that run in float{f' ({named})' if named else ''}"]
    parts.append(f"{profile.share('convert'):.0f} % in casts, Q/DQ and reorders")
    parts.append(f"{profile.share('int8'):.0f} % in INT8 kernels")
    return ", ".join(parts)
