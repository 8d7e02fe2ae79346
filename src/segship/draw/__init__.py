"""An image and what the network saw in it, as one picture. Pillow and numpy only: serving needs it."""

from __future__ import annotations

from segship.draw import instances as _instances  # noqa: F401  registers itself with paint and differing
from segship.draw import panoptic as _panoptic  # noqa: F401
from segship.draw.colors import Color, default_palette, palette
from segship.draw.legend import Entry, add_legend
from segship.draw.paint import differing, disagreement, mark, overlay, paint

__all__ = [
    "Color",
    "Entry",
    "add_legend",
    "default_palette",
    "differing",
    "disagreement",
    "mark",
    "overlay",
    "paint",
    "palette",
]
