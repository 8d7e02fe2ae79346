"""Run a network on images and learn the range of each tensor that INT8 will hold: streaming, resumable, repeatable.

One image is in memory at a time, and of its tensors only extremes and samples (``observe``). What was learnt is written
after every image, so an interrupted calibration goes on where it stopped, and the same calibration is never done twice.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import msgspec
from numpy.typing import NDArray

from segship.core.backend import Array, Feeds, Session
from segship.core.errors import BuildFailed, StorageFailed
from segship.core.files import file_sha256, write_atomically
from segship.core.graph import Graph
from segship.core.progress import Progress, silent
from segship.graph.histogram import Histogram, Method, PackedHistogram, Range
from segship.graph.observe import observing_graph, shapes_graph

Prepare = Callable[[Path], Feeds]
"""From an image file to all that the network takes, the image as (1, channel, height, width)."""

OpenSession = Callable[[Graph], Session]

_VERSION = 1
"""Raised whenever observing or the histograms change, so that nothing learnt in another way is used again."""


class Ranges(msgspec.Struct, frozen=True):
    """What a calibration found: a range for each tensor by name, and where they came from.

    ``sha256`` is the hash of graph, tensors, images, preprocessing and method: equal hash, equal ranges.
    """

    method: Method
    images: int
    sha256: str
    tensors: dict[str, Range]


class _State(msgspec.Struct):
    """What has been learnt after ``done`` images; in the cache under the hash of everything but the method."""

    key: str
    done: int
    histograms: list[PackedHistogram]


@dataclass(frozen=True)
class Calibration:
    """What to calibrate: the named ``tensors`` of ``graph`` on ``images``, read by ``prepare``.

    ``preprocessing`` states in words or JSON what ``prepare`` does: it is a part of the hash, as code cannot be hashed.
    ``open_session`` opens a graph on some backend. ``cache`` is a folder for what is learnt, None for no cache.
    """

    graph: Graph
    tensors: tuple[str, ...]
    images: Sequence[Path]
    prepare: Prepare
    preprocessing: str
    open_session: OpenSession
    cache: Path | None = None

    def run(self, *, method: Method = "mse", progress: Progress = silent) -> Ranges:
        """The ranges after all images.

        ``progress`` is told ``calibrate`` and the number of images done. Another ``method`` on the same cache runs nothing.
        Raises :class:`BuildFailed` when there is no image, and when a tensor is not finite on an image.
        """
        if not self.images:
            raise BuildFailed("there is no image to calibrate on: INT8 needs at least one, a few dozen are better")
        key = self._key()
        histograms, done = self._resume(key)
        if done < len(self.images):
            self._observe(key, histograms, done, progress)
        progress("calibrate", len(self.images), len(self.images))
        tensors = {name: histogram.bounds(method) for name, histogram in zip(self.tensors, histograms, strict=True)}
        return Ranges(method, len(self.images), sha256(f"{key} {method}".encode()).hexdigest(), tensors)

    def _key(self) -> str:
        """Hash of graph, tensors, images and preprocessing."""
        digest = sha256(self.graph.to_bytes())
        parts = [f"version {_VERSION}", *self.tensors, self.preprocessing, *(file_sha256(image) for image in self.images)]
        digest.update("\0".join(parts).encode())
        return digest.hexdigest()

    def _observe(self, key: str, histograms: list[Histogram], done: int, progress: Progress) -> None:
        """Run the remaining images; ``histograms`` grow in place."""
        session = self._open(self.prepare(self.images[done]))
        try:
            for index in range(done, len(self.images)):
                progress("calibrate", index, len(self.images))
                results = session.run(_fitting(session, self.prepare(self.images[index])))
                self._learn(histograms, results, self.images[index])
                self._keep(_State(key, index + 1, [histogram.packed() for histogram in histograms]))
        finally:
            session.close()

    def _open(self, image: Feeds) -> Session:
        """The observing session, its sampling fitted to the tensors' sizes on one image."""
        probe = self.open_session(shapes_graph(self.graph, self.tensors))
        found = probe.run(_fitting(probe, image))
        probe.close()
        shapes = {name: tuple(int(side) for side in found[f"{index}/shape"]) for index, name in enumerate(self.tensors)}
        return self.open_session(observing_graph(self.graph, self.tensors, shapes))

    def _learn(self, histograms: list[Histogram], results: dict[str, NDArray[Any]], image: Path) -> None:
        for index, (name, histogram) in enumerate(zip(self.tensors, histograms, strict=True)):
            low, high = float(results[f"{index}/min"]), float(results[f"{index}/max"])
            try:
                histogram.add(low, high, results[f"{index}/sample"])
            except ValueError as error:
                raise BuildFailed(f"the tensor {name} is not finite on {image} ({error}): the network overflows there") from error

    def _resume(self, key: str) -> tuple[list[Histogram], int]:
        """What the cache knows, and of how many images; a damaged or foreign file counts as nothing."""
        fresh = [Histogram() for _ in self.tensors]
        file = self._file(key)
        if file is None or not file.is_file():
            return fresh, 0
        try:
            state = msgspec.json.decode(file.read_bytes(), type=_State)
            histograms = [Histogram.unpacked(packed) for packed in state.histograms]
        except (msgspec.DecodeError, ValueError):
            return fresh, 0
        whole = state.key == key and len(histograms) == len(fresh) and 0 <= state.done <= len(self.images)
        return (histograms, state.done) if whole else (fresh, 0)

    def _keep(self, state: _State) -> None:
        file = self._file(state.key)
        if file is None:
            return
        with contextlib.suppress(StorageFailed):  # a full disk costs the resumption, not the calibration
            write_atomically(file, msgspec.json.encode(state))

    def _file(self, key: str) -> Path | None:
        return self.cache / f"{key}.json" if self.cache is not None else None


def _fitting(session: Session, feeds: Feeds) -> dict[str, Array]:
    """What the session takes of ``feeds``: the part of the network that is observed may need less than the whole."""
    return {spec.name: feeds[spec.name] for spec in session.inputs}
