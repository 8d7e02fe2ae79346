"""What INT8 saves on each group of layers, from the runtime's own clocks: two profiles instead of one engine for each group."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from segship.core.graph import Graph
from segship.core.profile import Profile
from segship.graph.passes.edit import place
from segship.search.groups import Group


def places_of_tensors(graph: Graph) -> dict[str, str]:
    """Tensor name to the place that computes it: runtimes name some kernels after what they give."""
    return {value.name: place(node) for node in graph.ir.graph for value in node.outputs if value.name}


def spent_ms(groups: Sequence[Group], profile: Profile, total_ms: float, places: Mapping[str, str]) -> list[float]:
    """Milliseconds of each group: its share of the profile, of ``total_ms`` as measured without the profiler.

    With a layer goes what belongs to its module and to no other group: activations, Q/DQ of its tensors.
    """
    spent = [0.0] * len(groups)
    for kernel in profile.kernels:
        path = places.get(kernel.path, kernel.path)
        lengths = [group.depth_of(path) for group in groups]
        best = max(lengths, default=-1)
        if path and best >= 0:
            spent[lengths.index(best)] += kernel.ms
    return [total_ms * each / (profile.total_ms or 1.0) for each in spent]
