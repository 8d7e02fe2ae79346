"""Panoptic FCN beside the official implementation: facts, recorded stages, and every difference as a sentence."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from golden.case import Case

FAMILY = "panopticfcn"
_NUMBER = r"([\d.]+(?:e-?\d+)?)"


def cases(root: Path) -> list[Case]:
    """Every case of the family below ``root``."""
    return [Case(path.parent) for path in sorted((root / FAMILY).glob("*/manifest.json"))]


def facts(case: Case) -> dict[str, Any]:
    """What the case's manifest says beside the weights."""
    model, rules = case.model, case.model["inference"]
    short, long = re.search(r"MIN_SIZE_TEST=(\d+).*MAX_SIZE_TEST=(\d+)", model["resize"]).groups()  # type: ignore[union-attr]
    assert (rules["SIMILAR_TYPE"], model["input_format"], model["size_divisibility"]) == ("cosine", "BGR", 32)
    return {
        "config": Path(model["config"]).stem,
        "shortest_side": int(short),
        "longest_side": int(long),
        "center_threshold": rules["THING.THRES"],
        "region_threshold": rules["STUFF.THRES"],
        "top_num": rules["THING.TOP_NUM"],
        "mask_threshold": rules["INST_THRES"],
        "similarity": rules["SIMILAR_THRES"],
        "class_specific": rules["CLASS_SPECIFIC"],
        "least_score": rules["score filter"],
        "score_threshold": rules["COMBINE.INST_THRESH"],
        "overlap": rules["COMBINE.OVERLAP_THRESH"],
        "stuff_area": rules["COMBINE.STUFF_AREA_LIMIT"],
        "center_pools": rules["centre average pool per level p3..p7"],
        "stride_in_1x1": model["backbone"]["stride_in_1x1"],
        "mean": model["pixel_mean_in_input_channel_order"],
        "std": model["pixel_std"],
    }


@dataclass(frozen=True)
class Limits:
    """How close a faithful implementation comes, from the manifest's notes."""

    case: Case

    def _found(self, pattern: str, default: float) -> float:
        match = re.search(pattern, str(self.case.manifest["notes"]))
        return float(match[1]) if match else default

    @cached_property
    def features(self) -> tuple[float, float]:
        """Absolute and relative."""
        return self._found(rf"features atol {_NUMBER}", 3e-4), self._found(rf"features atol \S+ \+ rtol {_NUMBER}", 1e-4)

    @cached_property
    def candidates(self) -> float:
        return self._found(rf"identical \(scores atol {_NUMBER}", 2e-5)

    @cached_property
    def kernels(self) -> float:
        return self._found(rf"kernels atol {_NUMBER}", 2e-4)

    @cached_property
    def logits(self) -> float:
        return self._found(rf"mask logits atol {_NUMBER}", 2e-3)

    @cached_property
    def scores(self) -> float:
        return self._found(rf"classes equal, scores atol {_NUMBER}", 1e-4)

    @cached_property
    def pixels(self) -> float:
        """Share."""
        return self._found(rf"equal at >= {_NUMBER} % of the pixels", 99.9) / 100

    @cached_property
    def area(self) -> float:
        """Share."""
        return self._found(rf"stuff area within {_NUMBER} %", 0.5) / 100


@contextmanager
def recorded(module: Any) -> Iterator[dict[str, Any]]:
    """While the block runs: what each part of the network gave, as numpy arrays; the heads' one for each level."""
    stages: dict[str, Any] = {"position_head": [], "kernel_head": []}

    def keep(name: str) -> Callable[..., None]:
        def hook(_module: Any, _inputs: Any, output: Any) -> None:
            value = [part.numpy() for part in output] if isinstance(output, tuple | list) else output.numpy()
            if isinstance(stages.get(name), list) and name.endswith("_head"):
                stages[name].append(value)
            else:
                stages[name] = value

        return hook

    names = ("backbone.bottom_up", "backbone", "semantic_fpn", "feature_encoder", "position_head", "kernel_head", "candidates")
    generators = ("thing_generator.embed_extractor", "thing_generator", "stuff_generator.embed_extractor", "stuff_generator")
    handles = [module.get_submodule(name).register_forward_hook(keep(name)) for name in (*names, *generators, "masks")]
    try:
        yield stages
    finally:
        for handle in handles:
            handle.remove()


def wrong_maps(case: Case, stages: Mapping[str, Any]) -> list[str]:
    """What is wrong with the feature maps and the heads' logits, in network order."""
    found = {f"res{i}_s": stage for i, stage in enumerate(stages["backbone.bottom_up"], 2)}
    found |= {f"p{i}_s": level for i, level in enumerate(stages["backbone"], 2)}
    found |= {"semantic_fpn_s": stages["semantic_fpn"], "encode_s": stages["feature_encoder"]}
    for index, (centre, region) in enumerate(stages["position_head"], 3):
        found |= {f"center_p{index}": centre, f"region_p{index}": region}
    found |= {f"kernel_p{index}_s": kernels for index, kernels in enumerate(stages["kernel_head"], 3)}
    missing = [f"{case.name} has no {name}" for name in found if name not in case.arrays and not name.startswith("res")]
    atol, rtol = Limits(case).features
    near = [fault for name, value in found.items() for fault in differing(case, name, value[0], atol, rtol)]
    return missing + near


def differing(case: Case, name: str, found: np.ndarray, atol: float, rtol: float = 0.0) -> list[str]:
    """A sentence if the array ``name`` of the case differs from its part of ``found``."""
    if name not in case.arrays:
        return []
    official, part = case.arrays[name], case.part(name, found)
    if official.shape != part.shape:
        return [f"{case.name}: {name} is {part.shape}, officially {official.shape}"]
    worst = float(np.max(np.abs(official - part) - rtol * np.abs(official), initial=0.0))
    return [] if worst <= atol else [f"{case.name}: {name} differs by {worst:.1e}, allowed are {atol:.0e}"]
