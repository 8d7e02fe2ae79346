"""Light and air: where the sun stands, how things are shaded, and how distance fades them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from segship.scenes.camera import Point3
    from segship.scenes.dice import Dice

Colour = tuple[float, float, float]
"""Red, green and blue, 0 to 255."""


@dataclass(frozen=True)
class Weather:
    """The light of one scene.

    `sun` points towards the sun; `key` and `fill` multiply a surface's colour where it faces the sun and everywhere;
    `shadow` is the light that is missing in a cast shadow; at `haze_m` metres, half of a colour is `haze`.
    """

    name: str
    sun: Point3
    key: Colour
    fill: Colour
    shadow: float
    zenith: Colour
    haze: Colour
    haze_m: float
    cloud: Colour
    cloudiness: float

    def light(self, normal: Point3) -> Colour:
        """What a surface's colour is multiplied with. A little of the sun reaches every side, as in a real street."""
        (x, y, z), (red, green, blue) = self.sun, self.key
        facing = x * normal[0] + y * normal[1] + z * normal[2]
        sunlit = max(0.15 * (1 + facing), facing)
        return self.fill[0] + red * sunlit, self.fill[1] + green * sunlit, self.fill[2] + blue * sunlit

    def seen(self, colour: Colour, normal: Point3, z: float) -> Colour:
        """A surface's colour as it reaches the camera from z metres away."""
        clear = self.haze_m / (self.haze_m + z)
        (red, green, blue), (r, g, b) = self.light(normal), self.haze
        return r + (colour[0] * red - r) * clear, g + (colour[1] * green - g) * clear, b + (colour[2] * blue - b) * clear

    def cast(self, point: Point3) -> Point3:
        """Where the shadow of a point falls on the ground."""
        x, y, z = point
        return x - self.sun[0] / self.sun[1] * y, 0.0, z - self.sun[2] / self.sun[1] * y


def throw_weather(dice: Dice) -> Weather:
    """Clear, hazy, overcast, golden evening or fog, in that order of frequency."""
    draw = dice.unit()
    side = dice.pick((-1.0, 1.0)) * dice.between(0.45, 0.85)
    ahead = dice.between(-0.6, 0.5)
    if draw < 0.42:
        return _clear(dice, side, ahead)
    if draw < 0.60:
        return _hazy(dice, side, ahead)
    if draw < 0.80:
        return _overcast(dice)
    return _evening(dice, side, ahead) if draw < 0.93 else _fog(dice)


def _clear(dice: Dice, side: float, ahead: float) -> Weather:
    warm = dice.between(0.0, 0.1)
    return Weather(
        name="clear",
        sun=(side, dice.between(0.6, 0.95), ahead),
        key=(0.78, 0.74 - warm / 3, 0.66 - warm),
        fill=(0.40, 0.44, 0.52),
        shadow=dice.between(0.42, 0.56),
        zenith=(dice.between(58, 92), dice.between(128, 158), dice.between(206, 232)),
        haze=(dice.between(190, 214), dice.between(214, 228), dice.between(228, 240)),
        haze_m=dice.between(260, 500),
        cloud=(250, 250, 252),
        cloudiness=dice.between(0.1, 0.6),
    )


def _hazy(dice: Dice, side: float, ahead: float) -> Weather:
    grey = dice.between(-10, 10)
    return Weather(
        name="hazy",
        sun=(side, dice.between(0.7, 1.0), ahead),
        key=(0.52, 0.49, 0.44),
        fill=(0.54, 0.56, 0.58),
        shadow=dice.between(0.24, 0.36),
        zenith=(150 + grey, 178 + grey, 204 + grey),
        haze=(214 + grey, 216 + grey, 214 + grey),
        haze_m=dice.between(120, 240),
        cloud=(236, 236, 236),
        cloudiness=dice.between(0.4, 0.8),
    )


def _overcast(dice: Dice) -> Weather:
    grey = dice.between(-26, 12)
    return Weather(
        name="overcast",
        sun=(0.1, 1.0, 0.0),
        key=(0.20, 0.20, 0.20),
        fill=(0.62, 0.65, 0.68),
        shadow=dice.between(0.08, 0.16),
        zenith=(168 + grey, 176 + grey, 186 + grey),
        haze=(206 + grey, 210 + grey, 214 + grey),
        haze_m=dice.between(140, 300),
        cloud=(140 + grey, 146 + grey, 156 + grey),
        cloudiness=dice.between(0.5, 1.0),
    )


def _evening(dice: Dice, side: float, ahead: float) -> Weather:
    red = dice.between(0.0, 20.0)
    return Weather(
        name="evening",
        sun=(side, dice.between(0.38, 0.55), ahead),
        key=(0.72, 0.50, 0.30),
        fill=(0.36, 0.36, 0.46),
        shadow=dice.between(0.40, 0.52),
        zenith=(92 + red, 112, 164),
        haze=(238, 186 + red / 2, 138 + red),
        haze_m=dice.between(160, 300),
        cloud=(248, 190, 158),
        cloudiness=dice.between(0.3, 0.8),
    )


def _fog(dice: Dice) -> Weather:
    grey = dice.between(-22, 10)
    air = (204 + grey, 208 + grey, 210 + grey)
    return Weather(
        name="fog",
        sun=(0.0, 1.0, 0.0),
        key=(0.16, 0.16, 0.16),
        fill=(0.64, 0.66, 0.68),
        shadow=dice.between(0.03, 0.08),
        zenith=air,
        haze=air,
        haze_m=dice.between(28, 60),
        cloud=air,
        cloudiness=0.2,
    )
