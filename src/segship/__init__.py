"""From a trained segmentation checkpoint to a fast engine, with proof that it is still right.

Running an engine (``load_engine``) imports neither torch nor onnx; the names that need them load on first use.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from segship.core.errors import BadInput, SegshipError
    from segship.core.predictions import SemanticMap
    from segship.datasets import open_dataset
    from segship.deploy import deploy
    from segship.draw import overlay
    from segship.pipeline import build, export, load_model
    from segship.predictor import load_engine
    from segship.tune import tune

_HOME = {
    "BadInput": "segship.core.errors",
    "SegshipError": "segship.core.errors",
    "SemanticMap": "segship.core.predictions",
    "build": "segship.pipeline",
    "deploy": "segship.deploy",
    "export": "segship.pipeline",
    "load_engine": "segship.predictor",
    "load_model": "segship.pipeline",
    "open_dataset": "segship.datasets",
    "overlay": "segship.draw",
    "tune": "segship.tune",
}

__all__ = [
    "BadInput",
    "SegshipError",
    "SemanticMap",
    "__version__",
    "build",
    "deploy",
    "export",
    "load_engine",
    "load_model",
    "open_dataset",
    "overlay",
    "tune",
]


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(import_module(_HOME[name]), name)
    raise AttributeError(f"module 'segship' has no attribute {name!r}")


def __dir__() -> list[str]:
    return list(__all__)
