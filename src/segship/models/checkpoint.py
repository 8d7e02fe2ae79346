"""From a checkpoint file to plain tensors. Nothing in the file is executed.

PyTorch files are read with ``torch.load(weights_only=True)``, an unpickler that knows tensors and plain containers and
refuses everything else; pickled numpy arrays likewise; safetensors files hold no code by design.
"""

from __future__ import annotations

import json
import pickle
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from segship.core.errors import BadCheckpoint
from segship.core.files import file_sha256
from segship.models import numpy_pickle

Tensors = dict[str, torch.Tensor]

_WRAPPERS = ("state_dict", "model_state_dict", "model", "module", "net")
"""Keys under which training code keeps the state dict: mmcv, Lightning, detectron2, DeepSpeed, others."""

_WEIGHT_FILES = ("model.safetensors", "pytorch_model.bin")
"""Names in a Hugging Face model folder, in order of preference."""


@dataclass(frozen=True)
class Checkpoint:
    """A state dict and what came with it.

    ``tensors``: every tensor under its official key, on the CPU, floating point as float32.
    ``extras``: entries of the same dict that are no tensors (``mask_values``); ``meta``: the wrapper's ``meta`` dict.
    ``config``, ``preprocessor``: Hugging Face ``config.json`` and ``preprocessor_config.json``, if beside the weights.
    ``facts``: the user's own ``NAME.facts.json`` beside the checkpoint, if there.
    """

    path: Path
    sha256: str
    layout: str
    tensors: Tensors
    extras: dict[str, Any]
    meta: dict[str, Any]
    config: dict[str, Any] | None
    preprocessor: dict[str, Any] | None
    facts: dict[str, Any]

    def shape(self, key: str, n_axes: int) -> tuple[int, ...]:
        """Shape of the tensor ``key``; raises :class:`BadCheckpoint` unless it is there and has ``n_axes`` axes."""
        return shape_of(self.tensors, key, n_axes)


def shape_of(tensors: Mapping[str, torch.Tensor], key: str, n_axes: int) -> tuple[int, ...]:
    """Shape of ``tensors[key]``; raises :class:`BadCheckpoint` unless it is there and has ``n_axes`` axes."""
    if key not in tensors:
        raise BadCheckpoint(f"the checkpoint lacks {key}: give an unmodified checkpoint")
    shape = tuple(tensors[key].shape)
    if len(shape) != n_axes:
        raise BadCheckpoint(f"{key} has the shape {shape}, expected {n_axes} axes: give an unmodified checkpoint")
    return shape


def read_checkpoint(path: Path | str) -> Checkpoint:
    """Read a ``.pth``, ``.pt``, ``.bin``, ``.pkl`` (detectron2) or ``.safetensors`` file, or a Hugging Face model folder.

    Raises :class:`BadCheckpoint` if it is missing, empty, truncated, of another format, or asks to run code.
    """
    path = Path(path)
    file = _weight_file(path)
    kind = _kind(file)
    content = _READERS[kind](file)
    state, wrapper, meta = _unwrap(content, file)
    tensors = {key.removeprefix("module."): _plain(value) for key, value in state.items() if isinstance(value, torch.Tensor)}
    if not tensors:
        raise BadCheckpoint(f"{file} holds no tensors: give a checkpoint with a state dict")
    beside = file.parent if file.name in _WEIGHT_FILES else None  # a config.json beside another file may be of anything
    config = _read_json(beside / "config.json") if beside else None
    preprocessor = _read_json(beside / "preprocessor_config.json") if beside else None
    return Checkpoint(
        path=path,
        sha256=_sha256_of_all(file, config, preprocessor),
        layout=f"{kind}{f' ({wrapper})' if wrapper else ''}",
        tensors=tensors,
        extras={key: value for key, value in state.items() if not isinstance(value, torch.Tensor)},
        meta=meta,
        config=config,
        preprocessor=preprocessor,
        facts=_read_json(path.with_suffix(".facts.json")) or {},
    )


def _weight_file(path: Path) -> Path:
    if not path.exists():
        raise BadCheckpoint(
            f"no checkpoint at {path}: give the path of a .pth, .pt, .bin, .pkl or .safetensors file, or a model folder"
        )
    if path.is_file():
        if path.stat().st_size == 0:
            raise BadCheckpoint(f"{path} is empty: download or copy the checkpoint again")
        return path
    for name in _WEIGHT_FILES:
        if (path / name).is_file():
            return path / name
    raise BadCheckpoint(
        f"the folder {path} holds none of {', '.join(_WEIGHT_FILES)}: give a checkpoint file or a Hugging Face model folder"
    )


def _kind(file: Path) -> str:
    """The format: by the name, but for a ``.pkl`` that PyTorch wrote, which is a zip file."""
    if file.suffix == ".pkl":
        with file.open("rb") as stream:
            return "torch" if stream.read(4) == b"PK\x03\x04" else "pickle"
    return "safetensors" if file.suffix == ".safetensors" else "torch"


def _read_safetensors(file: Path) -> dict[str, Any]:
    try:
        return dict(load_file(file))
    except (SafetensorError, OSError, ValueError) as error:
        raise BadCheckpoint(f"{file} is no intact safetensors file ({error}): download or copy it again") from error


def _read_torch(file: Path) -> dict[str, Any]:
    try:
        content = torch.load(file, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise BadCheckpoint(_refusal(file, error)) from error
    except Exception as error:  # torch raises RuntimeError, EOFError, KeyError, ValueError, ... for broken files
        first_line = str(error).partition("\n")[0].partition(". ")[0]
        raise BadCheckpoint(
            f"{file} is no intact PyTorch file ({first_line or type(error).__name__}): download or copy it again"
        ) from error
    return _checked_dict(content, file)


def _read_pickle(file: Path) -> dict[str, Any]:
    try:
        content = numpy_pickle.load(file)
    except numpy_pickle.CodeRefused as error:
        raise BadCheckpoint(_code_refusal(file, str(error))) from error
    except Exception as error:  # the unpickler raises UnpicklingError, EOFError, ValueError, KeyError, ... for broken files
        raise BadCheckpoint(
            f"{file} is no intact pickle of numpy arrays ({type(error).__name__}): download or copy it again"
        ) from error
    return _checked_dict(content, file)


def _checked_dict(content: Any, file: Path) -> dict[str, Any]:
    if not isinstance(content, dict):
        raise BadCheckpoint(f"{file} holds a {type(content).__name__}, expected a state dict: save model.state_dict() instead")
    return content


_READERS = {"safetensors": _read_safetensors, "torch": _read_torch, "pickle": _read_pickle}


def _refusal(file: Path, error: Exception) -> str:
    """The sentence for a pickle that needs more than tensors and plain containers."""
    text = str(error)
    for marker in ("GLOBAL ", "Unsupported global: GLOBAL ", "Unsupported class "):
        if marker in text:
            wanted = text.rpartition(marker)[2].split()[0].rstrip(".,:")
            return _code_refusal(file, wanted)
    return f"{file} is no intact PyTorch file: download or copy it again, or save model.state_dict() to a new one"


def _code_refusal(file: Path, wanted: str) -> str:
    return (
        f"{file} asks to load the code object {wanted}, which a state dict never needs, so it was not read: "
        "save model.state_dict() with the training code and give that file"
    )


def _unwrap(content: dict[str, Any], file: Path) -> tuple[dict[str, Any], str, dict[str, Any]]:
    meta = content.get("meta")
    for wrapper in _WRAPPERS:
        inner = content.get(wrapper)
        if isinstance(inner, dict) and inner:
            return _text_keyed(inner, file), wrapper, meta if isinstance(meta, dict) else {}
    return _text_keyed(content, file), "", {}


def _text_keyed(state: dict[Any, Any], file: Path) -> dict[str, Any]:
    if not all(isinstance(key, str) for key in state):
        raise BadCheckpoint(f"{file} holds a dict without text keys, expected a state dict: save model.state_dict() instead")
    return state


def _plain(tensor: torch.Tensor) -> torch.Tensor:
    tensor = tensor.detach()
    return tensor.float().contiguous() if tensor.is_floating_point() else tensor


def _read_json(file: Path) -> dict[str, Any] | None:
    if not file.is_file():
        return None
    try:
        content = json.loads(file.read_text())
    except (ValueError, OSError) as error:
        raise BadCheckpoint(f"{file} is no readable JSON ({error}): mend or remove it") from error
    if not isinstance(content, dict):
        raise BadCheckpoint(f"{file} is no JSON object: mend or remove it")
    return content


def _sha256_of_all(file: Path, *configs: dict[str, Any] | None) -> str:
    digest = file_sha256(file)
    present = [config for config in configs if config is not None]
    if not present:
        return digest
    return sha256(json.dumps([digest, *present], sort_keys=True).encode()).hexdigest()
