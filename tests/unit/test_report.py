"""The report: what it says, that it says it safely, and that it stands alone."""

from __future__ import annotations

import io
import math
import re
from base64 import b64decode
from functools import cache
from html.parser import HTMLParser
from itertools import combinations

import numpy as np
import pytest
from msgspec.structs import replace
from PIL import Image

import fake_deployments as fakes
from segship.core.errors import BadArgument
from segship.core.precision import PrecisionReport
from segship.core.predictions import SemanticMap
from segship.core.spec import Assumption
from segship.evidence.calibration import Check, Diagnosis, Saturation
from segship.evidence.records import Candidate, ClassScore, Deployment, ImageScore, Limit
from segship.evidence.report import ExamplePicture, example_picture, render, tables, words
from segship.evidence.report.chart import chart
from segship.evidence.report.labels import Box, place
from segship.evidence.report.outcome import outcome
from segship.evidence.report.plots import candidates_plot
from segship.evidence.report.scales import Scale, decimals
from segship.scenes import generate

EVIL = """<script>alert("1")</script>'"><img src=x onerror=alert(2)>&amp;"""
VOID = {"meta", "link", "img", "rect", "line", "path", "circle"}


class Page(HTMLParser):
    """A parsed page: its tags with attributes, its text, and whether tags are balanced."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.pieces: list[str] = []
        self._open: list[str] = []
        self.feed(html)
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.pieces.append(data)

    @property
    def text(self) -> str:
        """All text, with one space for each gap."""
        return " ".join(" ".join(self.pieces).split())

    def first(self, tag: str) -> dict[str, str | None]:
        """Attributes of the first ``tag``."""
        return next(attributes for name, attributes in self.tags if name == tag)


@cache
def picture(name: str = "street.jpg", seed: int = 3, size: tuple[int, int] = (96, 128)) -> ExamplePicture:
    """A synthetic street on which the engine is two pixels off."""
    scene = generate(seed, size)
    off = SemanticMap(np.roll(scene.semantic, 2, axis=1))
    return example_picture(name, scene.image, SemanticMap(scene.semantic), off, fakes.CLASSES)


def page(deployment: Deployment, **more: object) -> Page:
    return Page(render(deployment, fakes.manifest(**more), [picture()]))


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


def test_large_photos_become_small() -> None:
    pictures = [picture(f"{seed}.jpg", seed, (512, 1024)) for seed in range(2)]
    assert len(render(fakes.passed(), fakes.manifest(), pictures)) < 350_000


def test_pictures_are_four_of_one_size_side_by_side() -> None:
    result = page(fakes.passed())
    sources = [attributes["src"] or "" for tag, attributes in result.tags if tag == "img"]
    sizes = [Image.open(io.BytesIO(b64decode(source.split(",")[1]))).size for source in sources]
    assert sizes == [(128, 96)] * 4
    captions = [attributes["alt"] for tag, attributes in result.tags if tag == "img"]
    assert captions == [f"{what} of street.jpg" for what in ("photo", "PyTorch", "OpenVINO INT8", "where they differ")]


def test_an_example_knows_its_agreement_and_its_classes() -> None:
    labels = np.zeros((40, 50), np.uint8)
    other = labels.copy()
    other[:4] = 2
    example = example_picture(
        "a", np.zeros((40, 50, 3), np.uint8), SemanticMap(labels), SemanticMap(other), ("sky", "sea", "sun")
    )
    assert example.agreement == pytest.approx(90.0)
    assert [name for name, _ in example.legend] == ["sky", "sun"]
    assert (example.disagreement[:4, :, 0] == 255).all()


def test_a_single_differing_pixel_of_a_large_photo_stays_visible() -> None:
    labels = np.zeros((1024, 2048), np.uint8)
    other = labels.copy()
    other[500, 1000] = 1
    example = example_picture("a", np.zeros((1024, 2048, 3), np.uint8), SemanticMap(labels), SemanticMap(other), ("a", "b"))
    assert max(example.disagreement.shape) == 480
    assert example.disagreement[:, :, 0].max() > 60


def test_pictures_of_different_sizes_are_refused() -> None:
    known = picture()
    with pytest.raises(BadArgument, match="differ in size"):
        ExamplePicture("a", known.photo, known.reference[:-1], known.candidate, known.disagreement, 99.0)


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


def test_the_chart_shades_what_may_be_lost() -> None:
    drawn = chart(candidates_plot(fakes.passed()), 840, 430)
    assert drawn is not None
    assert drawn.reference_y is not None
    assert drawn.limit_y is not None
    places = {mark.lines[0]: mark for mark in drawn.marks}
    assert set(places) == {"PyTorch FP32", "ONNX Runtime FP32", "ONNX Runtime INT8", "OpenVINO FP32", "OpenVINO INT8"}
    assert places["PyTorch FP32"].y == drawn.reference_y
    assert drawn.reference_y < places["OpenVINO INT8"].y < drawn.limit_y < places["ONNX Runtime INT8"].y
    assert [places[name].kind for name in ("PyTorch FP32", "OpenVINO INT8", "OpenVINO FP32")] == ["reference", "chosen", "other"]
    assert [name for name, mark in places.items() if mark.beyond] == ["ONNX Runtime INT8"]
    assert places["OpenVINO INT8"].x < places["ONNX Runtime FP32"].x < places["PyTorch FP32"].x


def test_a_ruined_candidate_does_not_squash_the_chart() -> None:
    worse = [replace(each, metric=4.0) if each.name == "onnxruntime int8" else each for each in fakes.passed().candidates]
    drawn = chart(candidates_plot(fakes.passed(candidates=tuple(worse))), 840, 430)
    assert drawn is not None
    ruined = next(mark for mark in drawn.marks if mark.deep)
    assert ruined.lines[0] == "ONNX Runtime INT8"
    assert ruined.y < drawn.frame.bottom
    assert (drawn.limit_y or 0) - (drawn.reference_y or 0) > 100


def test_one_timed_candidate_is_no_chart() -> None:
    assert chart(candidates_plot(fakes.passed(candidates=fakes.passed().candidates[:1])), 840, 430) is None
    assert "<svg" not in render(fakes.passed(candidates=fakes.passed().candidates[:1]), None, [])


def test_labels_of_crowded_points_do_not_cover_each_other() -> None:
    points = [(400.0, 200.0), (405.0, 203.0), (412.0, 199.0), (430.0, 201.0), (396.0, 190.0)]
    frame = Box(0, 0, 800, 400)
    texts = [("OpenVINO FP32", "66.0 ms")] * 5
    boxes = []
    for label in place(points, texts, frame, 13):
        width = 13 * 13 * 0.62
        left = {"start": label.x, "end": label.x - width, "middle": label.x - width / 2}[label.anchor]
        boxes.append(Box(left, label.y - 13 * 0.9, left + width, label.y + 13 * 1.5))
    assert max(a.overlap(b) for a, b in combinations(boxes, 2)) < 1e-6
    assert all(box.overlap(frame) == pytest.approx(box.area) for box in boxes)


@pytest.mark.parametrize(("low", "high"), [(10, 2000), (14.0, 15.0), (0.02, 0.9), (95.2, 96.1), (1, 10)])
@pytest.mark.parametrize("log", [True, False])
def test_ticks_are_round_few_and_told_apart(low: float, high: float, log: bool) -> None:
    ticks = Scale(low, high, 0, 100, log).ticks(most=6)
    assert 2 <= len(ticks) <= 6
    assert all(low - 1e-9 <= tick <= high + 1e-9 for tick in ticks)
    assert len({f"{tick:.{decimals(ticks)}f}" for tick in ticks}) == len(ticks)


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
