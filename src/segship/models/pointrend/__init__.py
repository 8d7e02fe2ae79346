"""PointRend for semantic segmentation: detectron2 projects/PointRend, any ResNet-FPN whose shapes the file tells."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import isfinite
from typing import Annotated, Any, Literal

import msgspec
from torch import nn

from segship.core.errors import BadCheckpoint
from segship.core.spec import (
    Assumption,
    CheckpointRef,
    ImageInput,
    ModelSpec,
    Normalise,
    Resize,
    SemanticDecode,
    ShortestEdgeResize,
    TensorSpec,
)
from segship.models.checkpoint import Checkpoint, Tensors
from segship.models.family import classes_or_assumed
from segship.models.keys import count, has_all
from segship.models.parts.layers import MAX_GROUPS
from segship.models.parts.resnet import ResNetShape, resnet_shape
from segship.models.pointrend.network import PointRend
from segship.models.pointrend.published import CITYSCAPES, PUBLISHED, SOURCE

NAME = "pointrend"

_COARSE, _POINT = "sem_seg_head.coarse_sem_seg_head", "sem_seg_head.point_head"
_PIXELS = {"mean": "pixel_mean", "std": "pixel_std"}
_SIDES = (("height/4", "width/4"), ("height/2", "width/2"), ("height", "width"))
"""Of the logits, by subdivision steps."""

Positive = Annotated[float, msgspec.Meta(gt=0)]
Steps = Annotated[int, msgspec.Meta(ge=0, le=2)]
Points = Annotated[int, msgspec.Meta(ge=1)]


class Facts(msgspec.Struct, frozen=True):
    """What the file does not hold; mean and std on 0..255 in the order of ``channels``.

    ``subdivision_steps``, ``subdivision_points``: detectron2's ``MODEL.POINT_HEAD.SUBDIVISION_STEPS`` and
    ``SUBDIVISION_NUM_POINTS``. ``resize``: ``INPUT.MIN_SIZE_TEST`` and ``MAX_SIZE_TEST`` as a shortest-edge resize.
    ``stride_in_1x1``: ``MODEL.RESNETS.STRIDE_IN_1X1``. ``channels``: ``INPUT.FORMAT``.
    """

    classes: tuple[str, ...] | None = None
    colors: tuple[tuple[int, int, int], ...] | None = None
    subdivision_steps: Steps | None = None
    subdivision_points: Points | None = None
    stride_in_1x1: bool | None = None
    resize: Resize | None = None
    channels: Literal["rgb", "bgr"] | None = None
    mean: tuple[float, float, float] | None = None
    std: tuple[Positive, Positive, Positive] | None = None


def claims(checkpoint: Checkpoint) -> bool:
    """Whether the keys are those of detectron2's ``PointRendSemSegHead``."""
    return has_all(checkpoint.tensors, f"{_COARSE}.predictor.weight", f"{_POINT}.predictor.weight")


def build(hyperparameters: Mapping[str, Any]) -> nn.Module:
    """The network without weights."""
    shape = ResNetShape.from_facts(hyperparameters)
    return PointRend(shape, **{name: value for name, value in hyperparameters.items() if name not in shape.as_facts()})


def read(checkpoint: Checkpoint, facts: Facts) -> tuple[ModelSpec, Tensors]:
    """Spec and tensors of a detectron2 PointRend checkpoint."""
    shape = resnet_shape(checkpoint.tensors, "backbone.bottom_up.")
    hyperparameters = {**shape.as_facts(), **_head_shapes(checkpoint)}
    n_classes = hyperparameters["n_classes"]
    known = _Known(facts, checkpoint, [])
    # the 1x1 and 3x3 convolutions are a bottleneck's: basic blocks have the stride where all code has it
    hyperparameters["stride_in_1x1"] = shape.bottleneck and known.value("stride_in_1x1")
    hyperparameters["subdivision_steps"] = steps = known.value("subdivision_steps")
    hyperparameters["subdivision_points"] = known.value("subdivision_points")
    spec = ModelSpec(
        family=NAME,
        variant=f"pointrend-r{shape.depth}-{'city' if n_classes == len(CITYSCAPES) else f'c{n_classes}'}",
        task="semantic",
        hyperparameters=hyperparameters,
        image=known.image_input(),
        outputs=(TensorSpec("logits", "float32", ("batch", n_classes, *_SIDES[steps])),),
        decode=SemanticDecode(resize_to=("content", "image") if steps == 2 else ("input", "content", "image")),
        classes=known.classes(n_classes),
        colors=facts.colors,
        checkpoint=CheckpointRef(checkpoint.path.name, checkpoint.sha256, f"detectron2 {checkpoint.layout}"),
        assumed=tuple(known.assumed),
    )
    return spec, {key: value for key, value in checkpoint.tensors.items() if key not in _PIXELS.values()}


def _head_shapes(checkpoint: Checkpoint) -> dict[str, Any]:
    """Hyper-parameters of FPN, coarse head and point head."""
    fpn_channels = checkpoint.shape("backbone.fpn_lateral2.weight", 4)[0]
    n_classes, head_channels = checkpoint.shape(f"{_COARSE}.predictor.weight", 4)[:2]
    if n_classes < 2:
        raise BadCheckpoint(f"{checkpoint.path} has one class: PointRend compares the best two, give a checkpoint with more")
    n_fc = max(0, count(checkpoint.tensors, r"sem_seg_head\.point_head\.fc(\d+)\.") - 1)  # counted from fc1
    layers = [checkpoint.shape(f"{_POINT}.fc{index}.weight", 3) for index in range(1, n_fc + 1)]
    layers.append(checkpoint.shape(f"{_POINT}.predictor.weight", 3))
    if layers[0][1] != fpn_channels + n_classes:
        raise BadCheckpoint(
            f"the point head of {checkpoint.path} takes {layers[0][1]} channels, expected the {fpn_channels} of p2 and "
            f"{n_classes} coarse logits: give a checkpoint with POINT_HEAD.IN_FEATURES p2"
        )
    if head_channels > MAX_GROUPS and head_channels % MAX_GROUPS:
        raise BadCheckpoint(
            f"the coarse head of {checkpoint.path} has {head_channels} channels, which group normalisation cannot split into "
            f"{MAX_GROUPS} groups: give an unmodified checkpoint"
        )
    return {
        "n_classes": n_classes,
        "fpn_channels": fpn_channels,
        "head_channels": head_channels,
        "fc": [layer[0] for layer in layers[:-1]],
        "coarse_pred_each_layer": n_fc > 0 and layers[-1][1] == layers[-2][0] + n_classes,
    }


@dataclass(frozen=True)
class _Known:
    """What is stated, else in the file, else published; the last is noted in ``assumed``."""

    facts: Facts
    checkpoint: Checkpoint
    assumed: list[Assumption]

    def value(self, fact: str) -> Any:
        """One fact of :data:`PUBLISHED`."""
        stated = getattr(self.facts, fact)
        if stated is None and _PIXELS.get(fact) in self.checkpoint.tensors:
            stated = self._pixels(fact)
        if stated is None:
            self.assumed.append(Assumption(fact, _text(PUBLISHED[fact]), SOURCE))
        return PUBLISHED[fact] if stated is None else stated

    def _pixels(self, fact: str) -> tuple[float, ...]:
        """``pixel_mean`` or ``pixel_std``, which detectron2 saved until August 2020."""
        values = tuple(float(value) for value in self.checkpoint.tensors[_PIXELS[fact]].flatten())
        fits = len(values) == 3 and all(isfinite(value) and (fact == "mean" or value > 0) for value in values)
        if not fits:
            raise BadCheckpoint(f"{_PIXELS[fact]} of {self.checkpoint.path} is {values[:4]}: state {fact} as three numbers")
        return values

    def image_input(self) -> ImageInput:
        """How images become the network's input."""
        return ImageInput(
            channels=self.value("channels"),
            resize=self.value("resize"),
            normalise=Normalise(1.0, self.value("mean"), self.value("std")),
            exif_orientation=True,  # detectron2 detection_utils.read_image: _apply_exif_orientation
            divisor=32,  # FPN.size_divisibility: the stride of the coarsest level that the head uses
        )

    def classes(self, n_classes: int) -> tuple[str, ...]:
        """Class names; 19 classes are taken for those of Cityscapes."""
        names = self.facts.classes
        if names is None and n_classes == len(CITYSCAPES):
            self.assumed.append(Assumption("classes", "the 19 of Cityscapes", SOURCE))
            names = CITYSCAPES
        return classes_or_assumed(names, n_classes, self.assumed)


def _text(value: Any) -> str:
    return f"shortest edge {value.short}, at most {value.long}" if isinstance(value, ShortestEdgeResize) else str(value)
