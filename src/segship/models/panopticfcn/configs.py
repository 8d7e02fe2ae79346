"""What the published configurations say beside the weights (dvlab-research/PanopticFCN f4141c3, ``configs/*.yaml``)."""

from __future__ import annotations

from typing import Annotated, Any

import msgspec

from segship.core.errors import BadArgument
from segship.core.spec import Pixels

Share = Annotated[float, msgspec.Meta(ge=0, le=1)]


class Rules(msgspec.Struct, frozen=True):
    """Every number of an inference configuration; the names in the official files are beside them."""

    shortest_side: Pixels = 800  # INPUT.MIN_SIZE_TEST
    longest_side: Pixels = 1333  # INPUT.MAX_SIZE_TEST
    center_threshold: Share = 0.05  # MODEL.POSITION_HEAD.THING.THRES
    region_threshold: Share = 0.05  # MODEL.POSITION_HEAD.STUFF.THRES
    top_num: Annotated[int, msgspec.Meta(ge=2)] = 100  # MODEL.POSITION_HEAD.THING.TOP_NUM
    mask_threshold: Share = 0.4  # MODEL.INFERENCE.INST_THRES
    similarity: Share = 0.9  # MODEL.INFERENCE.SIMILAR_THRES
    class_specific: bool = True  # MODEL.INFERENCE.CLASS_SPECIFIC
    score_threshold: Share = 0.2  # MODEL.INFERENCE.COMBINE.INST_THRESH
    overlap: Share = 0.5  # MODEL.INFERENCE.COMBINE.OVERLAP_THRESH
    stuff_area: Annotated[int, msgspec.Meta(ge=0)] = 4096  # MODEL.INFERENCE.COMBINE.STUFF_AREA_LIMIT
    least_score: Share = 0.05  # written out in process_inst
    center_pools: tuple[int, int, int, int, int] = (3, 3, 3, 5, 5)  # written out in inference, P3 ... P7


_SIDES = {"": (800, 1333), "-400": (400, 666), "-512": (512, 854), "-600": (600, 1000)}


def _published() -> dict[str, Rules]:
    """The thresholds differ between plain and FAST, the sizes between the rest; 1x and 3x only in their training."""
    rules = {}
    for size, (short, long) in _SIDES.items():
        for schedule in ("1x", "3x") if not size else ("3x",):
            plain = Rules(shortest_side=short, longest_side=long)
            rules[f"R50{size}-{schedule}"] = plain
            rules[f"R50{size}-{schedule}-FAST"] = msgspec.structs.replace(plain, center_threshold=0.2, region_threshold=0.1)
    rules["Star-R50-3x"], rules["Star-R50-3x-FAST"] = rules["R50-3x"], rules["R50-3x-FAST"]
    return rules


CONFIGS = _published()
"""By the name of the file without ``PanopticFCN-`` and ``.yaml``."""


def rules_of(config: str, stated: dict[str, Any]) -> tuple[str, Rules]:
    """Short name and rules of a published configuration, ``stated`` in their places; raises :class:`BadArgument` for others."""
    name = config.removesuffix(".yaml").removeprefix("PanopticFCN-")
    if name not in CONFIGS:
        raise BadArgument(f"no configuration {config!r} of Panoptic FCN: the published ones are {', '.join(CONFIGS)}")
    return name, msgspec.structs.replace(CONFIGS[name], **stated)
