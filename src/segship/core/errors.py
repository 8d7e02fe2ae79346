"""Every error segship raises on purpose.

SegshipError                    exit code 1
├── BuildFailed                 export, quantisation or compilation went wrong
│   ├── ExportMismatch          the exported graph differs from the PyTorch module
│   ├── FusionMissing           a fusion that the recipe expects did not happen
│   └── PrecisionDisagreement   the engine does not run in the precision that was asked for
├── RunFailed                   a runtime failed while running an engine
└── BadInput                    exit code 2: what was found, what was expected, what to do
    ├── BadArgument
    ├── BadCheckpoint
    │   ├── UnknownCheckpoint   no family claims the keys
    │   └── AmbiguousCheckpoint several readings fit; the caller must choose
    ├── BadImage
    ├── BadDataset
    ├── BadEngine               missing, incomplete, changed or of another schema
    │   └── EngineNotPortable   built for another backend version or processor
    ├── BackendUnavailable      the runtime is not installed or does not work here
    └── StorageFailed           the disk is full, or a path cannot be written
"""

from __future__ import annotations


class SegshipError(Exception):
    """Base of all errors that segship raises on purpose; ``str(error)`` is one clear sentence."""

    exit_code = 1


class RunFailed(SegshipError):
    """A runtime failed while running an engine: out of memory, or a fault of its own."""


class BuildFailed(SegshipError):
    """A step between checkpoint and engine failed."""


class ExportMismatch(BuildFailed):
    """The exported graph does not compute what the PyTorch module computes."""


class FusionMissing(BuildFailed):
    """A graph pass that must match did not."""


class PrecisionDisagreement(BuildFailed):
    """A backend runs layers in another precision than the graph asks for."""


class BadInput(SegshipError):
    """The user's input cannot be used; the sentence says what was found, what was expected, what to do."""

    exit_code = 2


class BadArgument(BadInput):
    """A command-line option or function argument is out of range or contradicts another."""


class BadCheckpoint(BadInput):
    """The checkpoint is missing, empty, truncated, of a wrong format, or unsafe to read."""


class UnknownCheckpoint(BadCheckpoint):
    """No model family recognises the checkpoint's keys."""


class AmbiguousCheckpoint(BadCheckpoint):
    """More than one family or variant fits the checkpoint."""


class BadImage(BadInput):
    """An image file cannot be decoded or has a size or format that cannot be used."""


class BadDataset(BadInput):
    """A data folder is empty, of an unknown layout, or its labels do not fit its images."""


class BadEngine(BadInput):
    """An engine directory is missing, incomplete, changed, or of another schema."""


class EngineNotPortable(BadEngine):
    """The engine was built for another backend version or processor."""


class BackendUnavailable(BadInput):
    """The named backend cannot be used on this machine."""


class StorageFailed(BadInput):
    """A file could not be written: disk full, no permission, or not a directory."""
