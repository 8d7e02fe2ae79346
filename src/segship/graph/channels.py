"""One number for each channel of a tensor, folded over images: streaming, resumable, cached, in almost no memory."""

from __future__ import annotations

import contextlib
import io
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from segship.core.backend import Feeds, Session
from segship.core.errors import BuildFailed, StorageFailed
from segship.core.files import file_sha256, write_atomically
from segship.core.graph import Graph
from segship.core.progress import Progress, silent
from segship.graph.observe import CHANNELS

_VERSION = 1
_DONE = "images done"

ChannelValues = dict[str, NDArray[np.float64]]
"""By name of the tensor or node, one number for each channel, shape (channels,)."""


@dataclass(frozen=True)
class ChannelStatistics:
    """What to fold: the outputs of ``graph``, each of shape (channels,) and called ``NAME/channels``, on ``images``.

    Both ways raise :class:`BuildFailed` without images. An interrupted run goes on where it stopped, if there is a ``cache``.
    The other fields are those of :class:`segship.graph.calibrate.Calibration`.
    """

    graph: Graph
    images: Sequence[Path]
    prepare: Callable[[Path], Feeds]
    preprocessing: str
    open_session: Callable[[Graph], Session]
    cache: Path | None = None

    def maxima(self, progress: Progress = silent) -> ChannelValues:
        """The largest number of each channel on any image."""
        return self._folded("max", progress)

    def means(self, progress: Progress = silent) -> ChannelValues:
        """The mean over images of each channel's number."""
        return {name: total / len(self.images) for name, total in self._folded("sum", progress).items()}

    def _folded(self, how: Literal["max", "sum"], progress: Progress) -> ChannelValues:
        if not self.images:
            raise BuildFailed("there is no image to calibrate on: INT8 needs at least one, a few dozen are better")
        file = self.cache / f"{self._key(how)}.npz" if self.cache is not None else None
        names = {output.name: output.name.removesuffix(CHANNELS) for output in self.graph.signature.outputs}
        if not names:  # a recipe may ask for what this graph has no place for
            return {}
        found, done = _read(file, set(names.values()))
        if done == len(self.images):
            return found
        combine = np.maximum if how == "max" else np.add
        session = self.open_session(self.graph)
        try:
            for index, image in enumerate(self.images[done:], done):
                progress("calibrate channels", index, len(self.images))
                feeds = self.prepare(image)
                results = session.run({spec.name: feeds[spec.name] for spec in session.inputs})
                seen = {names[name]: np.asarray(value, np.float64) for name, value in results.items()}
                found = {name: combine(found[name], value) for name, value in seen.items()} if found else seen
                _write(file, found, index + 1)
        finally:
            session.close()
        return found

    def _key(self, how: str) -> str:
        parts = [f"channels {_VERSION} {how}", self.preprocessing, *(file_sha256(image) for image in self.images)]
        digest = sha256(self.graph.to_bytes())
        digest.update("\0".join(parts).encode())
        return digest.hexdigest()


def _read(file: Path | None, names: set[str]) -> tuple[ChannelValues, int]:
    """What the cache holds, and of how many images; a damaged file counts as nothing."""
    try:
        with np.load(file, allow_pickle=False) if file is not None else contextlib.nullcontext({}) as stored:
            values = dict(stored)
    except (OSError, EOFError, ValueError, zipfile.BadZipFile):
        return {}, 0
    done = int(values.pop(_DONE, 0))
    return (values, done) if values.keys() == names else ({}, 0)


def _write(file: Path | None, values: ChannelValues, done: int) -> None:
    if file is None:
        return
    content = io.BytesIO()
    np.savez(content, **{_DONE: np.array(done)}, **values)  # type: ignore[arg-type]
    with contextlib.suppress(StorageFailed):  # a full disk costs the resumption, not the calibration
        write_atomically(file, content.getvalue())
