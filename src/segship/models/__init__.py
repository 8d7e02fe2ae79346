"""Model families: from an official checkpoint to a PyTorch module and its spec. torch lives here."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import torch

from segship.models import family, maskrcnn, panopticfcn, pointrend, segformer, unet
from segship.models.family import Family, Model

# modules satisfy the protocol, mypy cannot see it
FAMILIES = cast(tuple[Family, ...], (unet, segformer, pointrend, maskrcnn, panopticfcn))

__all__ = ["FAMILIES", "Family", "Model", "build_module", "load_model"]


def load_model(path: Path | str, **facts: Any) -> Model:
    """Load a checkpoint of any known family; see :func:`segship.models.family.load_model`."""
    return family.load_model(FAMILIES, path, **facts)


def build_module(family_name: str, hyperparameters: Mapping[str, Any]) -> torch.nn.Module:
    """The network of a family without weights."""
    (chosen,) = [candidate for candidate in FAMILIES if family_name == candidate.NAME]
    return chosen.build(hyperparameters)
