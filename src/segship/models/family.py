"""What a model family is, and from a checkpoint file to a model."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import msgspec
import torch

from segship.core.errors import AmbiguousCheckpoint, BadArgument, BadCheckpoint, UnknownCheckpoint
from segship.core.spec import Assumption, ModelSpec
from segship.models.checkpoint import Checkpoint, Tensors, read_checkpoint


@dataclass(frozen=True)
class Model:
    """A network with its weights, in eval mode on the CPU, and every fact that inference needs.

    ``module`` maps (batch, channel, height, width) float32 (and ``content_size`` int64 (2,), where
    ``spec.takes_content_size``) to a tuple of the outputs that ``spec.outputs`` describes, or to the one output itself.
    """

    spec: ModelSpec
    module: torch.nn.Module


class Family(Protocol):
    """The names that a family module has."""

    NAME: str

    @property
    def Facts(self) -> type[msgspec.Struct]:  # noqa: N802  (a module's class; read-only, so that any Struct fits)
        """Every fact that a caller may state, all optional; what is stated beats what is read or assumed."""
        ...

    def claims(self, checkpoint: Checkpoint) -> bool:
        """Whether the keys are this family's: judged by keys alone."""
        ...

    def read(self, checkpoint: Checkpoint, facts: Any) -> tuple[ModelSpec, Tensors]:
        """The spec, and the tensors under the module's own parameter names. The checkpoint is not modified."""
        ...

    def build(self, hyperparameters: Mapping[str, Any]) -> torch.nn.Module:
        """The network without weights, from :attr:`ModelSpec.hyperparameters`."""
        ...


def load_model(families: Iterable[Family], path: Path | str, **facts: Any) -> Model:
    """Load a checkpoint, whichever family it is of.

    ``facts`` override whatever the file says or segship would assume; ``family=NAME`` forces a family.
    A ``NAME.facts.json`` beside the checkpoint states facts too (arguments beat it).

    Raises :class:`BadCheckpoint` (and its kinds) and :class:`BadArgument` (a fact that the family does not know).
    """
    checkpoint = read_checkpoint(path)
    stated = {**checkpoint.facts, **facts}
    family = _family_of(checkpoint, list(families), stated.pop("family", None))
    spec, tensors = family.read(checkpoint, _typed_facts(family, stated))
    module = family.build(spec.hyperparameters)
    _load_strictly(module, tensors, spec, path)
    return Model(spec, module.eval().requires_grad_(requires_grad=False))


def _family_of(checkpoint: Checkpoint, families: list[Family], forced: str | None) -> Family:
    names = [family.NAME for family in families]
    if forced is not None and forced not in names:
        raise BadArgument(f"no family {forced!r}: the families are {', '.join(names)}")
    claiming = [family for family in families if family.claims(checkpoint)]
    if forced is not None:
        claiming = [family for family in claiming if forced == family.NAME]
    if len(claiming) == 1:
        return claiming[0]
    some_keys = ", ".join(list(checkpoint.tensors)[:3])
    if not claiming:
        raise UnknownCheckpoint(
            f"{checkpoint.path} holds {len(checkpoint.tensors)} tensors ({some_keys}, ...) that fit none of the families "
            f"{', '.join([forced] if forced else names)}: give an official checkpoint of one of them"
        )
    raise AmbiguousCheckpoint(
        f"{checkpoint.path} fits {', '.join(family.NAME for family in claiming)}: say which with family=NAME"
    )


def _typed_facts(family: Family, stated: dict[str, Any]) -> msgspec.Struct:
    known = [field.name for field in msgspec.structs.fields(family.Facts)]
    for name in stated:
        if name not in known:
            near = difflib.get_close_matches(name, known, 1)
            hint = f"did you mean {near[0]!r}?" if near else f"it knows {', '.join(known)}"
            raise BadArgument(f"{family.NAME} has no fact {name!r}: {hint}")
    try:
        return msgspec.convert(stated, family.Facts)
    except msgspec.ValidationError as error:
        raise BadArgument(f"a fact of {family.NAME} has a wrong value: {error}") from error


def _load_strictly(module: torch.nn.Module, tensors: Tensors, spec: ModelSpec, path: Path | str) -> None:
    expected = module.state_dict()
    missing = [key for key in expected if key not in tensors and not key.endswith("num_batches_tracked")]
    foreign = [key for key in tensors if key not in expected]
    misshapen = [key for key in expected if key in tensors and tensors[key].shape != expected[key].shape]
    for problem, keys in (("lacks", missing), ("has the foreign", foreign), ("has misshapen", misshapen)):
        if keys:
            more = f" and {len(keys) - 3} more" if len(keys) > 3 else ""
            raise BadCheckpoint(
                f"{path} looks like {spec.family} ({spec.variant}) but {problem} {', '.join(keys[:3])}{more}: "
                "give an unmodified checkpoint, or state the facts that differ"
            )
    module.load_state_dict(tensors, strict=False)  # strict above, with names; num_batches_tracked plays no part in eval


def classes_or_assumed(names: tuple[str, ...] | None, count: int, assumed: list[Assumption]) -> tuple[str, ...]:
    """``names`` if given (their number must be ``count``), else numbered names, noted in ``assumed``."""
    if names is None:
        assumed.append(Assumption("classes", f"class 0 ... class {count - 1}", "the checkpoint holds no class names"))
        return tuple(f"class {index}" for index in range(count))
    if len(names) != count:
        raise BadArgument(f"{len(names)} class names were given, the network has {count} classes: give {count} names")
    return names
