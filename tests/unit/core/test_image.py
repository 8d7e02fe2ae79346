"""What photos of other kinds than 8-bit RGB are read as."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from segship.core.errors import BadImage
from segship.core.image import read_image

PIXELS = np.random.default_rng(0).integers(0, 256, (6, 8, 3), dtype=np.uint8)


def grey() -> Image.Image:
    return Image.fromarray(PIXELS[:, :, 0])


def transparent() -> Image.Image:
    return Image.fromarray(np.dstack([PIXELS, PIXELS[:, :, 0]]))


@pytest.mark.parametrize(("image", "expected"), [(grey(), PIXELS[:, :, :1].repeat(3, 2)), (transparent(), PIXELS)])
def test_grey_is_repeated_and_transparency_dropped(image: Image.Image, expected: np.ndarray, tmp_path: Path) -> None:
    image.save(tmp_path / "image.png")
    assert np.array_equal(read_image(tmp_path / "image.png"), expected)


def test_a_palette_with_transparent_colours_gives_its_colours_and_no_warning(tmp_path: Path) -> None:
    image = Image.fromarray(PIXELS).quantize(8)
    image.save(tmp_path / "image.png", transparency=bytes(8))
    assert np.array_equal(read_image(tmp_path / "image.png"), np.asarray(image.convert("RGB")))


@pytest.mark.parametrize("name", ["image.png", "image.tif"])
def test_of_colours_in_16_bits_the_upper_bytes_count(name: str, tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / name), PIXELS[:, :, ::-1].astype(np.uint16) * 256 + 200)
    assert np.array_equal(read_image(tmp_path / name), PIXELS)


def test_grey_in_16_bits_is_refused_and_not_clipped(tmp_path: Path) -> None:
    Image.fromarray(PIXELS[:, :, 0].astype(np.uint16) * 256).save(tmp_path / "image.png")
    with pytest.raises(BadImage, match="more than 8 bits"):
        read_image(tmp_path / "image.png")


@pytest.mark.parametrize(("turn", "expected"), [(False, PIXELS), (True, PIXELS[::-1].transpose(1, 0, 2))])
def test_the_exif_tag_turns_where_the_official_code_does(*, turn: bool, expected: np.ndarray, tmp_path: Path) -> None:
    tag = Image.Exif()
    tag[0x0112] = 6  # to be shown a quarter turned clockwise
    Image.fromarray(PIXELS).save(tmp_path / "image.png", exif=tag)
    assert np.array_equal(read_image(tmp_path / "image.png", exif_orientation=turn), expected)
