"""Small questions about checkpoint keys."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable


def has_all(keys: Collection[str], *wanted: str) -> bool:
    """Whether every wanted key is there."""
    return all(key in keys for key in wanted)


def count(keys: Iterable[str], pattern: str) -> int:
    """One more than the largest number that ``pattern``'s first group matches in ``keys``; 0 without a match.

    >>> count(["block1.0.norm1.weight", "block1.1.norm1.weight"], r"block1\\.(\\d+)\\.")
    2
    """
    compiled = re.compile(pattern)
    return max((int(match[1]) + 1 for key in keys if (match := compiled.match(key))), default=0)


def renamed(keys: Iterable[str], rules: Iterable[tuple[str, str]]) -> dict[str, str]:
    """Old key to new key: the first rule (regular expression, replacement) that matches in full is applied."""
    compiled = [(re.compile(pattern), replacement) for pattern, replacement in rules]
    result = {}
    for key in keys:
        for pattern, replacement in compiled:
            if match := pattern.fullmatch(key):
                result[key] = match.expand(replacement)
                break
        else:
            result[key] = key
    return result
