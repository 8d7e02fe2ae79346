"""Upright flat surfaces in perspective: which metre of a wall each pixel shows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from segship.scenes import shapes
from segship.scenes.camera import NEAR_M

if TYPE_CHECKING:
    from segship.scenes.camera import Point3
    from segship.scenes.painter import Painter
    from segship.scenes.shapes import Floats, Patch
    from segship.scenes.weather import Colour


@dataclass(frozen=True)
class Wall:
    """A visible wall: its patch; metres along (1, cols) and up (rows, cols); pixels per metre along and up (1, cols)."""

    patch: Patch
    normal: Point3
    z: Floats
    along: Floats
    up: Floats
    scale_along: Floats
    scale_up: Floats

    def stripes(self, period: float, width: float, phase: float = 0.0) -> Floats:
        """Coverage of upright stripes, `width` wide, one in the middle of every `period` metres; shape (1, cols)."""
        return _stripes(self.along + phase, period, width, self.scale_along)

    def courses(self, period: float, width: float, phase: float = 0.0) -> Floats:
        """Coverage of level stripes; shape (rows, cols)."""
        return _stripes(self.up + phase, period, width, self.scale_up)

    def band(self, low: float, high: float) -> Floats:
        """Coverage of what lies between two heights, metres; shape (rows, cols)."""
        half = (high - low) / 2
        return shapes.clamp((half - np.abs(self.up - (low + half))) * self.scale_up + 0.5)


def _stripes(position: Floats, period: float, width: float, scale: Floats) -> Floats:
    phase = position / period
    off = np.abs(phase - np.floor(phase) - 0.5) * period
    sharp = shapes.clamp((width / 2 - off) * scale + 0.5)
    blurred = shapes.clamp(2.5 - scale * period)
    return sharp + (width / period - sharp) * blurred


def side_wall(painter: Painter, x: float, near: float, far: float, top: float, bottom: float = 0.0) -> Wall | None:
    """The wall at lateral position x that runs along the street and faces it."""
    corners = ((x, bottom, near), (x, top, near), (x, top, far), (x, bottom, far))
    patch = shapes.convex(painter.camera.polygon(corners), painter.camera.size)
    if patch is None or abs(x) < 0.05:
        return None
    camera = painter.camera
    ratio = (shapes.centres(patch.cols) - camera.centre_px) / camera.focal_px
    ratio = np.maximum(ratio, 1e-4) if x > 0 else np.minimum(ratio, -1e-4)
    z = np.clip(x / ratio, max(near, NEAR_M), far)[None, :]
    return _wall(painter, patch, (-1.0 if x > 0 else 1.0, 0.0, 0.0), z, z, camera.focal_px * abs(x) / (z * z))


def front_wall(painter: Painter, z: float, left: float, right: float, top: float) -> Wall | None:
    """The wall at distance z that faces the camera."""
    if z < NEAR_M:
        return None
    corners = ((left, 0.0, z), (left, top, z), (right, top, z), (right, 0.0, z))
    patch = shapes.convex(painter.camera.polygon(corners), painter.camera.size)
    if patch is None:
        return None
    camera = painter.camera
    along = ((shapes.centres(patch.cols) - camera.centre_px) * (z / camera.focal_px))[None, :]
    distance = np.full_like(along, z)
    return _wall(painter, patch, (0.0, 0.0, -1.0), distance, along, camera.focal_px / distance)


def _wall(painter: Painter, patch: Patch, normal: Point3, z: Floats, along: Floats, scale: Floats) -> Wall:
    camera = painter.camera
    u, v = shapes.centres(patch.cols)[None, :], shapes.centres(patch.rows)[:, None]
    up = camera.eye_m - (v - camera.horizon(u)) * (z / camera.focal_px)
    return Wall(patch, normal, z, along, up, scale, camera.focal_px / z)


def flat(colour: Colour) -> Floats:
    """A colour as planes of one pixel, (3, 1, 1) float32."""
    return np.array(colour, np.float32)[:, None, None]


def illuminate(painter: Painter, wall: Wall, planes: Floats) -> Floats:
    """The wall's own colours, (3, rows, cols), in the scene's light and behind its haze."""
    weather = painter.weather
    clear = weather.haze_m / (weather.haze_m + wall.z)
    haze = flat(weather.haze)
    return haze + (planes * flat(weather.light(wall.normal)) - haze) * clear
