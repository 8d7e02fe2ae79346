"""The three levels and the invariance tests, over whole predictors: image in, verdict out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from segship.core.backend import Array, Session
from segship.core.errors import BadArgument
from segship.core.image import ImageArray
from segship.core.predictions import Prediction
from segship.core.spec import RAW_OUTPUT, Frame, ModelSpec, SemanticDecode, Signature
from segship.evidence.invariance import Apart, check_invariance
from segship.evidence.records import Limit, Verdict
from segship.evidence.tensors import Logits, compare_labels, compare_logits, compare_objects
from segship.tasks import task_of
from segship.tasks.semantic import decide, in_frame

Named = tuple[str, ImageArray]
"""An image's name and its pixels (height, width, 3) uint8 RGB."""


class PreparedImage(Protocol):
    """One image ready for the network."""

    @property
    def tensor(self) -> NDArray[np.float32]:
        """(1, channel, height, width)."""
        ...

    @property
    def frame(self) -> Frame:
        """The image's sizes on the way."""
        ...


class Predictor(Protocol):
    """What evidence needs of a model or an engine that answers images."""

    @property
    def spec(self) -> ModelSpec:
        """What the model is."""
        ...

    @property
    def session(self) -> Session:
        """The open engine."""
        ...

    @property
    def signature(self) -> Signature:
        """What the engine takes and gives."""
        ...

    def prepare(self, image: ImageArray, /) -> PreparedImage:
        """The network input for one image."""
        ...

    def feeds(self, tensor: NDArray[np.float32], frame: Frame, /) -> dict[str, Array]:
        """What the session takes for a batch of images of these sizes."""
        ...

    def decode(self, outputs: Mapping[str, Array], frame: Frame, /) -> list[Prediction]:
        """Predictions of a batch from what the session gave."""
        ...


def verify_tensors(
    reference: Predictor,
    candidate: Predictor,
    images: Sequence[Named],
    *,
    tie_margin: float,
    limits: Sequence[Limit],
    title: str,
    reference_name: str,
    candidate_name: str,
) -> Verdict:
    """Judge the candidate's network output beside the reference's; of sliding-window models, the first window's.

    Each side prepares the image by itself, so a wrong preparation is a wrong output. The images are used one by one.
    Dense outputs are compared value by value. Lists of objects have no values to compare (rounding may swap two), so
    there the predictions are compared: ``disagreement``, 100 minus the task's agreement, of the worst image.
    """
    if reference.signature.output != RAW_OUTPUT[reference.spec.task]:
        raise BadArgument(f"the reference gives {reference.signature.output}: compare with the PyTorch model")
    names = [name for name, _ in images]
    parties = {"title": title, "reference": reference_name, "candidate": candidate_name}
    if reference.signature.output != "logits":
        pairs = [(_prediction(reference, image), _prediction(candidate, image)) for _, image in images]
        return compare_objects(pairs, task_of(reference.spec), limits=limits, names=names, **parties)
    threshold = _threshold(reference.spec)
    found = (_outputs(candidate, image)[candidate.signature.outputs[0].name][0] for _, image in images)
    if candidate.signature.output == "labels":
        expected = (_logits_in_frame(reference, image) for _, image in images)
        labels = (each.astype(np.uint16 if each.dtype.itemsize > 1 else np.uint8) for each in found)
        return compare_labels(expected, labels, tie_margin=tie_margin, threshold=threshold, limits=limits, names=names, **parties)
    logits = (each.astype(np.float32) for each in found)
    wanted = (_outputs(reference, image)[reference.signature.outputs[0].name][0].astype(np.float32) for _, image in images)
    return compare_logits(wanted, logits, tie_margin=tie_margin, threshold=threshold, limits=limits, names=names, **parties)


def verify_invariance(
    candidate: Predictor,
    images: Sequence[Named],
    *,
    limits: Sequence[Limit],
    title: str,
    candidate_name: str,
    reference: Predictor | None = None,
) -> Verdict:
    """Judge whether results depend on the batch, on repetition, or (where sizes are free) on the shape.

    Images of several sizes are cropped to the smallest. ``reference`` gives the expected result at the other shape.
    """
    pixels = _cropped([image for _, image in images], candidate.signature)
    other = _other_shape(pixels[0], candidate) if candidate.signature.input_size is None else None
    return check_invariance(
        candidate.session,
        [_network_feeds(candidate, image) for image in pixels],
        limits=limits,
        title=title,
        engine=candidate_name,
        other_feeds=None if other is None else _network_feeds(candidate, other),
        other_expected=None if other is None or reference is None else _expected(reference, candidate, other),
        apart=_apart(candidate, pixels[0]),
        other_apart=None if other is None else _apart(candidate, other),
    )


def _apart(predictor: Predictor, image: ImageArray) -> Apart | None:
    """How far two outputs for images of this one's size are apart, where that is not a matter of values: 1 minus agreement."""
    if predictor.signature.output in ("logits", "labels"):
        return None
    sizes, task = predictor.prepare(image).frame, task_of(predictor.spec)

    def apart(first: Mapping[str, Array], second: Mapping[str, Array]) -> float:
        (one,), (other,) = predictor.decode(first, sizes), predictor.decode(second, sizes)
        return 1 - task.agreement(one, other)

    return apart


def _network_feeds(predictor: Predictor, image: ImageArray) -> dict[str, Array]:
    """Feeds of the whole image, or of the first window of a sliding-window model."""
    prepared, slide = predictor.prepare(image), predictor.spec.slide
    if slide is None:
        return predictor.feeds(prepared.tensor, prepared.frame)
    window = np.ascontiguousarray(prepared.tensor[:, :, : slide.crop[0], : slide.crop[1]])
    size = (window.shape[2], window.shape[3])
    return predictor.feeds(window, Frame(size, size, size))


def _outputs(predictor: Predictor, image: ImageArray) -> dict[str, Array]:
    """What the session gives for one image, batch axis included."""
    return predictor.session.run(_network_feeds(predictor, image))


def _prediction(predictor: Predictor, image: ImageArray) -> Prediction:
    (prediction,) = predictor.decode(_outputs(predictor, image), predictor.prepare(image).frame)
    return prediction


def _threshold(spec: ModelSpec) -> float | None:
    return spec.decode.threshold if isinstance(spec.decode, SemanticDecode) else None


def _logits_in_frame(predictor: Predictor, image: ImageArray) -> Logits:
    """Logits (class, height, width) in the image's frame, after the official resizes."""
    assert isinstance(predictor.spec.decode, SemanticDecode)
    logits: Logits = _outputs(predictor, image)[predictor.signature.outputs[0].name][0].astype(np.float32)
    return in_frame(logits, predictor.spec.decode, predictor.prepare(image).frame)


def _cropped(images: Sequence[ImageArray], signature: Signature) -> list[ImageArray]:
    """Images of one size. A graph that gives raw outputs of a fixed input size does not see the images' own size."""
    if signature.input_size is not None and signature.output != "labels":
        return list(images)
    h, w = min(image.shape[0] for image in images), min(image.shape[1] for image in images)
    return [np.ascontiguousarray(image[:h, :w]) for image in images]


def _other_shape(image: ImageArray, predictor: Predictor) -> ImageArray | None:
    """A part of the image with another shape and aspect ratio, whose network input has another shape too; None if none has."""
    h, w = image.shape[:2]
    part = np.ascontiguousarray(image[: max(3 * h // 4, 1), : max(9 * w // 16, 1)])
    whole, smaller = (_network_feeds(predictor, each)["image"].shape for each in (image, part))
    return None if whole == smaller else part


def _expected(reference: Predictor, candidate: Predictor, image: ImageArray) -> dict[str, Array]:
    """What the reference gives for ``image`` in the form of the candidate's output."""
    if candidate.signature.output == "labels":
        labels = decide(_logits_in_frame(reference, image), _threshold(reference.spec))
        return {candidate.signature.outputs[0].name: labels[None]}
    return _outputs(reference, image)
