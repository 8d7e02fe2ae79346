"""Instance segmentation: what detections mean, how far two lists of objects agree, and mask AP."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from segship.core.backend import Array
from segship.core.predictions import Instances
from segship.core.spec import Frame, InstanceDecode, ModelSpec
from segship.tasks.average_precision import AveragePrecision
from segship.tasks.matching import agreement, overlaps
from segship.tasks.paste import cut_out, paste

__all__ = ["METRIC", "agreement", "decode", "overlaps", "scorer"]

METRIC = "mask AP"


def decode(outputs: Mapping[str, Array], spec: ModelSpec, frame: Frame) -> list[Instances]:
    """Objects of each image, their masks pasted into its frame."""
    arrays = [np.asarray(outputs[output.name]) for output in spec.outputs]
    assert isinstance(spec.decode, InstanceDecode)
    return [_instances(detections, spec.decode, frame) for detections in zip(*arrays, strict=True)]


def scorer(n_classes: int, ignore: int | None) -> AveragePrecision:
    """A fresh sum for mask AP. Objects have no id that is not judged: regions of crowds say so themselves."""
    return AveragePrecision(n_classes)


def _instances(detections: tuple[Array, ...], decode: InstanceDecode, frame: Frame) -> Instances:
    """One image's boxes, scores, classes, masks and count in its own frame; masks may be pasted already (uint8)."""
    boxes, scores, classes, masks, count = detections
    n, (height, width) = int(count), frame.image
    factor = np.array([width / frame.content[1], height / frame.content[0]] * 2, np.float32)
    scaled = np.clip(boxes[:n].astype(np.float32) * factor, 0, np.array([width, height] * 2, np.float32))
    pasted = masks.dtype == np.uint8
    return Instances(
        size=frame.image,
        boxes=scaled,
        scores=scores[:n].astype(np.float32),
        classes=classes[:n].astype(np.int64),
        masks=cut_out(masks[:n].astype(np.bool_)) if pasted else paste(masks[:n].astype(np.float32), scaled, frame.image, decode),
    )
