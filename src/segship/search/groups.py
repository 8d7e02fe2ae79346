"""Layers in groups that are judged together, by module path: a few dozen measurements must do for hundreds of layers."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise


@dataclass(frozen=True)
class Group:
    """Layers at or below the module paths ``roots``. ``layers``: their own paths, in graph order."""

    roots: tuple[str, ...]
    layers: tuple[str, ...]

    @property
    def name(self) -> str:
        """The module path, or the first and the last of several; empty for the whole network."""
        return self.roots[0] if len(self.roots) == 1 else f"{self.roots[0]} to {self.roots[-1]}"

    @property
    def patterns(self) -> tuple[str, ...]:
        """What a precision plan addresses exactly these layers by."""
        found: list[str] = []
        for root in self.roots:
            found += [root] if root in self.layers else []
            found += [f"{root}.*" if root else "*"] if any(_is_below(layer, root) for layer in self.layers) else []
        return tuple(found)

    def depth_of(self, path: str) -> int:
        """Length of the root that ``path`` is at or below; -1 where it is below none."""
        return max((len(root) for root in self.roots if path == root or _is_below(path, root)), default=-1)


def groups(layers: Iterable[str], at_most: int) -> list[Group]:
    """All of ``layers`` (module paths, in graph order) in at most ``at_most`` groups, in the order of their first layer.

    The largest group is split at the next part of its paths, as long as there is room: so large modules are looked into,
    and small ones stay whole. Neighbours share a group where a module has more parts than there is room for.
    """
    distinct = list(dict.fromkeys(layers))
    found = [Group(("",), tuple(distinct))] if distinct else []
    while step := _next_split(found, at_most):
        group, smaller = step
        place = found.index(group)
        found[place : place + 1] = smaller
    order = {layer: index for index, layer in enumerate(distinct)}
    return sorted(found, key=lambda group: order[group.layers[0]])


def _next_split(found: Sequence[Group], at_most: int) -> tuple[Group, list[Group]] | None:
    """The largest group that can be split, and its parts, not more than there is room for."""
    room = at_most - len(found) + 1
    if room < 2:
        return None
    for group in sorted(found, key=lambda group: -len(group.layers)):
        parts = _parts(group)
        if len(parts) > 1:
            return group, _joined(parts, room)
    return None


def _parts(group: Group) -> list[Group]:
    """One group for each root, or for each next component of the only root's paths; what all share is gone through."""
    if len(group.roots) > 1:
        below = ((root, [layer for layer in group.layers if layer == root or _is_below(layer, root)]) for root in group.roots)
        return [Group((root,), tuple(members)) for root, members in below]
    depth = group.roots[0].count(".") + 1 if group.roots[0] else 0
    while True:
        parts: dict[str, list[str]] = {}
        for layer in group.layers:
            parts.setdefault(_head(layer, depth), []).append(layer)
        if len(parts) > 1 or all(layer.count(".") <= depth for layer in group.layers):
            return [Group((head,), tuple(members)) for head, members in parts.items()]
        depth += 1


def _joined(parts: Sequence[Group], room: int) -> list[Group]:
    """Neighbours together, so that at most ``room`` are left."""
    if len(parts) <= room:
        return list(parts)
    edges = [len(parts) * step // room for step in range(room + 1)]
    runs = [parts[start:end] for start, end in pairwise(edges)]
    return [
        Group(tuple(root for part in run for root in part.roots), tuple(layer for part in run for layer in part.layers))
        for run in runs
    ]


def _head(layer: str, depth: int) -> str:
    return ".".join(layer.split(".")[: depth + 1])


def _is_below(layer: str, root: str) -> bool:
    return layer.startswith(f"{root}.") if root else True
