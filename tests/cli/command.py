"""A command as a user runs it: its exit code, and the one sentence that it refuses with."""

from __future__ import annotations

import pytest

from segship.cli import main


def run(*words: object) -> int:
    """Exit code of a command."""
    with pytest.raises(SystemExit) as ended:
        main([str(word) for word in words])
    return int(ended.value.code or 0)


def sentence(capsys: pytest.CaptureFixture[str]) -> str:
    """The one line on standard error that starts with the program's name; a traceback has none."""
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("segship: ")]
    assert len(lines) == 1
    return lines[0]


def refused(capsys: pytest.CaptureFixture[str], *words: object) -> str:
    """The sentence that a command with bad input ends with."""
    assert run(*words) == 2
    return sentence(capsys)
