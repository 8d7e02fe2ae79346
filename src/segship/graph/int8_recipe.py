"""How an INT8 graph's numbers are made: one small value that travels from the search to the manifest."""

from __future__ import annotations

from typing import get_args

import msgspec

from segship.graph.histogram import Method

METHODS: tuple[Method, ...] = get_args(Method)


class Recipe(msgspec.Struct, frozen=True):
    """How ranges follow from histograms, and what is done beside.

    ``smooth``: outliers of activation channels are moved into weights first (``graph/passes/smooth.py``). ``correct_bias``:
    the mean error of each output channel is taken out of its bias (``graph/passes/correct_bias.py``).
    """

    method: Method = "mse"
    smooth: bool = False
    correct_bias: bool = False

    def __str__(self) -> str:
        """Stable text form, for instance ``mse`` or ``percentile + smooth + bias``: in manifests, reports and keys."""
        return " + ".join([self.method, *(["smooth"] if self.smooth else []), *(["bias"] if self.correct_bias else [])])


DEFAULT = Recipe()
