"""A plan survives the file exactly, and a wrong file is refused with one clear sentence."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from segship.core.errors import BadArgument
from segship.core.plan_file import read_plan, write_plan
from segship.core.precision import Keep, PrecisionPlan, check_covered, in_words

PLANS = [
    PrecisionPlan("fp32"),
    PrecisionPlan("int8", rest="fp16"),
    PrecisionPlan(
        "fp16",
        (
            Keep("op:LayerNormalization", "fp32", "sum of squares reaches 2.1e6, float16 ends at 65504", 0.1 + 0.2, 3.1),
            Keep("backbone.block[!4].*", "int8", 'a "quoted" \\ reason,\nof two lines, \t, \x7f, \x01 and ü', effect_ms=-2.0),
            Keep("head", "bf16", "a test", effect_points=0.0),
        ),
    ),
]


@pytest.mark.parametrize("plan", PLANS)
def test_a_plan_survives_the_file_and_the_manifest_exactly(plan: PrecisionPlan, tmp_path: Path) -> None:
    write_plan(plan, tmp_path / "plan.toml")
    assert read_plan(tmp_path / "plan.toml") == plan
    assert msgspec.json.decode(msgspec.json.encode(plan), type=PrecisionPlan) == plan


def test_a_person_can_write_it(tmp_path: Path) -> None:
    file = tmp_path / "plan.toml"
    file.write_text(
        'default = "fp16"\n[[keep]]\nwhere = "head.*"\nprecision = "fp32"\nreason = "ties"\neffect_ms = 1\n', encoding="utf-8"
    )
    assert read_plan(file) == PrecisionPlan("fp16", (Keep("head.*", "fp32", "ties", effect_ms=1.0),))


KEEP = 'default = "fp16"\n[[keep]]\nwhere = "head"\nprecision = "fp32"\n'


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("", "default"),
        ('default = "fp8"\n', "fp8"),
        ('default = "int8"\nrest = "int8"\n', "rest"),
        ('default = "fp16"\nkeeps = []\n', "keeps"),
        (KEEP, "reason"),
        (f'{KEEP}reason = " "\n', "reason"),
        (f'{KEEP}reason = "a"\neffects = 2\n', "effects"),
        (f'{KEEP}reason = "a"\neffect_ms = nan\n', "nan"),
        (f'{KEEP}reason = "a"\neffect_ms = "2 ms"\n', "effect_ms"),
        ("default = fp16\n", "TOML"),
    ],
)
def test_a_wrong_plan_is_refused_by_name_and_cause(text: str, word: str, tmp_path: Path) -> None:
    file = tmp_path / "plan.toml"
    file.write_text(text, encoding="utf-8")
    with pytest.raises(BadArgument, match=word) as caught:
        read_plan(file)
    assert str(file) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_file_that_cannot_be_read_is_refused(tmp_path: Path) -> None:
    (tmp_path / "image.toml").write_bytes(b"\xff\xd8\xff")
    for name in ("missing.toml", "image.toml", "."):
        with pytest.raises(BadArgument, match="precision plan"):
            read_plan(tmp_path / name)


def test_an_exception_that_covers_nothing_is_refused() -> None:
    nodes = [("head.0", "Conv"), ("head.1", "Relu")]
    check_covered(PrecisionPlan("fp16", (Keep("head.*", "fp32", "a"), Keep("op:Relu", "fp32", "a"))), nodes)
    for where in ("heads.*", "op:Conv2d"):
        with pytest.raises(BadArgument, match=where.replace("*", r"\*")):
            check_covered(PrecisionPlan("fp16", (Keep(where, "fp32", "a"),)), nodes)


def test_the_last_exception_wins_and_int8_leaves_its_float_side_to_the_rest() -> None:
    plan = PrecisionPlan("int8", (Keep("head.*", "fp32", "a"), Keep("head.1", "int8", "b")), rest="fp16")
    assert [plan.precision_of(path, "Conv") for path in ("head.0", "head.1", "body")] == ["fp32", "int8", "int8"]
    assert [plan.float_precision_of(path, "Conv") for path in ("head.0", "head.1", "body")] == ["fp32", "fp16", "fp16"]
    assert plan.precisions == {"int8", "fp32", "fp16"}
    assert PrecisionPlan("fp16", (Keep("a", "int8", "b"),)).float_precision_of("a", "Conv") == "fp16"
    assert PrecisionPlan("int8").float_precision_of("a", "Conv") == "fp32"


def test_a_plan_says_what_its_exceptions_cost() -> None:
    keep = [Keep(f"head.{index}", "fp32", "a", effect_ms=0.1, effect_points=1.05) for index in range(2)]
    assert in_words(PrecisionPlan("fp16", tuple(keep))) == "fp16, 2 exceptions stay fp32: +0.20 ms, +2.10 points"
    assert in_words(PrecisionPlan("fp16", (Keep("a", "fp32", "b"),))) == "fp16, 1 exception stays fp32"
