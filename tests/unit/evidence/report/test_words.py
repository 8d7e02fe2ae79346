"""Numbers and names as people write them."""

from __future__ import annotations

import math

import pytest

from segship.evidence.report import words


@pytest.mark.parametrize(
    ("value", "text"),
    [(99.31, "99.3 %"), (99.96, "99.96 %"), (99.9996, "99.9996 %"), (99.99999, "> 99.9999 %"), (100.0, "100 %"), (None, "–")],
)
def test_a_percentage_says_a_hundred_only_when_it_is(value: float | None, text: str) -> None:
    assert words.percent(value).replace("\u202f", " ") == text


@pytest.mark.parametrize(
    ("value", "bounds", "text"),
    [
        (1.0004, [1.0], "1.0004"),
        (1.0, [1.0], "1.00"),
        (0.31, [0.5], "0.310"),
        (99.9996, [], "99.9996"),
        (math.inf, [1.0], "infinite"),
        (math.nan, [1.0], "not a number"),
    ],
)
def test_a_measured_number_shows_on_which_side_of_its_limit_it_is(value: float, bounds: list[float], text: str) -> None:
    assert words.beside(value, bounds) == text


@pytest.mark.parametrize(
    ("written", "text"),
    [
        (words.ms(0.8719), "0.872 ms"),
        (words.ms(2571.3), "2571 ms"),
        (words.times(7.94), "7.9×"),
        (words.times(1.234), "1.23×"),
        (words.change(-0.124), "−0.12"),
        (words.change(-0.001), "0.00"),
        (words.size(54_900_000), "54.9 MB"),
        (words.seconds(3725), "1 h 2 min"),
        (words.seconds(61), "1 min 1 s"),
        (words.day("2026-11-21T08:30:00Z"), "2026-11-21 08:30 UTC"),
        (words.candidate_name("PyTorch fp32"), "PyTorch FP32"),
        (words.candidate_name("openvino int8, one image at a time"), "OpenVINO INT8, one image at a time"),
        (words.candidate_name("my own runtime"), "my own runtime"),
        (words.figure(0.0000123), "1.23e−05"),
    ],
)
def test_numbers_and_names_are_written_as_people_write_them(written: str, text: str) -> None:
    assert written.replace("\u202f", " ") == text
