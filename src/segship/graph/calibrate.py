"""Run a network on images and learn the range of each tensor that INT8 will hold: streaming, resumable, repeatable.

One image is in memory at a time, and of its tensors only extremes and samples (``observe``). What was learnt is written
after every image, so an interrupted calibration goes on where it stopped, and the same calibration is never done twice.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from copy import deepcopy
from dataclasses import dataclass, field
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
from segship.graph.histogram import Clipping, Histogram, Method, PackedHistogram, Range
from segship.graph.observe import observing_graph, shapes_graph

Prepare = Callable[[Path], Feeds]
"""From an image file to all that the network takes, the image as (1, channel, height, width)."""

OpenSession = Callable[[Graph], Session]

_VERSION = 2
"""Raised whenever observing or the histograms change, so that nothing learnt in another way is used again."""


class Ranges(msgspec.Struct, frozen=True):
    """What a calibration found: a range for each tensor by name, and where they came from.

    ``sha256`` is the hash of graph, tensors, images, preprocessing and method: equal hash, equal ranges. ``clipped``: what
    each tensor's range leaves out on these images. ``moved``: by how much the last quarter of the images
    moved the ends of the range by percentile, as a share of its width; empty for one image.
    """

    method: Method
    images: int
    sha256: str
    tensors: dict[str, Range]
    clipped: dict[str, Clipping] = {}
    moved: dict[str, float] = {}


class _State(msgspec.Struct):
    """What has been learnt after ``done`` images; in the cache under the hash of everything but the method.

    ``early``: what had been learnt after three quarters of all images, empty before.
    """

    key: str
    done: int
    histograms: list[PackedHistogram]
    early: list[PackedHistogram] = []


@dataclass
class _Learnt:
    """What grows while images are run; see :class:`_State`."""

    histograms: list[Histogram]
    early: list[Histogram] = field(default_factory=list)
    done: int = 0

    def packed(self, key: str) -> _State:
        histograms, early = ([each.packed() for each in some] for some in (self.histograms, self.early))
        return _State(key, self.done, histograms, early)


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
        learnt = self._resume(key)
        if learnt.done < len(self.images):
            self._observe(key, learnt, progress)
        progress("calibrate", len(self.images), len(self.images))
        histograms = dict(zip(self.tensors, learnt.histograms, strict=True))
        ranges = {name: histogram.bounds(method) for name, histogram in histograms.items()}
        clipped = {name: histogram.clipping(ranges[name]) for name, histogram in histograms.items()}
        early = dict(zip(self.tensors, learnt.early, strict=False))
        moved = {name: _movement(histogram, histograms[name]) for name, histogram in early.items()}
        sha = sha256(f"{key} {method}".encode()).hexdigest()
        return Ranges(method, len(self.images), sha, ranges, clipped, moved)

    def _key(self) -> str:
        """Hash of graph, tensors, images and preprocessing."""
        digest = sha256(self.graph.to_bytes())
        parts = [f"version {_VERSION}", *self.tensors, self.preprocessing, *(file_sha256(image) for image in self.images)]
        digest.update("\0".join(parts).encode())
        return digest.hexdigest()

    def _observe(self, key: str, learnt: _Learnt, progress: Progress) -> None:
        """Run the remaining images; ``learnt`` grows in place."""
        session = self._open(self.prepare(self.images[learnt.done]))
        try:
            for index in range(learnt.done, len(self.images)):
                if index and index == len(self.images) - max(1, len(self.images) // 4):
                    learnt.early = deepcopy(learnt.histograms)
                progress("calibrate", index, len(self.images))
                results = session.run(_fitting(session, self.prepare(self.images[index])))
                self._learn(learnt.histograms, results, self.images[index])
                learnt.done = index + 1
                self._keep(learnt.packed(key))
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

    def _resume(self, key: str) -> _Learnt:
        """What the cache knows; a damaged or foreign file counts as nothing."""
        fresh = _Learnt([Histogram() for _ in self.tensors])
        file = self._file(key)
        if file is None or not file.is_file():
            return fresh
        try:
            state = msgspec.json.decode(file.read_bytes(), type=_State)
            histograms, early = ([Histogram.unpacked(each) for each in some] for some in (state.histograms, state.early))
            learnt = _Learnt(histograms, early, state.done)
        except (msgspec.DecodeError, ValueError):
            return fresh
        fits = len(learnt.histograms) == len(self.tensors) and len(learnt.early) in (0, len(self.tensors))
        return learnt if state.key == key and fits and 0 <= state.done <= len(self.images) else fresh

    def _keep(self, state: _State) -> None:
        file = self._file(state.key)
        if file is None:
            return
        with contextlib.suppress(StorageFailed):  # a full disk costs the resumption, not the calibration
            write_atomically(file, msgspec.json.encode(state))

    def _file(self, key: str) -> Path | None:
        return self.cache / f"{key}.json" if self.cache is not None else None


def _movement(early: Histogram, late: Histogram) -> float:
    """How far the ends moved, as a share of the later range's width; 0 for a tensor that is always zero.

    Whatever the method: percentiles show best whether more images would bring more, extremes jump and least errors waver.
    """
    before, after = early.bounds("percentile"), late.bounds("percentile")
    width = after.high - after.low
    return (abs(after.low - before.low) + abs(after.high - before.high)) / width if width > 0 else 0.0


def _fitting(session: Session, feeds: Feeds) -> dict[str, Array]:
    """What the session takes of ``feeds``: the part of the network that is observed may need less than the whole."""
    return {spec.name: feeds[spec.name] for spec in session.inputs}
