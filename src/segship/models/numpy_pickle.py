"""Plain pickles of numpy arrays, as detectron2's model zoo has them (``.pkl``), read without executing anything.

A pickle is a program that calls what it names. Here it may name only what an array of plain numbers needs, and even those
names lead to stand-ins that take raw bytes apart: no code of the file, and none of numpy's own unpickling, is run.
"""

from __future__ import annotations

import pickle
import re
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray


class CodeRefused(Exception):
    """The pickle asks for an object that no array of numbers needs; ``str(error)`` is its full name."""


def load(file: Path) -> Any:
    """What the pickle holds: built-in containers and values, ``OrderedDict``, and arrays of numbers, as tensors.

    Text of Python 2 is read as Latin-1, as detectron2 does. Raises :class:`CodeRefused`, and for broken files any of the
    errors of :class:`pickle.Unpickler`.
    """
    with file.open("rb") as stream:
        return _with_tensors(_Unpickler(stream, encoding="latin1").load())


class _Unpickler(pickle.Unpickler):
    """Knows the names of :func:`_allowed` and no other. They are made anew for each file: a pickle may set attributes."""

    def __init__(self, stream: Any, *, encoding: str) -> None:
        super().__init__(stream, encoding=encoding)
        self._allowed = _allowed()

    def find_class(self, module: str, name: str) -> Any:
        """The stand-in of an allowed name; raises :class:`CodeRefused` for any other."""
        place = re.sub(r"^numpy\._?core\.", "numpy.core.", module)  # numpy 2 writes _core
        if f"{place}.{name}" not in self._allowed:
            raise CodeRefused(f"{module}.{name}")
        return self._allowed[f"{place}.{name}"]


class _Dtype:
    """``numpy.dtype`` of plain numbers."""

    def __init__(self, code: str) -> None:
        if not re.fullmatch(r"[<>|=]?([fiu][248]|[iub]1)", code):
            raise CodeRefused(f"numpy.dtype({code[:20]!r})")
        self.dtype = np.dtype(code)

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        self.dtype = self.dtype.newbyteorder(state[1])  # (version, byte order, five fields of structured types, flags)


class _Array:
    """``numpy.ndarray``, filled by its state."""

    content: NDArray[Any]

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        _version, shape, dtype, is_fortran, raw = state
        self.fill(raw, dtype, shape, "F" if is_fortran else "C")

    def fill(self, raw: bytes | str, dtype: _Dtype, shape: tuple[int, ...], order: str) -> None:
        """Take the numbers, in this machine's byte order; Python 2 wrote bytes as text."""
        data = raw.encode("latin1") if isinstance(raw, str) else raw
        kept = np.frombuffer(data, dtype.dtype).reshape(shape, order="F" if order == "F" else "C")
        self.content = kept.astype(dtype.dtype.newbyteorder("="))  # a copy: the file's bytes are read-only


def _allowed() -> dict[str, Callable[..., Any]]:
    def ndarray(*_arguments: Any) -> _Array:
        return _Array()

    def dtype(code: str, *_align_and_copy: Any) -> _Dtype:
        return _Dtype(code)

    def frombuffer(raw: bytes, kind: _Dtype, shape: tuple[int, ...], order: str) -> _Array:  # protocol 5
        array = _Array()
        array.fill(raw, kind, shape, order)
        return array

    def scalar(kind: _Dtype, raw: bytes | str) -> Any:
        array = _Array()
        array.fill(raw, kind, (), "C")
        return array.content.item()

    def encode(text: str, encoding: str) -> bytes:  # how protocols 0 to 2 write bytes
        if encoding != "latin1":
            raise CodeRefused(f"_codecs.encode to {encoding[:20]}")
        return text.encode("latin1")

    def no_bytes() -> bytes:  # how protocols 0 to 2 write empty bytes
        return b""

    return {
        "numpy.ndarray": ndarray,
        "numpy.core.multiarray._reconstruct": ndarray,
        "numpy.core.multiarray.scalar": scalar,
        "numpy.core.numeric._frombuffer": frombuffer,
        "numpy.dtype": dtype,
        "_codecs.encode": encode,
        "__builtin__.bytes": no_bytes,
        "builtins.bytes": no_bytes,
        "collections.OrderedDict": OrderedDict,
    }


def _with_tensors(value: Any) -> Any:
    """The same value with tensors in place of arrays, in dicts at any depth."""
    if isinstance(value, _Array):
        return torch.from_numpy(value.content)
    return {key: _with_tensors(each) for key, each in value.items()} if isinstance(value, dict) else value
