"""Move outliers of activation channels into the weights that read them, where 8 bits hold them easily.

SmoothQuant (Xiao et al. 2022, arXiv:2211.10438): channel ``j`` of a tensor is divided by ``s_j = max|x_j|**alpha /
max|w_j|**(1 - alpha)`` in the layer that makes it, and the weights that read it are multiplied by ``s_j``. One scale for the
whole tensor then serves all its channels. The paper does it behind LayerNorm; behind convolutions and linear layers, through
ReLU and pooling, it is the same and costs as little (Nagel et al. 2019, arXiv:1906.04721, section 4.1): their weights have one
scale for each output channel, which absorbs the factor. Nothing is added to the graph, and in float it computes the same.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from segship.core.errors import BuildFailed
from segship.core.graph import Graph, PassRecord
from segship.graph.channel_path import Site, Slot, sites
from segship.graph.passes.edit import constant, constant_of, drop_unused_constants

NAME = "smooth"
ALPHA = 0.5
"""How much of the difficulty goes from activations to weights: half is the paper's default."""

_LARGEST_FACTOR = 1e3
"""Beyond, a channel is as good as silent, or its weights are nothing: there is no outlier to move."""


def tensors_to_smooth(graph: Graph) -> dict[str, int]:
    """Names of the tensors whose channels can be scaled, and the axis of the channels: what maxima are needed of."""
    return {site.value.name or "": site.axis for site in sites(graph.ir.graph)}


def smooth(graph: Graph, maxima: Mapping[str, NDArray[np.float64]], alpha: float = ALPHA) -> Graph:
    """The graph with every such tensor smoothed; the same function.

    ``maxima``: each channel's largest absolute value on real images, shape (channels,), for each of
    :func:`tensors_to_smooth`. Raises :class:`BuildFailed` when one is missing.
    """
    model = graph.ir.clone()
    found = sites(model.graph)
    missing = [site.value.name for site in found if site.value.name not in maxima]
    if missing:
        raise BuildFailed(f"{len(missing)} tensors have no observed channels (the first: {missing[0]}): observe this graph again")
    for site in found:
        _scale(model.graph, site, _factors(site, maxima[site.value.name or ""], alpha))
    drop_unused_constants(model.graph)
    options = {"alpha": f"{alpha:g}", "tensors": str(len(found))}
    return graph.after(model, PassRecord(NAME, "precision", options, changed=bool(found)))


def _factors(site: Site, maxima: NDArray[np.float64], alpha: float) -> NDArray[np.float64]:
    """What each channel is divided by, shape (channels,): 1 where the channel or its weights are silent."""
    weights = np.max([_largest(slot) for slot in site.readers], axis=0)
    heard = (maxima > 0) & (weights > 0)
    factors = np.ones(len(maxima))
    factors[heard] = maxima[heard] ** alpha / weights[heard] ** (1 - alpha)
    return np.clip(factors, 1 / _LARGEST_FACTOR, _LARGEST_FACTOR)


def _largest(slot: Slot) -> NDArray[np.float64]:
    content = _content(slot)
    others = tuple(index for index in range(content.ndim) if index != slot.axis)
    return np.asarray(np.abs(content).max(axis=others), np.float64)


def _scale(graph: ir.Graph, site: Site, factors: NDArray[np.float64]) -> None:
    for slots, factor in ((site.makers, 1 / factors), (site.readers, factors)):
        for slot in slots:
            content = _content(slot)
            shape = [-1 if index == slot.axis else 1 for index in range(content.ndim)]
            name = f"{slot.node.name}/{slot.place}/smooth/{site.value.name}"  # its own: other nodes may read the constant, too
            scaled = (content * factor.reshape(shape)).astype(content.dtype)
            slot.node.replace_input_with(slot.place, constant(graph, name, scaled))


def _content(slot: Slot) -> NDArray[np.float32]:
    content = constant_of(slot.node.inputs[slot.place])
    assert content is not None
    return content
