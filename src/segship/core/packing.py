"""A prediction as few bytes, and back: for keeping many in memory, and as evidence on disk. Holds arrays only, no code."""

from __future__ import annotations

import io
import zipfile
from typing import Any

import numpy as np
from numpy.typing import NDArray

from segship.core.predictions import Instances, MaskCrop, PanopticMap, Prediction, Segment, SemanticMap

Arrays = dict[str, NDArray[Any]]


def pack(prediction: Prediction) -> bytes:
    """The prediction as a compressed ``.npz``."""
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **_arrays(prediction))  # type: ignore[arg-type]  # numpy's stub takes the names for options
    return buffer.getvalue()


def unpack(content: bytes) -> Prediction:
    """What :func:`pack` was given; raises :class:`ValueError` for bytes that it did not make."""
    try:
        with np.load(io.BytesIO(content), allow_pickle=False) as stored:
            return _prediction(dict(stored))
    except (OSError, KeyError, EOFError, IndexError, TypeError, zipfile.BadZipFile) as error:
        raise ValueError(f"not a packed prediction ({error})") from error


def _arrays(prediction: Prediction) -> Arrays:
    match prediction:
        case SemanticMap():
            return {"labels": prediction.labels}
        case PanopticMap():
            score = [float("nan") if each.score is None else each.score for each in prediction.segments]
            facts = [(each.id, each.class_id, each.is_thing, each.crowd) for each in prediction.segments]
            return {
                "ids": prediction.ids,
                "segments": np.array(facts, np.int64).reshape(-1, 4),
                "segment_scores": np.array(score),
            }
        case Instances():
            masks = prediction.masks
            bits = [np.packbits(mask.pixels) for mask in masks]
            found: Arrays = {
                "size": np.array(prediction.size),
                "boxes": prediction.boxes,
                "scores": prediction.scores,
                "classes": prediction.classes,
                "places": np.array([(mask.top, mask.left, *mask.pixels.shape) for mask in masks], np.int64).reshape(-1, 4),
                "bits": np.concatenate([np.zeros(0, np.uint8), *bits]),
            }
            return found if prediction.crowd is None else {**found, "crowd": prediction.crowd}


def _prediction(arrays: Arrays) -> Prediction:
    if "labels" in arrays:
        return SemanticMap(arrays["labels"])
    if "ids" in arrays:
        pairs = zip(arrays["segments"].tolist(), arrays["segment_scores"].tolist(), strict=True)
        segments = tuple(
            Segment(id_, class_id, bool(thing), None if np.isnan(score) else score, bool(crowd))
            for (id_, class_id, thing, crowd), score in pairs
        )
        return PanopticMap(arrays["ids"], segments)
    height, width = arrays["size"].tolist()
    return Instances(
        (height, width),
        arrays["boxes"],
        arrays["scores"],
        arrays["classes"],
        _masks(arrays["places"], arrays["bits"]),
        arrays.get("crowd"),
    )


def _masks(places: NDArray[Any], bits: NDArray[Any]) -> tuple[MaskCrop, ...]:
    masks, start = [], 0
    for top, left, height, width in places.tolist():
        end = start + -(-height * width // 8)
        pixels = np.unpackbits(bits[start:end], count=height * width).reshape(height, width).astype(bool)
        masks.append(MaskCrop(top, left, pixels))
        start = end
    return tuple(masks)
