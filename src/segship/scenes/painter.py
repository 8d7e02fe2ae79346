"""The picture while it is being painted, from far to near, together with its truth."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from segship.scenes import shapes
from segship.scenes.classes import SKY

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from segship.scenes.camera import Camera, Point3
    from segship.scenes.shapes import Floats, Patch, Point
    from segship.scenes.weather import Colour, Weather

TILE = 256
"""The side of the texture tile, which repeats; a power of two."""


class Tag(NamedTuple):
    """What a painted pixel becomes in the truth: a class, and the instance for things (0 for stuff)."""

    class_id: int
    instance: int = 0


@dataclass
class Painter:
    """Colour planes (3, h, w) float32, class ids (h, w) uint8, instance ids (h, w) uint16, and what shapes them."""

    camera: Camera
    weather: Weather
    grain: Floats
    planes: Floats
    semantic: NDArray[np.uint8]
    instances: NDArray[np.uint16]
    classes: list[int] = field(default_factory=lambda: [SKY])

    @classmethod
    def blank(cls, camera: Camera, weather: Weather, grain: Floats) -> Painter:
        """An empty picture: all sky."""
        return cls(
            camera=camera,
            weather=weather,
            grain=grain,
            planes=np.zeros((3, *camera.size), np.float32),
            semantic=np.full(camera.size, SKY, np.uint8),
            instances=np.zeros(camera.size, np.uint16),
        )

    def new_thing(self, class_id: int) -> Tag:
        """The tag of one more object of a countable class."""
        self.classes.append(class_id)
        return Tag(class_id, len(self.classes) - 1)

    def blend(self, patch: Patch | None, colour: Colour | Floats, tag: Tag | None = None) -> None:
        """Lay a colour, or colour planes of the patch's size, over the picture; with a tag, over the truth too."""
        if patch is None:
            return
        target = self.planes[:, patch.rows, patch.cols]
        own = colour if isinstance(colour, np.ndarray) else np.array(colour, np.float32)[:, None, None]
        target += (own - target) * patch.coverage
        if tag is not None:
            self.mark(patch, tag)

    def mark(self, patch: Patch, tag: Tag) -> None:
        """Write the truth where a shape covers at least half of a pixel."""
        inside = patch.coverage >= 0.5
        np.copyto(self.semantic[patch.rows, patch.cols], np.uint8(tag.class_id), where=inside)
        if len(self.classes) > 1:
            np.copyto(self.instances[patch.rows, patch.cols], np.uint16(tag.instance), where=inside)

    def face(self, points: Sequence[Point3], colour: Colour, normal: Point3, tag: Tag | None = None) -> None:
        """A flat, convex, evenly coloured face in the street, lit and faded; its first corner gives the distance."""
        outline = self.camera.polygon(points)
        lit = self.weather.seen(colour, normal, max(points[0][2], 0.0))
        self.blend(shapes.convex(outline, self.camera.size), lit, tag)

    def polygon(self, points: Sequence[Point], colour: Colour, tag: Tag | None = None) -> None:
        """A convex polygon in pixels, in the colour given as it is."""
        self.blend(shapes.convex(points, self.camera.size), colour, tag)

    def ellipse(self, centre: Point, rx: float, ry: float, colour: Colour, tag: Tag | None = None) -> None:
        """An upright ellipse in pixels, in the colour given as it is."""
        self.blend(shapes.ellipse(*centre, rx, ry, self.camera.size), colour, tag)

    def stroke(self, start: Point, end: Point, width: float, colour: Colour, tag: Tag | None = None) -> None:
        """A line with round ends in pixels, in the colour given as it is."""
        self.blend(shapes.stroke(start, end, width, self.camera.size), colour, tag)

    def texture(self, patch: Patch, period_px: float, offset: tuple[int, int]) -> Floats:
        """Noise in -1..1 over a patch; its coarsest lumps are `period_px` apart."""
        step = TILE / 8 / max(period_px, 1.0)
        rows = (np.arange(patch.rows.start, patch.rows.stop) * step).astype(np.int64) + offset[0]
        cols = (np.arange(patch.cols.start, patch.cols.stop) * step).astype(np.int64) + offset[1]
        noise: Floats = self.grain[(rows & (TILE - 1))[:, None], (cols & (TILE - 1))[None, :]]
        return noise


def throw_grain(octets: NDArray[np.uint8]) -> Floats:
    """A tile of fractal noise, float32 in about -1..1, from (2, TILE, TILE) random bytes; its edges match.

    Five grids, each twice as fine and about half as strong as the one before, each interpolated linearly.
    """
    total = np.zeros((TILE, TILE), np.float32)
    for octave, cells in enumerate((8, 16, 32, 64, 128)):
        grid = octets[octave % 2, octave : octave + cells, :cells].astype(np.float32) / 127.5 - 1
        total += np.float32(0.62**octave * 0.55) * _upsample(_upsample(grid, 0), 1)
    return total


def _upsample(grid: Floats, axis: int) -> Floats:
    cells = grid.shape[axis]
    repeat = TILE // cells
    position = np.arange(TILE) // repeat
    weight = ((np.arange(TILE) % repeat).astype(np.float32) / repeat).reshape((-1, 1) if axis == 0 else (1, -1))
    here: Floats = np.take(grid, position, axis)
    there: Floats = np.take(grid, (position + 1) % cells, axis)
    fine: Floats = here + (there - here) * weight
    return fine
