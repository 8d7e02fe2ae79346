"""What lies flat: the road, its markings, the pavements and the verge; and the shadows cast on them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from segship.scenes import shapes
from segship.scenes.classes import PAVEMENT, ROAD, VEGETATION
from segship.scenes.painter import TILE, Tag
from segship.scenes.shapes import Patch

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from segship.scenes.camera import Point3
    from segship.scenes.layout import Street
    from segship.scenes.painter import Painter
    from segship.scenes.shapes import Floats
    from segship.scenes.weather import Colour

UP = (0.0, 1.0, 0.0)


@dataclass(frozen=True)
class _Plane:
    """The ground below the horizon: where each pixel looks, in metres, and how many pixels a metre is there."""

    rows: slice
    cols: slice
    x: Floats
    z: Floats
    drop: Floats
    scale: Floats
    lumps: Floats
    crumbs: Floats

    def patch(self, coverage: Floats) -> Patch:
        return Patch(self.rows, self.cols, coverage)

    def strip(self, left: float, right: float) -> Floats:
        """Coverage of the strip along the street between two lateral positions, metres."""
        half = (right - left) / 2
        return shapes.clamp((half - np.abs(self.x - (left + half))) * self.scale + 0.5)

    def crossing(self, near: float, far: float, eye: float, focal: float) -> Floats:
        """Coverage of the strip across the street between two distances, metres."""
        low, high = focal * eye / max(near, 0.5), focal * eye / far
        return shapes.clamp(np.minimum(low - self.drop, self.drop - high) + 0.5)


def paint_ground(painter: Painter, street: Street) -> None:
    """The street's surfaces from the verge inwards, then the markings."""
    plane = _look_down(painter)
    if plane is None:
        return
    _lay(painter, plane, shapes.clamp(plane.drop + 0.5), street.verge, VEGETATION if street.green else PAVEMENT, 0.16)
    _lay(painter, plane, plane.strip(*street.walk), street.paving, PAVEMENT, 0.06, street.slab_m)
    kerb = (street.left - 0.22, street.right + 0.22)
    _lay(painter, plane, plane.strip(*kerb), _lighter(street.paving, street.kerb_lift), PAVEMENT, 0.04)
    _lay(painter, plane, plane.strip(street.left, street.right), street.asphalt, ROAD, 0.10)
    if street.junction is not None:
        across = plane.crossing(*street.junction, painter.camera.eye_m, painter.camera.focal_px)
        _lay(painter, plane, across, street.asphalt, ROAD, 0.10)
    _paint_markings(painter, plane, street)
    _fade(painter, plane)


def cast_shadows(painter: Painter, solids: Iterable[Sequence[Point3]], crowns: Iterable[tuple[Point3, float]]) -> None:
    """Darken the ground under convex solids (their corners) and round crowns (centre, radius). Shadows do not add up."""
    mask = np.zeros(painter.camera.size, np.float32)
    for corners in solids:
        fallen = [painter.weather.cast(corner) for corner in corners]
        _dim(painter, mask, [(x, z) for x, _, z in fallen], None)
    for centre, radius in crowns:
        x, _, z = painter.weather.cast(centre)
        _dim(painter, mask, [(x + radius * a, z + radius * b) for a, b in shapes.CIRCLE], radius)
    ground = (painter.semantic == ROAD) | (painter.semantic == PAVEMENT) | (painter.semantic == VEGETATION)
    painter.planes *= 1 - painter.weather.shadow * mask * ground


def _dim(painter: Painter, mask: Floats, footprint: list[tuple[float, float]], dapple: float | None) -> None:
    outline = painter.camera.polygon([(x, 0.0, z) for x, z in shapes.hull(footprint)])
    patch = shapes.convex(outline, painter.camera.size)
    if patch is None:
        return
    covered = patch.coverage
    if dapple is not None:
        covered = covered * shapes.clamp(0.75 + 1.1 * painter.texture(patch, 22.0, (7, 31)))
    target = mask[patch.rows, patch.cols]
    np.maximum(target, covered, out=target)


def _look_down(painter: Painter) -> _Plane | None:
    camera = painter.camera
    height, width = camera.size
    top = min(camera.horizon(0.0), camera.horizon(float(width)))
    rows, cols = shapes.span(top, height, height), slice(0, width)
    if rows.start >= rows.stop:
        return None
    u, v = shapes.centres(cols), shapes.centres(rows)
    drop = v[:, None] - camera.horizon(u)[None, :]
    safe = np.maximum(drop, np.float32(0.2))
    z = (camera.focal_px * camera.eye_m) / safe
    x = ((u - camera.centre_px) / camera.focal_px)[None, :] * z
    lumps, crumbs = (_grain_at(painter, x * k, z * k) for k in (6.0, 37.0))
    return _Plane(rows, cols, x, z, drop, safe / camera.eye_m, lumps, crumbs)


def _grain_at(painter: Painter, x: Floats, z: Floats) -> Floats:
    noise: Floats = painter.grain[x.astype(np.int32) & (TILE - 1), z.astype(np.int32) & (TILE - 1)]
    return noise


def _lay(
    painter: Painter, plane: _Plane, coverage: Floats, colour: Colour, class_id: int, rough: float, slab_m: float = 0.0
) -> None:
    tone = 1 + rough * plane.lumps + 0.6 * rough * plane.crumbs
    if slab_m:
        tone *= 1 - 0.22 * _joints(plane, slab_m)
    lit = np.array(painter.weather.seen(colour, UP, 0.0), np.float32)[:, None, None]
    painter.blend(plane.patch(coverage), lit * tone, Tag(class_id))


def _joints(plane: _Plane, slab_m: float) -> Floats:
    """The dark lines between slabs, fading where a slab is only a few pixels wide."""
    visible = shapes.clamp(plane.scale * slab_m / 6 - 0.5)
    lines = [np.abs(c - np.floor(c) - 0.5) > 0.46 for c in (plane.x / slab_m, plane.z / slab_m)]
    joints: Floats = (lines[0] | lines[1]) * visible
    return joints


def _paint_markings(painter: Painter, plane: _Plane, street: Street) -> None:
    eye, focal = painter.camera.eye_m, painter.camera.focal_px
    paint = np.array(painter.weather.seen(street.paint, UP, 0.0), np.float32)[:, None, None]
    worn = shapes.clamp(street.wear + 0.8 * plane.crumbs + 0.5 * plane.lumps)
    phase = (plane.z + street.dash_phase) / street.dash_m
    dashes = shapes.clamp((0.25 - np.abs(phase - np.floor(phase) - 0.5)) * 20 + 0.5)
    lines = plane.strip(street.middle - 0.08, street.middle + 0.08) * dashes
    if street.edge_lines:
        for x in (street.left + 0.35, street.right - 0.35):
            lines = np.maximum(lines, plane.strip(x - 0.06, x + 0.06))
    for near in street.zebras:
        bars = plane.x - np.floor(plane.x)
        zebra = shapes.clamp((0.25 - np.abs(bars - 0.5)) * plane.scale + 0.5) * plane.crossing(near, near + 2.8, eye, focal)
        lines = np.maximum(lines, zebra * plane.strip(street.left + 0.3, street.right - 0.3))
    if street.junction is not None:
        lines *= 1 - plane.crossing(*street.junction, eye, focal)
    painter.blend(plane.patch(lines * worn), np.broadcast_to(paint, (3, *lines.shape)))


def _fade(painter: Painter, plane: _Plane) -> None:
    weather = painter.weather
    haze = np.array(weather.haze, np.float32)[:, None, None]
    fog = shapes.clamp(plane.drop + 0.5) * (plane.z / (plane.z + weather.haze_m))
    painter.blend(plane.patch(fog), np.broadcast_to(haze, (3, *fog.shape)))


def _lighter(colour: Colour, amount: float) -> Colour:
    return colour[0] + amount, colour[1] + amount, colour[2] + amount
