"""What ``predict`` writes: label pictures, shares of classes, COCO results. Serving path: numpy and Pillow only."""

from __future__ import annotations

import io
from collections.abc import Sequence
from functools import singledispatch
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from segship.core.predictions import Instances, LabelArray, PanopticMap, Prediction, SemanticMap
from segship.core.rle import compress, runs_of
from segship.core.spec import ModelSpec, SemanticDecode


@singledispatch
def picture_of(prediction: Prediction, spec: ModelSpec) -> NDArray[Any] | None:
    """The prediction as the pixels of one lossless picture; None where one picture cannot hold it."""
    return None


@picture_of.register
def _(prediction: SemanticMap, spec: ModelSpec) -> NDArray[Any] | None:
    return label_image(prediction, spec.decode) if isinstance(spec.decode, SemanticDecode) else prediction.labels


@picture_of.register
def _(prediction: PanopticMap, spec: ModelSpec) -> NDArray[Any] | None:
    return panoptic_image(prediction)


@singledispatch
def facts_of(prediction: Prediction, spec: ModelSpec, name: str) -> dict[str, Any]:
    """What the prediction holds, as JSON of the task's usual form; ``name`` is the image's."""
    raise TypeError(f"{type(prediction).__name__} has no written form")


@facts_of.register
def _(prediction: SemanticMap, spec: ModelSpec, name: str) -> dict[str, Any]:
    return {"classes": class_shares(prediction, spec.classes)}


@facts_of.register
def _(prediction: Instances, spec: ModelSpec, name: str) -> dict[str, Any]:
    objects = coco_results(prediction, name, spec.category_ids)
    names = [spec.classes[class_id] for class_id in prediction.classes]
    return {"objects": [{"class": class_name, **each} for class_name, each in zip(names, objects, strict=True)]}


@facts_of.register
def _(prediction: PanopticMap, spec: ModelSpec, name: str) -> dict[str, Any]:
    segments = segments_info(prediction, spec.category_ids)
    names = [spec.classes[segment.class_id] for segment in prediction.segments]
    return {"segments": [{"class": class_name, **each} for class_name, each in zip(names, segments, strict=True)]}


def label_image(prediction: SemanticMap, decode: SemanticDecode) -> LabelArray:
    """What to write for each pixel: the class id, or the value or colour that the model's own code writes for it.

    (height, width) uint8 or uint16, or (height, width, 3) uint8 where ``decode.pixel_values`` are colours.
    """
    values = decode.pixel_values
    if values is None or values == (0, 1):  # milesial writes a 1-bit image for [0, 1]; ids 0 and 1 say the same
        return prediction.labels
    table = np.array(values, np.uint16)
    return table[prediction.labels].astype(np.uint8 if table.max() < 256 else np.uint16)


def class_shares(prediction: SemanticMap, classes: Sequence[str]) -> dict[str, float]:
    """Share of the picture of each class that occurs, largest first."""
    counts = np.bincount(prediction.labels.ravel(), minlength=len(classes)) / prediction.labels.size
    order = np.argsort(-counts, kind="stable")
    return {classes[index]: round(float(counts[index]), 6) for index in order if counts[index] > 0}


def picture_bytes(pixels: LabelArray, form: Literal["PNG", "JPEG"]) -> bytes:
    """An encoded picture; PNG is lossless, JPEG of quality 92."""
    buffer = io.BytesIO()
    options = {"quality": 92} if form == "JPEG" else {"compress_level": 3}
    Image.fromarray(pixels).save(buffer, form, **options)
    return buffer.getvalue()


def coco_results(prediction: Instances, image_id: int | str, category_ids: Sequence[int] | None = None) -> list[dict[str, Any]]:
    """Objects as COCO's result files list them: compressed RLE, box as x, y, width, height, score.

    ``category_ids``: the file's id of each class; without, the class id itself. Numbers keep their full precision, so that
    an evaluation of the file is an evaluation of the prediction.
    """
    corners = prediction.boxes.astype(np.float64).tolist()
    return [
        {
            "image_id": image_id,
            "category_id": int(class_id) if category_ids is None else category_ids[class_id],
            "bbox": [x0, y0, x1 - x0, y1 - y0],
            "score": float(score),
            "segmentation": {"size": list(prediction.size), "counts": compress(runs_of(mask, prediction.size))},
        }
        for (x0, y0, x1, y1), score, class_id, mask in zip(
            corners, prediction.scores, prediction.classes, prediction.masks, strict=True
        )
    ]


def panoptic_image(prediction: PanopticMap) -> NDArray[np.uint8]:
    """The segment ids as COCO's panoptic PNG holds them, (height, width, 3): id = R + 256 G + 65536 B; 0 is void."""
    return np.stack([(prediction.ids >> shift & 255).astype(np.uint8) for shift in (0, 8, 16)], axis=-1)


def segments_info(prediction: PanopticMap, category_ids: Sequence[int] | None = None) -> list[dict[str, Any]]:
    """What the ids of :func:`panoptic_image` mean, as COCO's panoptic JSON lists them, with each segment's pixels."""
    ids, areas = np.unique(prediction.ids, return_counts=True)
    area_of = dict(zip(ids.tolist(), areas.tolist(), strict=True))
    return [
        {
            "id": segment.id,
            "category_id": segment.class_id if category_ids is None else category_ids[segment.class_id],
            "isthing": int(segment.is_thing),
            "iscrowd": int(segment.crowd),
            "area": area_of[segment.id],
            **({} if segment.score is None else {"score": segment.score}),
        }
        for segment in prediction.segments
    ]
