"""Overlays, legends, disagreement maps and the default colours."""

from __future__ import annotations

import subprocess
import sys
from itertools import combinations
from time import perf_counter

import numpy as np
import pytest

from segship.core.errors import BadArgument
from segship.core.predictions import SemanticMap
from segship.draw import default_palette, disagreement, overlay, paint, palette
from segship.draw.colors import _as_seen
from segship.draw.legend import printable

CLASSES = ("background", "car", "tree", "sky")
COLORS = ((10, 20, 30), (200, 0, 0), (0, 200, 0), (0, 0, 200))


def photo(height: int, width: int) -> np.ndarray:
    return np.random.default_rng(7).integers(0, 256, (height, width, 3), np.uint8)


def halves(height: int, width: int) -> SemanticMap:
    """A quarter of class 3 on the left, class 1 on the right; 0 and 2 do not occur."""
    labels = np.ones((height, width), np.uint8)
    labels[:, : width // 4] = 3
    return SemanticMap(labels)


def test_overlay_without_legend_keeps_the_size_and_its_input() -> None:
    image, prediction = photo(40, 80), halves(40, 80)
    before = image.copy()
    picture = overlay(image, prediction, CLASSES, COLORS, legend=False)
    assert picture.shape == image.shape
    assert picture.dtype == np.uint8
    assert np.array_equal(image, before)


def test_each_pixel_is_a_mix_of_photo_and_class_colour() -> None:
    image = np.full((40, 80, 3), 100, np.uint8)
    picture = overlay(image, halves(40, 80), CLASSES, COLORS, legend=False).astype(int)
    for x, color in ((3, COLORS[3]), (70, COLORS[1])):
        mixed = [100 * 0.42 + 0.58 * part for part in color]
        assert np.abs(picture[20, x] - mixed).max() <= 1


def test_contours_lie_on_borders_only() -> None:
    image = np.full((40, 80, 3), 100, np.uint8)
    picture = overlay(image, halves(40, 80), CLASSES, COLORS, legend=False)
    pale = [(part + 255) // 2 for part in COLORS[3]]
    assert np.abs(picture[:, 19].astype(int) - pale).max() <= 1
    assert len(np.unique(picture[:, 20:].reshape(-1, 3), axis=0)) == 1
    assert len(np.unique(picture[:, :19].reshape(-1, 3), axis=0)) == 1


def test_the_legend_lies_under_the_picture_and_hides_nothing() -> None:
    image, prediction = photo(120, 400), halves(120, 400)
    bare = overlay(image, prediction, CLASSES, COLORS, legend=False)
    full = overlay(image, prediction, CLASSES, COLORS)
    assert full.shape[0] > 120
    assert full.shape[1] == 400
    assert np.array_equal(full[:120], bare)


def test_the_legend_lies_beside_a_picture_that_is_too_narrow() -> None:
    image, prediction = photo(48, 40), halves(48, 40)
    full = overlay(image, prediction, ("background", "a car with a long name", "tree", "sky"), COLORS)
    assert full.shape[0] >= 48
    assert full.shape[1] > 140
    assert np.array_equal(full[:48, :40], overlay(image, prediction, CLASSES, COLORS, legend=False))


def test_the_legend_holds_only_classes_that_occur_largest_first() -> None:
    _, entries = paint(halves(40, 80), photo(40, 80), CLASSES, COLORS)
    assert [(entry.name, entry.share) for entry in entries] == [("car", 0.75), ("sky", 0.25)]


def test_the_legend_shows_the_colours_of_its_classes_and_no_other() -> None:
    strip = overlay(photo(120, 400), halves(120, 400), CLASSES, COLORS)[120:].reshape(-1, 3)
    shown = {tuple(color) for color in np.unique(strip, axis=0).tolist()}
    assert {COLORS[1], COLORS[3]} <= shown
    assert not {COLORS[0], COLORS[2]} & shown


def test_many_classes_of_sixteen_bits_fit() -> None:
    labels = (np.arange(300 * 300, dtype=np.uint32) // 300).astype(np.uint16).reshape(300, 300)
    full = overlay(photo(300, 300), SemanticMap(labels), [f"class number {i}" for i in range(300)])
    assert full.shape[0] > 300 + 150 * 12


@pytest.mark.parametrize(
    ("name", "written"),
    [
        ("Straße", "Strasse"),
        ("vélo", "velo"),
        ("two\nlines\tand tabs", "two lines and tabs"),
        ("x" * 50, "x" * 29 + "..."),
        ("汽车", ""),
        ("\x00\x1b[31m", "[31m"),
    ],
)
def test_names_are_written_with_what_the_built_in_font_has(name: str, written: str) -> None:
    assert printable(name) == written


def test_disagreement_marks_exactly_the_differing_pixels() -> None:
    first = SemanticMap(np.zeros((20, 30), np.uint8))
    labels = first.labels.copy()
    labels[3:5, 7:11] = 2
    marked = disagreement(photo(20, 30), first, SemanticMap(labels)).astype(int)
    grey = (marked[:, :, 0] == marked[:, :, 1]) & (marked[:, :, 1] == marked[:, :, 2])
    assert np.array_equal(~grey, labels != 0)
    assert marked[grey].max() < 150
    assert marked[3, 7].tolist() == [255, 0, 110]


@pytest.mark.parametrize(
    ("image", "prediction"),
    [
        (photo(10, 20), halves(20, 10)),
        (photo(10, 20)[:, :, :1], halves(10, 20)),
        (photo(10, 20).astype(np.float32), halves(10, 20)),
    ],
)
def test_an_image_that_does_not_fit_is_refused(image: np.ndarray, prediction: SemanticMap) -> None:
    with pytest.raises(BadArgument, match="image"):
        overlay(image, prediction, CLASSES)


def test_a_class_without_a_name_is_refused() -> None:
    with pytest.raises(BadArgument, match="class id 3"):
        overlay(photo(8, 8), halves(8, 8), ("one", "two"))


def test_predictions_of_two_images_are_not_compared() -> None:
    with pytest.raises(BadArgument, match="image"):
        disagreement(photo(8, 8), halves(8, 8), halves(8, 9))


def test_a_type_that_nobody_can_draw_is_refused() -> None:
    class Unknown:
        size = (8, 8)

    with pytest.raises(BadArgument, match="Unknown cannot be drawn"):
        overlay(photo(8, 8), Unknown(), CLASSES)  # type: ignore[arg-type]


def test_default_colours_are_distinct_and_a_longer_palette_begins_with_the_shorter() -> None:
    colors = default_palette(150)
    assert len(set(colors)) == 150
    assert default_palette(12) == colors[:12]


def test_twenty_default_colours_are_distinct_for_every_kind_of_eye() -> None:
    seen = _as_seen(np.array(default_palette(20)))
    for eye in seen:
        assert min(np.linalg.norm(a - b) for a, b in combinations(eye, 2)) > 0.06


def test_background_is_dark_and_takes_no_colour_from_the_others() -> None:
    dark, car = palette(("Background", "car"))
    assert max(dark) < 70
    assert car == default_palette(1)[0]


def test_a_models_own_colours_are_used_and_must_be_enough() -> None:
    assert palette(("a", "b"), ((1, 2, 3), (4, 5, 6), (7, 8, 9))) == ((1, 2, 3), (4, 5, 6))
    with pytest.raises(BadArgument, match="2 classes but 1 colours"):
        palette(("a", "b"), ((1, 2, 3),))


def test_a_large_overlay_takes_less_than_half_a_second() -> None:
    image, prediction = photo(1024, 2048), halves(1024, 2048)

    def seconds() -> float:
        begin = perf_counter()
        overlay(image, prediction, CLASSES)
        return perf_counter() - begin

    assert min(seconds() for _ in range(4)) < 0.5


def test_drawing_imports_nothing_heavy() -> None:
    code = "import sys, segship.draw; print([m for m in ('torch', 'onnx', 'cv2', 'matplotlib', 'scipy') if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "[]"
