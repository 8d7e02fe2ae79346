"""Without a terminal, progress is lines: each stage once, and a long one now and then with its time left."""

from __future__ import annotations

import pytest

import segship.cli.console as console_module
from segship.cli.console import Console


def test_a_long_stage_tells_its_time_left(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    now = [0.0]
    monkeypatch.setattr(console_module.time, "perf_counter", lambda: now[0])
    with Console() as progress:
        progress("export", 0, None)
        for done in range(25):
            progress("search openvino: sensitivity", done, 24)
            now[0] += 4.0
    lines = capsys.readouterr().err.splitlines()
    assert lines[:2] == ["   0.0 s  export", "   0.0 s  search openvino: sensitivity (24)"]
    assert lines[2] == "  12.0 s  search openvino: sensitivity 3/24, about 84 s left"
    assert len(lines) < 12  # not a line for each step
