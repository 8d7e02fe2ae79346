"""How an INT8 graph's numbers are made: one small value that travels from the search to the manifest."""

from __future__ import annotations

from typing import get_args

import msgspec

from segship.core.errors import BadArgument
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


def parse_recipe(text: str) -> Recipe:
    """The recipe whose text form is ``text``. Raises :class:`BadArgument` for any other text."""
    method, *steps = [word.strip() for word in text.split("+")]
    recipe = Recipe(method if method in METHODS else DEFAULT.method, smooth="smooth" in steps, correct_bias="bias" in steps)
    if str(recipe) != text:
        raise BadArgument(
            f"{text!r} is no recipe for INT8: write one of {', '.join(METHODS)}, if wanted with ` + smooth` or ` + bias`"
        )
    return recipe
