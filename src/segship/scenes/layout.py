"""What stands where: the plan of one street, in metres, before anything is drawn."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from collections.abc import Iterator

    from segship.scenes.dice import Dice
    from segship.scenes.weather import Colour

Kind = Literal["car", "pedestrian", "cyclist", "lamp", "sign", "signal", "bollard", "tree", "bush", "fence"]


@dataclass(frozen=True)
class Street:
    """The cross-section of the street and its surfaces. Lateral positions are metres right of the camera."""

    left: float
    right: float
    middle: float
    walk: tuple[float, float]
    wall: tuple[float, float]
    green: bool
    verge: Colour
    paving: Colour
    slab_m: float
    kerb_lift: float
    asphalt: Colour
    paint: Colour
    wear: float
    dash_phase: float
    dash_m: float
    edge_lines: bool
    zebras: tuple[float, ...]
    junction: tuple[float, float] | None


@dataclass(frozen=True)
class House:
    """A building on one side (-1 left, 1 right), its street wall at `x` from `near` to `far`.

    `joined`: its wall towards the camera is hidden by the house before it.
    """

    side: int
    x: float
    near: float
    far: float
    depth: float
    height: float
    roof: float
    joined: bool
    key: int


@dataclass(frozen=True)
class Item:
    """Anything else: where it stands, where it heads (-1 to the camera, 1 away, 0 across), and its own random key."""

    kind: Kind
    x: float
    z: float
    heading: int
    key: int


@dataclass(frozen=True)
class Plan:
    """A street, its houses and everything else, in no order."""

    street: Street
    houses: tuple[House, ...]
    items: tuple[Item, ...]


def throw_plan(dice: Dice) -> Plan:
    """A street with one to a few dozen things in it."""
    street = _throw_street(dice)
    houses = tuple(_houses(dice, street))
    return Plan(street, houses, tuple(_items(dice, street, houses)))


def _throw_street(dice: Dice) -> Street:
    lanes = dice.between(2.8, 4.6)
    middle = dice.between(-2.4, -0.6)
    left, right = middle - lanes, middle + lanes
    walk = (left - dice.between(1.6, 4.2), right + dice.between(1.6, 4.2))
    green = dice.chance(0.45)
    setback = dice.between(0.6, 5.0) if green else dice.between(0.0, 0.4)
    asphalt = dice.between(66, 112)
    slabs = dice.pick(((148.0, 144.0, 138.0), (128.0, 126.0, 126.0), (158.0, 128.0, 114.0), (112.0, 110.0, 108.0)))
    junction = dice.between(14, 34)
    return Street(
        left=left,
        right=right,
        middle=middle + dice.between(-0.3, 0.3),
        walk=walk,
        wall=(walk[0] - setback, walk[1] + setback),
        green=green,
        verge=(dice.between(88, 122), dice.between(112, 140), dice.between(58, 78)) if green else slabs,
        paving=slabs,
        slab_m=dice.pick((0.0, 0.6, 0.9, 1.5)),
        kerb_lift=dice.between(-18, 30),
        asphalt=(asphalt + dice.between(-3, 4), asphalt, asphalt + dice.between(-2, 8)),
        paint=(226, 226, 220) if dice.chance(0.8) else (226, 190, 90),
        wear=dice.between(0.35, 1.0),
        dash_phase=dice.between(0, 6),
        dash_m=dice.between(4, 8),
        edge_lines=dice.chance(0.4),
        zebras=(dice.between(5, 26),) if dice.chance(0.35) else (),
        junction=(junction, junction + dice.between(6, 9)) if dice.chance(0.4) else None,
    )


def _houses(dice: Dice, street: Street) -> Iterator[House]:
    for side, wall in ((-1, street.wall[0]), (1, street.wall[1])):
        z, tall = dice.between(-6, 3), dice.between(6, 16)
        open_side = dice.chance(0.2)
        before: House | None = None
        while z < 130:
            length = dice.between(6, 17)
            far = z + length
            crosses = street.junction is not None and z < street.junction[1] + 2 and far > street.junction[0] - 2
            if crosses and street.junction is not None:
                z = street.junction[1] + 2.5
                continue
            if not dice.chance(0.75 if open_side else 0.14) and far > 1.5:
                x = wall + side * dice.between(0, 1.2 if street.green else 0.2)
                roof = dice.between(1.5, 3.5) if dice.chance(0.55) else 0.0
                height = max(3.5, tall + dice.between(-3.5, 3.5))
                joined = before is not None and before.far == z and before.height >= height + roof and abs(before.x) <= abs(x)
                before = House(side, x, z, far, dice.between(7, 12), height, roof, joined, dice.below(1 << 30))
                yield before
            z = far + (dice.between(1.0, 5.0) if dice.chance(0.3) else 0.0)


def _items(dice: Dice, street: Street, houses: tuple[House, ...]) -> Iterator[Item]:
    for item in (
        *_traffic(dice, street),
        *_parked(dice, street),
        *_walkers(dice, street),
        *_cyclists(dice, street),
        *_kerb_rows(dice, street),
        *_boundaries(dice, street),
        *_backyards(dice, street, houses),
    ):
        clear = street.junction is None or item.z < street.junction[0] - 0.5 or item.z > street.junction[1] + 0.5
        if clear or item.kind in ("car", "pedestrian", "cyclist"):
            yield item


def _item(dice: Dice, kind: Kind, x: float, z: float, heading: int = 1) -> Item:
    return Item(kind, x, z, heading, dice.below(1 << 30))


def _traffic(dice: Dice, street: Street) -> Iterator[Item]:
    lane = (street.right - street.left) / 4
    for heading, x in ((1, street.middle + lane), (-1, street.middle - lane)):
        z = dice.between(6, 34)
        while z < 75 and dice.chance(0.62):
            yield _item(dice, "car", x + dice.between(-0.35, 0.35), z, heading)
            z += dice.between(7, 26)
    if street.junction is not None and dice.chance(0.45):
        z = sum(street.junction) / 2 + dice.between(-1, 1)
        yield _item(dice, "car", dice.between(street.left - 4, street.right + 4), z, 0)


def _parked(dice: Dice, street: Street) -> Iterator[Item]:
    for heading, x in ((1, street.right - 0.95), (-1, street.left + 0.95)):
        density = dice.pick((0.0, 0.0, 0.35, 0.8))
        z = dice.between(4, 14)
        while z < 70:
            if dice.chance(density):
                yield _item(dice, "car", x + dice.between(-0.15, 0.1), z, heading if dice.chance(0.85) else -heading)
            z += dice.between(5.6, 8.5)


def _walkers(dice: Dice, street: Street) -> Iterator[Item]:
    for inner, outer in ((street.left, street.walk[0]), (street.right, street.walk[1])):
        for _ in range(1 + dice.below(7)):
            yield _item(
                dice, "pedestrian", inner + (outer - inner) * dice.between(0.2, 0.85), _near(dice, 3.5, 28), dice.pick((-1, 0, 1))
            )
    for near in street.zebras:
        for _ in range(dice.below(3)):
            yield _item(dice, "pedestrian", dice.between(street.left, street.right), near + dice.between(0.5, 2.4), 0)
    if dice.chance(0.15):
        yield _item(dice, "pedestrian", dice.between(street.left, street.right), _near(dice, 7, 30), 0)


def _cyclists(dice: Dice, street: Street) -> Iterator[Item]:
    for heading, x in ((1, street.right - 1.0), (-1, street.left + 1.0), (1, street.walk[1] - 0.9)):
        if dice.chance(0.42):
            yield _item(dice, "cyclist", x + dice.between(-0.5, 0.5), _near(dice, 4, 26), heading)
    if dice.chance(0.35):
        yield _item(dice, "cyclist", dice.between(street.left + 0.5, street.right - 0.5), _near(dice, 5, 24), 0)


def _near(dice: Dice, low: float, high: float) -> float:
    """A distance, nearer ones likelier."""
    share = dice.unit()
    return low + (high - low) * share * (0.4 + 0.6 * share)


def _kerb_rows(dice: Dice, street: Street) -> Iterator[Item]:
    """Lamps, trees, signs and bollards along the kerbs."""
    for side, kerb in ((-1, street.left), (1, street.right)):
        x = kerb + side * 0.55
        trees = dice.chance(0.45)
        z, step = dice.between(5, 14), dice.between(9, 17)
        while z < 90:
            kind: Kind = "tree" if trees and dice.chance(0.7) else "lamp"
            yield _item(dice, kind, x + dice.between(-0.1, 0.15), z, side)
            z += step * dice.between(0.85, 1.15)
        for _ in range(dice.below(4)):
            yield _item(dice, "sign", x + side * dice.between(-0.1, 0.3), _near(dice, 4.5, 34), side)
        if dice.chance(0.3):
            yield from (_item(dice, "bollard", x - side * 0.1, 6 + 1.8 * n, side) for n in range(dice.below(9)))
    if street.junction is not None:
        for side, kerb in ((-1, street.left), (1, street.right)):
            yield _item(dice, "signal", kerb + side * 0.5, street.junction[0] - 1.2, side)


def _boundaries(dice: Dice, street: Street) -> Iterator[Item]:
    """Fences and hedges: along the kerb, or where the pavement ends."""
    panel = 2.4
    for side, kerb, edge in ((-1, street.left, street.walk[0]), (1, street.right, street.walk[1])):
        for x, chance, kinds in ((kerb + side * 0.3, 0.2, ("fence",)), (edge + side * 0.1, 0.85, ("fence", "fence", "bush"))):
            if (x == edge + side * 0.1 and not street.green) or not dice.chance(chance):
                continue
            kind: Kind = "bush" if dice.pick(kinds) == "bush" else "fence"
            start, style = dice.between(1, 14), dice.below(1 << 30)
            yield from (Item(kind, x, start + panel * n, side, style) for n in range(3 + dice.below(9)))


def _backyards(dice: Dice, street: Street, houses: tuple[House, ...]) -> Iterator[Item]:
    """Trees and bushes where no house stands."""
    for side, edge, wall in ((-1, street.walk[0], street.wall[0]), (1, street.walk[1], street.wall[1])):
        for _ in range(3 + dice.below(9)):
            z, x = dice.between(5, 95), wall + side * dice.between(0.5, 14)
            if not any(h.side == side and h.near - 1.5 < z < h.far + 1.5 for h in houses):
                yield _item(dice, "tree", x, z, side)
        for _ in range(dice.below(6) if abs(wall - edge) > 1.4 else 0):
            yield _item(dice, "bush", edge + side * dice.between(0.5, abs(wall - edge) - 0.3), dice.between(4, 50), 0)
