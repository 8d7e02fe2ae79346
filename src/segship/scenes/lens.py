"""What the camera does to the picture: focus, exposure, colour balance, vignette and noise."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from segship.scenes.dice import Dice
    from segship.scenes.shapes import Floats


def photograph(planes: Floats, dice: Dice) -> NDArray[np.uint8]:
    """Colour planes (3, h, w) float32, 0 to 255, as an RGB picture (h, w, 3) uint8."""
    out = _soften(planes, dice.pick((0.0, 0.1, 0.3, 0.6)) * dice.unit())
    gain = dice.between(0.95, 1.28)
    balance = [gain * dice.between(0.94, 1.06) for _ in range(3)]
    contrast, lift = dice.between(0.84, 1.06), dice.between(-4, 18)
    for plane, factor in zip(out, balance, strict=True):
        plane *= factor * contrast
        plane += 118 * (1 - contrast) + lift
    _vignette(out, dice.between(0.0, 0.22))
    _expose(out, dice, dice.pick((1.5, 2.5, 4.0, 6.0)) * dice.between(0.6, 1.2))
    out += 0.5
    return np.ascontiguousarray(np.clip(out, 0, 255).astype(np.uint8).transpose(1, 2, 0))


def _soften(planes: Floats, weight: float) -> Floats:
    """Mix each pixel with its neighbours: rows, then columns, with the kernel (w, 1, w) / (1 + 2 w)."""
    middle = 1 / (1 + 2 * weight)
    padded = np.pad(planes, ((0, 0), (1, 1), (0, 0)), mode="edge")
    down = (padded[:, :-2] + padded[:, 2:]) * (middle * weight) + planes * middle
    padded = np.pad(down, ((0, 0), (0, 0), (1, 1)), mode="edge")
    return (padded[:, :, :-2] + padded[:, :, 2:]) * (middle * weight) + down * middle


def _vignette(planes: Floats, strength: float) -> None:
    _, height, width = planes.shape
    across = (np.arange(width, dtype=np.float32) * 2 + 1) / width - 1
    down = (np.arange(height, dtype=np.float32) * 2 + 1) / height - 1
    planes *= 1 - strength * np.clip((across * across)[None, :] + (down * down)[:, None] - 0.3, 0, 2)


def _expose(planes: Floats, dice: Dice, noise: float) -> None:
    """Add sensor noise: the mean of two uniform bytes per sample, mostly the same in all three colours."""
    _, height, width = planes.shape
    bytes_ = dice.octets(4, height, width).astype(np.float32)
    bytes_ -= 127.5
    planes += (bytes_[:3] + bytes_[3]) * (noise / 104)
