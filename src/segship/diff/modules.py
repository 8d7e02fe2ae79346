"""The output tensors of every PyTorch module, by module path, in the order in which they were computed."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from segship.core.backend import Array, Feeds
from segship.pipeline import ModelPredictor


@dataclass(frozen=True)
class ModuleOutput:
    """One tensor that a module gave. ``call`` counts the calls of a module that is shared, ``index`` its several results."""

    path: str
    kind: str
    call: int
    index: int
    tensor: Array = field(repr=False)


def module_outputs(model: ModelPredictor, feeds: Feeds, visit: Callable[[ModuleOutput], None]) -> None:
    """Run the model once and show every module's outputs to ``visit``, as they come: what it does not keep is not kept."""
    calls: dict[str, int] = {}
    handles = []

    def watch(path: str) -> Callable[[torch.nn.Module, Any, Any], None]:
        def hook(module: torch.nn.Module, _arguments: Any, result: Any) -> None:
            calls[path] = calls.get(path, -1) + 1
            for index, tensor in enumerate(_tensors(result)):
                # a copy: nn.ReLU(inplace=True) writes over what the module before it gave
                visit(ModuleOutput(path, type(module).__name__, calls[path], index, np.array(tensor.detach().numpy())))

        return hook

    try:
        for path, module in model.model.module.named_modules():
            handles.append(module.register_forward_hook(watch(path)))
        model.session.run(feeds)
    finally:
        for handle in handles:
            handle.remove()


def _tensors(result: Any) -> Iterator[torch.Tensor]:
    """The tensors in whatever a module returns."""
    if isinstance(result, torch.Tensor):
        yield result
    elif isinstance(result, Mapping):
        for each in result.values():
            yield from _tensors(each)
    elif isinstance(result, tuple | list):
        for each in result:
            yield from _tensors(each)
