"""Backends compile a graph into an engine. One module each, imported when asked for."""

from __future__ import annotations

from importlib import import_module
from typing import cast

from segship.core.backend import Backend
from segship.core.errors import BackendUnavailable, BadArgument

BACKENDS = {
    "onnxruntime": "segship.backends.onnxruntime",
    "openvino": "segship.backends.openvino",
    "reference": "segship.backends.reference",
    "null": "segship.backends.null",
}
"""Name to module. The first two make engines for users; ``reference`` is PyTorch itself, ``null`` answers zeros."""

DEPLOYABLE = ("onnxruntime", "openvino")
"""Backends that ``--backend auto`` tries."""


def load_backend(name: str) -> Backend:
    """The backend module ``name``; its runtime may still be missing, see :meth:`Backend.probe`."""
    if name not in BACKENDS:
        raise BadArgument(f"no backend {name!r}: the backends are {', '.join(BACKENDS)}")
    return cast(Backend, import_module(BACKENDS[name]))


def usable_backend(name: str) -> Backend:
    """The backend ``name``, or :class:`BackendUnavailable` with what is missing and how to get it."""
    backend = load_backend(name)
    if problem := backend.probe():
        raise BackendUnavailable(f"the backend {name} cannot be used here: {problem}")
    return backend


def deployable_backend(name: str) -> Backend:
    """The usable backend ``name``; :class:`BadArgument` where it compiles no graph or computes nothing: no engine to choose."""
    traits = usable_backend(name).TRAITS
    if traits.source != "graph" or not traits.precisions:
        what = "computes nothing" if traits.source == "graph" else "is PyTorch itself, which all engines are compared with"
        raise BadArgument(f"the backend {name} {what}: choose {' or '.join(DEPLOYABLE)}")
    return load_backend(name)
