"""Why INT8 does not pay, in one sentence, and only where it does not."""

from __future__ import annotations

import pytest

from segship.core.profile import Kernel, Profile
from segship.evidence.gains import explained, pays, sibling
from segship.evidence.records import Candidate

PROFILE = Profile(
    (
        Kernel("head/TopK", "TopK", "float", 2.2),
        Kernel("head/GridSample", "GridSample", "float", 1.4),
        Kernel("head/Add", "Add", "float", 0.1),
        Kernel("stem/Conv", "QLinearConv", "int8", 5.5),
        Kernel("t/quantised", "QuantizeLinear", "convert", 0.8),
    )
)


def timed(precision: str, ms: float | None, backend: str = "openvino", profile: Profile | None = None) -> Candidate:
    return Candidate(name=f"{backend} {precision}", backend=backend, precision=precision, network_ms=ms, profile=profile)


FP32 = timed("fp32", 10.0)


@pytest.mark.parametrize(("ms", "expected"), [(8.3, True), (8.4, False), (11.0, False)])
def test_it_pays_from_a_fifth_faster(ms: float, expected: bool) -> None:
    assert pays(timed("int8", ms), [FP32]) is expected


def test_only_the_same_backend_in_fp32_is_a_sibling() -> None:
    others = [timed("fp32", 5.0, "onnxruntime"), timed("mixed", 5.0)]
    assert sibling(timed("int8", 9.0), others) is None
    assert pays(timed("int8", 9.0), others)  # nothing to compare with
    assert pays(FP32, [FP32])
    assert pays(timed("int8", None), [FP32])


@pytest.mark.parametrize(
    ("ms", "begin"), [(9.1, "INT8 saves 9 %"), (9.99, "INT8 is as fast as FP32"), (12.0, "INT8 costs 20 % more")]
)
def test_the_sentence(ms: float, begin: str) -> None:
    sentence = explained(timed("int8", ms, profile=PROFILE), [FP32]) or ""
    assert sentence.startswith(begin)
    assert sentence.endswith(
        ": 37 % is in operators that run in float (TopK 22 %, GridSample 14 %), 8 % in casts, Q/DQ and reorders, "
        "55 % in INT8 kernels"
    )


def test_without_clocks_there_is_no_sentence() -> None:
    assert explained(timed("int8", 9.0), [FP32]) is None
    assert explained(timed("int8", 9.0, profile=Profile()), [FP32]) is None
