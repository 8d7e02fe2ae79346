"""From an image to a prediction: prepare, run, decode. The serving path: imports neither torch nor onnx.

The same code runs PyTorch and every engine, so a difference between two results is a difference between networks.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from segship.backends import usable_backend
from segship.core.backend import Array, Session
from segship.core.engine import Engine, check_backend_version, open_engine
from segship.core.errors import BadImage
from segship.core.image import ImageArray, frame, prepare, read_image
from segship.core.predictions import LabelArray, Prediction, SemanticMap
from segship.core.profile import Profile
from segship.core.spec import Frame, ModelSpec, Signature, Size, Slide
from segship.tasks import decode, semantic

if TYPE_CHECKING:
    from typing_extensions import Self  # typing.Self needs Python 3.11, segship runs on 3.10

ImageLike = ImageArray | Path | str
"""(height, width, 3) uint8 RGB, or the path of an image file."""


@dataclass(frozen=True)
class Prepared:
    """One image ready for the network: ``tensor`` (1, channel, height, width) float32, and its sizes on the way."""

    tensor: NDArray[np.float32]
    frame: Frame


class Predictor:
    """A model that answers images with predictions in their own frame. Also a context manager."""

    def __init__(self, spec: ModelSpec, session: Session, signature: Signature) -> None:
        self.spec, self.session, self.signature = spec, session, signature

    def read(self, image: ImageLike) -> ImageArray:
        """Pixels of an image file as this model's official code reads them; arrays pass."""
        if isinstance(image, Path | str):
            return read_image(image, exif_orientation=self.spec.image.exif_orientation)
        return image

    def prepare(self, image: ImageLike) -> Prepared:
        """The network input for one image."""
        pixels = self.read(image)
        return Prepared(prepare(pixels, self.spec.image), frame(self.spec.image, (pixels.shape[0], pixels.shape[1])))

    def predict(self, image: ImageLike) -> Prediction:
        """Prediction for one image.

        Raises :class:`BadImage` when the image cannot be read, or does not have the size that the engine was built for.
        """
        return self.predict_prepared([self.prepare(image)])[0]

    def predict_batch(self, images: Sequence[ImageLike]) -> list[Prediction]:
        """Predictions for several images: in one run where their sizes are equal, one by one where they differ."""
        prepared = [self.prepare(image) for image in images]
        if len({item.frame for item in prepared}) == 1:
            return self.predict_prepared(prepared)
        return [self.predict_prepared([item])[0] for item in prepared]

    def predict_prepared(self, batch: Sequence[Prepared]) -> list[Prediction]:
        """Predictions for prepared images of one size, in one run."""
        first = batch[0]
        tensor = first.tensor if len(batch) == 1 else np.concatenate([item.tensor for item in batch])
        if self.spec.slide is not None:
            return self.decode({self.signature.outputs[0].name: self._slide(tensor, self.spec.slide)}, first.frame)
        return self.decode(self.session.run(self.feeds(tensor, first.frame)), first.frame)

    def decode(self, outputs: Mapping[str, Array], frame: Frame) -> list[Prediction]:
        """Predictions of a batch from what the session gave; all images have the sizes of ``frame``."""
        if self.signature.output == "labels":
            return [SemanticMap(_as_labels(labels)) for labels in outputs[self.signature.outputs[0].name]]
        return decode(outputs, self.spec, frame)

    def feeds(self, tensor: NDArray[np.float32], frame: Frame) -> dict[str, Array]:
        """What the session takes for a batch of images of these sizes; refuses sizes the engine was not built for."""
        signature = self.signature
        if signature.input_size not in (None, tensor.shape[2:]):
            raise BadImage(
                self._size_sentence(frame.image, (tensor.shape[2], tensor.shape[3]), "network input", signature.input_size)
            )
        if signature.output in ("labels", "instances") and signature.image_size not in (None, frame.image):
            raise BadImage(self._size_sentence(frame.image, frame.image, "image", signature.image_size))
        sizes = {"image_size": frame.image, "content_size": frame.content}
        side_inputs = [spec.name for spec in signature.inputs if spec.name in sizes]
        return {"image": tensor, **{name: np.array(sizes[name], np.int64) for name in side_inputs}}

    def network_feeds(self, image: ImageLike) -> dict[str, Array]:
        """What the network takes for one image: of sliding-window models, the window in the middle."""
        prepared = self.prepare(image)
        return self.feeds(middle_window(prepared.tensor, self.spec.slide), prepared.frame)

    def _size_sentence(self, image: Size, found: Size, what: str, expected: Size | None) -> str:
        assert expected is not None
        return (
            f"an image of {image[0]} x {image[1]} pixels gives a {what} of {found[0]} x {found[1]}; this engine was built for "
            f"{expected[0]} x {expected[1]} (height x width): build one with --size free, or give images of that size"
        )

    def _slide(self, tensor: NDArray[np.float32], slide: Slide) -> NDArray[np.float32]:
        """Average of the windows' logits at the network input's size (mmsegmentation ``slide_inference``)."""
        n, _, height, width = tensor.shape
        total: NDArray[np.float32] | None = None
        count = np.zeros((height, width), np.float32)
        for top, left, bottom, right in windows((height, width), slide):
            crop = np.ascontiguousarray(tensor[:, :, top:bottom, left:right])
            window = (bottom - top, right - left)
            outputs = self.session.run(self.feeds(crop, Frame(window, window, window)))
            logits = np.asarray(outputs[self.signature.outputs[0].name], np.float32)
            if total is None:
                total = np.zeros((n, logits.shape[1], height, width), np.float32)
            for image in range(n):
                total[image, :, top:bottom, left:right] += semantic.resize_logits(logits[image], window)
            count[top:bottom, left:right] += 1
        assert total is not None
        return total / count

    def close(self) -> None:
        """Give the runtime's memory back."""
        self.session.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()


def windows(size: Size, slide: Slide) -> list[tuple[int, int, int, int]]:
    """Windows (top, left, bottom, right; ends exclusive) in the official order: the last ones are moved back to stay whole."""
    spans = []
    for side, crop, stride in zip(size, slide.crop, slide.stride, strict=True):
        grids = max(side - crop + stride - 1, 0) // stride + 1
        ends = [min(index * stride + crop, side) for index in range(grids)]
        spans.append([(max(end - crop, 0), end) for end in ends])
    return [(top, left, bottom, right) for top, bottom in spans[0] for left, right in spans[1]]


def middle_window(tensor: NDArray[np.float32], slide: Slide | None) -> NDArray[np.float32]:
    """A network input (1, channel, height, width) as the network sees one: cut to the window in the middle, if it slides."""
    if slide is None:
        return tensor
    spans = [(max(side - crop, 0) // 2, min(side, crop)) for side, crop in zip(tensor.shape[2:], slide.crop, strict=True)]
    (top, height), (left, width) = spans
    return np.ascontiguousarray(tensor[:, :, top : top + height, left : left + width])


def _as_labels(labels: Array) -> LabelArray:
    return np.ascontiguousarray(labels, np.uint8 if labels.dtype.itemsize == 1 else np.uint16)


class EnginePredictor(Predictor):
    """A predictor over an engine directory."""

    def __init__(self, engine: Engine, session: Session, *, threads: int | None = None) -> None:
        super().__init__(engine.manifest.spec, session, engine.manifest.signature)
        self.engine, self._threads = engine, threads

    def profile(self, image: ImageLike) -> Profile:
        """Where the network's time goes on one image, as the runtime itself measures it; of sliding windows, on one of them."""
        backend = usable_backend(self.engine.manifest.backend)
        return backend.profile(self.engine.network, self.signature, self.network_feeds(image), threads=self._threads)


def load_engine(path: Path | str, *, threads: int | None = None) -> EnginePredictor:
    """Open an engine: check every file, the processor and the runtime's version, then load it.

    ``threads`` None means all cores this process may use.
    Raises :class:`segship.core.errors.BadEngine` and its kinds, and :class:`segship.core.errors.BackendUnavailable`.
    """
    engine = open_engine(path)
    manifest = engine.manifest
    backend = usable_backend(manifest.backend)
    check_backend_version(engine.path, manifest, backend.version())
    return EnginePredictor(engine, backend.load(engine.network, manifest.signature, threads=threads), threads=threads)
