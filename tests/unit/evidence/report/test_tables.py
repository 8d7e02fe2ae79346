"""Tables of the report: classes, guards, precisions, calibration."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

import fake_deployments as fakes
from segship.core.precision import PrecisionReport
from segship.evidence.calibration import Check, Diagnosis, Saturation
from segship.evidence.records import ClassScore, Limit
from segship.evidence.report import tables, words
from unit.evidence.report.parsed import EVIL, page


def test_the_worst_class_is_pointed_out_and_comes_first() -> None:
    rows = tables.class_rows(fakes.verdicts(0.1, 99.0)[3].classes, {}, max_drop=1.0)
    assert rows[0].name == "pole"
    assert [row.worst for row in rows] == [True] + [False] * 10
    assert rows[0].bar == pytest.approx(-90.0)
    assert page(fakes.passed()).text.count("largest loss") == 2


def test_a_class_that_never_occurs_comes_last_without_a_number() -> None:
    rows = tables.class_rows([ClassScore("ghost", None, None, 0), ClassScore("sky", 90.0, 91.0, 5)], {}, max_drop=1.0)
    assert [row.name for row in rows] == ["sky", "ghost"]
    assert rows[1].change == words.NONE
    assert not any(row.worst for row in rows)


def test_layers_in_another_precision_are_shown_in_red() -> None:
    result = page(fakes.passed())
    assert "1 layer runs in another precision than asked for" in result.text
    assert len([1 for tag, attributes in result.tags if tag == "tr" and attributes.get("class") == "bad"]) == 4


def test_a_backend_that_cannot_be_asked_is_not_believed() -> None:
    report = PrecisionReport({"fp16": 3}, None, (), ())
    built = replace(fakes.manifest().built, precision=report)
    assert "OpenVINO cannot be asked what its layers run in" in page(fakes.passed(), built=built).text


def test_a_quantity_left_out_breaks_nothing_and_one_without_a_value_does() -> None:
    proof = fakes.verdicts(0.1, 99.0)[0]
    bound = Limit("batch_order", at_most=0.0, reason="why")
    assert [row.state for row in tables.guard_rows(replace(proof, limits=(*proof.limits, bound)))] == ["pass", "info"]
    lost = replace(proof, limits=(*proof.limits, bound), passed=False)
    assert [row.state for row in tables.guard_rows(lost)] == ["pass", "fail"]


DIAGNOSIS = Diagnosis(
    recipe="mse + bias",
    images=6,
    checks=(
        Check("enough images", passed=False, found="6 images for 70 ranges", advice="give at least 8"),
        Check("different images", passed=True, found=f"no two of 6 images are nearly the same {EVIL}"),
    ),
    saturated=(Saturation("encoder.mlp", "gelu", 13.4, -17.2, -0.1, 4.0), Saturation("stem", "relu", 0.01, -44.0, 0.0, 2.0)),
)


def test_calibration_is_judged_check_by_check() -> None:
    parsed = page(replace(fakes.passed(), calibration=DIAGNOSIS))
    assert "INT8 learnt its ranges from 6 images, by mse + bias. 1 of 2 checks say" in parsed.text
    assert "! enough images 6 images for 70 ranges. Give at least 8." in parsed.text
    assert "✓ different images" in parsed.text
    assert "encoder.mlp −0.100 to 4.00 −17 dB 13 %" in parsed.text
    assert ("img", {"src": "x", "onerror": "alert(2)"}) not in parsed.tags


def test_without_int8_nothing_is_said_of_calibration_images() -> None:
    assert "calibration images good" not in page(fakes.passed()).text
