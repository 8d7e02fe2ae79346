"""A pinhole camera that drives along the street: metres in, pixels out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Sequence

    from segship.scenes.dice import Dice
    from segship.scenes.shapes import Floats, Point, Size

Point3 = tuple[float, float, float]
"""Metres: x to the right of the camera, y above the ground, z ahead."""

NEAR_M = 0.6
"""Nothing nearer than this is drawn."""

Number = TypeVar("Number", float, "Floats")


@dataclass(frozen=True)
class Camera:
    """Where the picture is taken from. `roll` is rows per column: it tilts the horizon and keeps verticals upright."""

    size: Size
    focal_px: float
    centre_px: float
    horizon_px: float
    roll: float
    eye_m: float

    def horizon(self, u: Number) -> Number:
        """The row of the horizon at column u."""
        return self.horizon_px + (u - self.centre_px) * self.roll

    def scale(self, z: float) -> float:
        """Pixels per metre at distance z."""
        return self.focal_px / z

    def project(self, point: Point3) -> Point:
        """The column and row of a point ahead of the camera."""
        x, y, z = point
        u = self.centre_px + self.focal_px * x / z
        return u, self.horizon(u) + self.focal_px * (self.eye_m - y) / z

    def polygon(self, points: Sequence[Point3]) -> list[Point]:
        """The outline of a flat face, cut off at the near plane; empty where nothing is left."""
        return [self.project(point) for point in _ahead(points)]


def _ahead(points: Sequence[Point3]) -> list[Point3]:
    if all(point[2] >= NEAR_M for point in points):
        return list(points)
    kept: list[Point3] = []
    for a, b in zip(points, (*points[1:], points[0]), strict=True):
        if a[2] >= NEAR_M:
            kept.append(a)
        if (a[2] >= NEAR_M) != (b[2] >= NEAR_M):
            t = (NEAR_M - a[2]) / (b[2] - a[2])
            kept.append((a[0] + (b[0] - a[0]) * t, a[1] + (b[1] - a[1]) * t, NEAR_M))
    return kept


def throw_camera(dice: Dice, size: Size) -> Camera:
    """A camera for a picture of the size given: about 60 to 75 degrees wide, the horizon near the middle."""
    height, width = size
    return Camera(
        size=size,
        focal_px=dice.between(0.65, 0.85) * max(height, width),
        centre_px=dice.between(0.4, 0.6) * width,
        horizon_px=dice.between(0.46, 0.58) * height,
        roll=dice.between(-0.025, 0.025),
        eye_m=dice.between(1.4, 2.3),
    )
