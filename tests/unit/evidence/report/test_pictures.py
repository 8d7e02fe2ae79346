"""Example pictures: their sizes, what they show, and what they weigh."""

from __future__ import annotations

import io
from base64 import b64decode

import numpy as np
import pytest
from PIL import Image

import fake_deployments as fakes
from segship.core.errors import BadArgument
from segship.core.predictions import SemanticMap
from segship.evidence.report import ExamplePicture, example_picture, render
from unit.evidence.report.parsed import page, picture


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
