"""The report: what it says, that it says it safely, and that it stands alone."""

from __future__ import annotations

import math
import re

import pytest
from msgspec.structs import replace

import fake_deployments as fakes
from segship.core.predictions import SemanticMap
from segship.core.spec import Assumption
from segship.evidence.records import Candidate, ClassScore, Deployment, ImageScore
from segship.evidence.report import example_picture, render, tables
from segship.evidence.report.outcome import outcome
from segship.scenes import generate
from unit.evidence.report.parsed import EVIL, Page, page, picture


def test_a_passed_deployment_says_so_in_one_sentence() -> None:
    sentence = outcome(fakes.passed()).sentence.replace("\u00a0", " ").replace("\u202f", " ")
    assert sentence == "INT8 on OpenVINO is 11× faster than PyTorch: mIoU 72.5 → 72.4, 99.3 % of pixels agree."
    html = render(fakes.passed(), fakes.manifest(), [])
    assert html.index("INT8 on OpenVINO is 11×") < html.index("What was tried")
    assert 'class="stamp">Passed' in html


@pytest.mark.parametrize("number", ["2571", "233", "206", "225", "72.39", "0.12", "99.3", "99.997", "14.7", "3.3×", "11×", "117"])
def test_every_measured_number_appears(number: str) -> None:
    assert number in page(fakes.passed()).text


def test_every_section_is_there() -> None:
    ids = [attributes["id"] for tag, attributes in page(fakes.passed()).tags if tag == "section"]
    want = ["candidates", "classes", "guards", "pictures", "precision", "making", "assumed", "environment", "use"]
    assert ids == want


def test_a_search_is_explained() -> None:
    """What each group loses and saves, what stays float and why, which plans were judged, where the time goes."""
    searched = page(fakes.searched())
    for words_of_it in (
        "What OpenVINO loses and gains in INT8",
        "Of the 3 groups, 1 stays in float",
        "In 1, INT8 is slower than float, so it stays float",
        "The time budget ended before everything was measured",
        "body <a> in part float",
        "float: INT8 is slower",
        "percentile + smooth: 2.10 lost (chosen)",
        "body <a>, head, body.b, x and 2 more",
        "INT8 saves 39 % of the network's time: 30 % is in operators that run in float (TopK 30 %), 20 % in casts",
    ):
        assert words_of_it in searched.text
    charts = [attributes["aria-label"] for tag, attributes in searched.tags if tag == "svg"]
    assert charts.count("mIoU against ms, network alone for 3 candidates") == 2  # FP32 and the two plans that were timed


def test_no_search_and_no_profile_are_no_sections() -> None:
    assert "loses and gains" not in page(fakes.passed()).text
    assert "Where its time goes" not in page(fakes.passed()).text


def test_a_failed_deployment_is_red_and_names_what_broke() -> None:
    failed = page(fakes.failed())
    assert failed.first("header")["class"] == "bad"
    assert "failed its checks, although it is 11× faster" in failed.text
    assert "points lost: 6.31, must be at most 1" in failed.text
    assert "% that agrees with PyTorch: 93.4, must be at least 98" in failed.text
    assert [a["class"] for tag, a in failed.tags if tag == "article"] == ["good", "good", "bad", "bad"]


def test_without_an_engine_there_are_reasons_but_no_commands() -> None:
    result = Page(render(fakes.without_engine(), None, []))
    assert "No engine was delivered: none of the 4 candidates that could be tried passed every check." in result.text
    assert "Why the fastest one, OpenVINO INT8, was refused" in result.text
    assert "segship predict" not in result.text


def test_without_labels_the_agreement_is_the_measure() -> None:
    result = page(fakes.without_labels())
    assert "mIoU" not in result.text
    assert "% that agrees with PyTorch" in result.text
    headers = [row.cells for row in tables.candidate_rows(fakes.without_labels())]
    assert [name for name, _ in headers[0]].count("agreement") == 1


def test_text_from_strangers_is_escaped_everywhere() -> None:
    classes = (ClassScore(EVIL, 50.0, 40.0, 10),)
    proof = replace(fakes.verdicts(0.1, 99.0)[3], title=EVIL, classes=classes, notes=(EVIL,), worst=(ImageScore(EVIL, 90.0),))
    candidates = tuple(
        replace(each, verdicts=(proof,)) if each.chosen else replace(each, skipped=EVIL) for each in fakes.passed().candidates
    )
    deployment = fakes.passed(title=EVIL, candidates=candidates, notes=(EVIL,), metric_name=EVIL, seconds={EVIL: 1.0})
    spec = fakes.spec(classes=(EVIL,), variant=EVIL, assumed=(Assumption(EVIL, EVIL, EVIL),))
    scene = generate(3, (64, 64))
    evil = example_picture(EVIL, scene.image, SemanticMap(scene.semantic), SemanticMap(scene.semantic), [EVIL] * 11)
    result = Page(render(deployment, fakes.manifest(spec=spec), [evil], engine=EVIL))
    assert not [tag for tag, _ in result.tags if tag == "script"]
    assert not [name for _, attributes in result.tags for name in attributes if name.startswith("on")]
    assert all((attributes["src"] or "").startswith("data:") for tag, attributes in result.tags if tag == "img")
    assert result.text.count('alert("1")') > 15


def test_the_page_stands_alone() -> None:
    html = render(fakes.passed(), fakes.manifest(), [picture()])
    for tag, attributes in Page(html).tags:
        assert tag not in ("script", "iframe", "object")
        for name in ("src", "href", "srcset", "action"):
            assert (attributes.get(name) or "data:").startswith("data:")
    assert not re.search(r"https?://|@import|url\(", html)
    assert "default-src 'none'" in html


def test_the_same_values_give_the_same_bytes() -> None:
    first = render(fakes.passed(), fakes.manifest(), [picture()])
    picture.cache_clear()
    assert render(fakes.passed(), fakes.manifest(), [picture()]) == first


def test_an_engine_that_is_slower_is_called_slower() -> None:
    slow = [replace(each, image_ms=3000.0) if each.chosen else each for each in fakes.passed().candidates]
    assert "is 1.17× slower than PyTorch" in outcome(fakes.passed(candidates=tuple(slow))).sentence


def test_a_chosen_candidate_without_evidence_has_not_passed() -> None:
    blind = [replace(each, verdicts=()) if each.chosen else each for each in fakes.passed().candidates]
    result = outcome(fakes.passed(candidates=tuple(blind)))
    assert result.state == "failed"
    assert "was never checked" in result.sentence


def test_commands_survive_a_path_with_spaces() -> None:
    assert (
        "segship predict 'my engine.engine' photo.jpg"
        in Page(render(fakes.passed(), fakes.manifest(), [], engine="my engine.engine")).text
    )


@pytest.mark.parametrize(
    "candidates",
    [
        (),
        (Candidate(name="openvino int8", backend="openvino", precision="int8", skipped="not installed"),),
        (Candidate(name="openvino int8", backend="openvino", precision="int8", chosen=True),),
        tuple(replace(each, metric=math.nan, agreement=math.nan) for each in fakes.passed().candidates),
        tuple(replace(each, metric=50.0, image_ms=1.0, network_ms=1.0) for each in fakes.passed().candidates),
    ],
)
@pytest.mark.parametrize("max_drop", [0.0, 1.0])
def test_poor_deployments_still_become_a_page(candidates: tuple[Candidate, ...], max_drop: float) -> None:
    assert Page(render(fakes.passed(candidates=candidates, max_drop=max_drop, seconds={}, notes=()), None, [])).text


@pytest.mark.parametrize(
    ("deployment", "options"),
    [
        (fakes.passed(), "--precision int8"),
        (fakes.mixed(fakes.searched()), "--precision auto"),
        (fakes.mixed(fakes.passed()), "--plan PLAN.toml"),
    ],
    ids=["plain", "found by the search", "by a plan of the user's"],
)
def test_the_command_that_makes_the_engine_again_asks_for_the_same(deployment: Deployment, options: str) -> None:
    words = f"segship deploy segformer-b1-street.safetensors --data DIR --backend openvino {options} --max-drop 1 -o NAME.engine"
    assert words in page(deployment).text
