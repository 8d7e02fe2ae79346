"""Mask R-CNN with FPN on any ResNet: the layouts of mmdetection 2.x, torchvision and detectron2, told apart by their keys."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

import msgspec
from torch import nn

from segship.core.errors import BadArgument, BadCheckpoint
from segship.core.spec import Assumption, CheckpointRef, ImageInput, InstanceDecode, ModelSpec, Normalise, Resize, TensorSpec
from segship.models.checkpoint import Checkpoint, Tensors, shape_of
from segship.models.family import classes_or_assumed
from segship.models.keys import count, has_all
from segship.models.maskrcnn import detectron2, mmdetection, torchvision
from segship.models.maskrcnn.coco import CATEGORY_IDS, CLASSES, COCO_BY_LABEL, TORCHVISION_IDS
from segship.models.maskrcnn.layout import Layout
from segship.models.maskrcnn.network import MaskRCNN
from segship.models.parts.resnet import resnet_shape

NAME = "maskrcnn"
LAYOUTS = (mmdetection.LAYOUT, torchvision.LAYOUT, detectron2.LAYOUT)

Positive = Annotated[float, msgspec.Meta(gt=0)]
Share = Annotated[float, msgspec.Meta(gt=0, lt=1)]
Number = Annotated[int, msgspec.Meta(ge=1)]
Four = tuple[Positive, Positive, Positive, Positive]


class Facts(msgspec.Struct, frozen=True):
    """What the file does not hold; the published configuration's values are the defaults.

    ``anchor_sizes``: square roots of the anchors' areas, pixels, level by level; ``rpn_per_level``, ``rpn_total``:
    proposals before and after non-maximum suppression; ``rpn_min_size``, ``box_min_size``: pixels that a side must exceed;
    ``rpn_stds``, ``box_stds``: what deltas are multiplied with; ``detections``: at most so many for an image;
    ``mean`` and ``std`` in the network's channel order, in the units of the layout (0..1 for torchvision, else 0..255);
    ``mask_size``: side of the RoIs that masks are made from, half that of the masks; ``mask_threshold``: probability from
    which on a pixel belongs to the object.
    """

    classes: tuple[str, ...] | None = None
    colors: tuple[tuple[int, int, int], ...] | None = None
    category_ids: tuple[int, ...] | None = None
    resize: Resize | None = None
    divisor: Number | None = None
    channels: Literal["rgb", "bgr"] | None = None
    mean: tuple[float, float, float] | None = None
    std: tuple[Positive, Positive, Positive] | None = None
    mask_threshold: Share | None = None
    stride_in_1x1: bool | None = None
    norm_eps: Annotated[float, msgspec.Meta(ge=0)] | None = None
    anchor_sizes: tuple[Positive, ...] | None = None
    anchor_ratios: tuple[Positive, ...] | None = None
    anchor_offset: float | None = None
    rpn_per_level: Number | None = None
    rpn_total: Number | None = None
    rpn_nms: Share | None = None
    rpn_min_size: float | None = None
    rpn_stds: Four | None = None
    mask_size: Number | None = None
    sampling_ratio: Annotated[int, msgspec.Meta(ge=0)] | None = None
    box_stds: Four | None = None
    box_min_size: float | None = None
    score_threshold: Annotated[float, msgspec.Meta(ge=0, lt=1)] | None = None
    nms: Share | None = None
    detections: Number | None = None


def claims(checkpoint: Checkpoint) -> bool:
    """Whether the keys are a Mask R-CNN's with FPN, in one of the known layouts."""
    keys = checkpoint.tensors
    masks = (
        "roi_head.mask_head.conv_logits.weight",
        "roi_heads.mask_predictor.mask_fcn_logits.weight",
        "roi_heads.mask_head.predictor.weight",
    )
    return any(has_all(keys, layout.marker, mask) for layout, mask in zip(LAYOUTS, masks, strict=True))


def build(hyperparameters: Mapping[str, Any]) -> nn.Module:
    """The network without weights."""
    return MaskRCNN(**hyperparameters)


def read(checkpoint: Checkpoint, facts: Facts) -> tuple[ModelSpec, Tensors]:
    """Spec and tensors of a Mask R-CNN checkpoint of any layout."""
    layout = next(layout for layout in LAYOUTS if layout.marker in checkpoint.tensors)
    tensors = layout.to_ours(checkpoint.tensors)
    stated = {name: value for name, value in msgspec.structs.asdict(facts).items() if value is not None}
    hyperparameters = {**_measured(tensors), **_plain({name: stated.get(name, value) for name, value in layout.rules.items()})}
    _check_anchors(hyperparameters, shape_of(tensors, "proposal_generator.rpn_head.objectness_logits.weight", 4)[0])
    assumed = _assumed(layout, stated)
    n_classes = hyperparameters["n_classes"]
    classes, ids = _classes(checkpoint, layout, facts, n_classes, assumed)
    spec = ModelSpec(
        family=NAME,
        variant=f"mask-rcnn-r{resnet_shape(tensors, 'backbone.bottom_up.').depth}-fpn-c{n_classes}",
        task="instance",
        hyperparameters=hyperparameters,
        image=_image(layout, facts),
        outputs=_outputs(hyperparameters),
        decode=InstanceDecode(paste=layout.paste, threshold=facts.mask_threshold or 0.5),
        takes_content_size=True,
        classes=classes,
        colors=facts.colors,
        category_ids=ids,
        checkpoint=CheckpointRef(checkpoint.path.name, checkpoint.sha256, f"{layout.name} {checkpoint.layout}"),
        assumed=tuple(assumed),
    )
    return spec, tensors


def _measured(tensors: Tensors) -> dict[str, Any]:
    """The hyper-parameters that shapes tell."""
    rois = "roi_heads"
    channels = shape_of(tensors, "backbone.fpn_output2.weight", 4)[0]
    n_fc = count(tensors, rf"{rois}\.box_head\.fc(\d+)\.") - 1
    n_conv = count(tensors, rf"{rois}\.mask_head\.mask_fcn(\d+)\.") - 1
    mask_layers = [*(f"mask_fcn{number}" for number in range(1, n_conv + 1)), "deconv"]
    if n_fc < 1:
        raise BadCheckpoint("the checkpoint lacks the box head's linear layers: only heads of linear layers are known")
    inputs = shape_of(tensors, f"{rois}.box_head.fc1.weight", 2)[1]
    n_outputs, n_deltas = (shape_of(tensors, f"{rois}.box_predictor.{name}.bias", 1)[0] for name in ("cls_score", "bbox_pred"))
    if n_deltas != 4 * (n_outputs - 1):
        raise BadCheckpoint(f"the box head gives {n_deltas} deltas for {n_outputs - 1} classes, expected 4 for each class")
    return {
        **resnet_shape(tensors, "backbone.bottom_up.").as_facts(),
        "channels": channels,
        "rpn_width": shape_of(tensors, "proposal_generator.rpn_head.conv.weight", 4)[0],
        "n_classes": n_outputs - 1,
        "box_size": round((inputs / channels) ** 0.5),
        "box_widths": [shape_of(tensors, f"{rois}.box_head.fc{number}.weight", 2)[0] for number in range(1, n_fc + 1)],
        "mask_widths": [shape_of(tensors, f"{rois}.mask_head.{name}.bias", 1)[0] for name in mask_layers],
    }


def _plain(rules: Mapping[str, Any]) -> dict[str, Any]:
    return {name: list(value) if isinstance(value, tuple) else value for name, value in rules.items()}


def _check_anchors(hyperparameters: Mapping[str, Any], per_cell: int) -> None:
    n_sizes, n_ratios = len(hyperparameters["anchor_sizes"]), len(hyperparameters["anchor_ratios"])
    if n_sizes % 5 or n_sizes // 5 * n_ratios != per_cell:
        raise BadArgument(
            f"the checkpoint has {per_cell} anchors for each cell of 5 levels; {n_sizes} anchor_sizes and {n_ratios} "
            f"anchor_ratios make {n_sizes / 5 * n_ratios:g}: state both as the model was trained"
        )


def _assumed(layout: Layout, stated: Mapping[str, Any]) -> list[Assumption]:
    norm = layout.normalise
    image = {"resize": layout.resize, "divisor": 32, "channels": layout.channels, "mean": norm.mean, "std": norm.std}
    facts = {**layout.rules, **image, "mask_threshold": 0.5}
    return [Assumption(name, str(value), layout.source) for name, value in facts.items() if name not in stated]


def _image(layout: Layout, facts: Facts) -> ImageInput:
    norm = layout.normalise
    return ImageInput(
        channels=facts.channels or layout.channels,
        resize=facts.resize if facts.resize is not None else layout.resize,
        normalise=Normalise(norm.scale, facts.mean or norm.mean, facts.std or norm.std),
        exif_orientation=layout.exif_orientation,
        divisor=facts.divisor or 32,
    )


def _outputs(hyperparameters: Mapping[str, Any]) -> tuple[TensorSpec, ...]:
    n, side = hyperparameters["detections"], 2 * hyperparameters["mask_size"]
    return (
        TensorSpec("boxes", "float32", ("batch", n, 4)),
        TensorSpec("scores", "float32", ("batch", n)),
        TensorSpec("classes", "int64", ("batch", n)),
        TensorSpec("masks", "float32", ("batch", n, side, side)),
        TensorSpec("count", "int64", ("batch",)),
    )


def _classes(
    checkpoint: Checkpoint, layout: Layout, facts: Facts, n_classes: int, assumed: list[Assumption]
) -> tuple[tuple[str, ...], tuple[int, ...] | None]:
    """Names and category ids: stated, from the file, or COCO's where the number of classes is COCO's."""
    in_file = checkpoint.meta.get("CLASSES")
    usable = isinstance(in_file, list | tuple) and len(in_file) == n_classes
    names = facts.classes or (tuple(map(str, in_file)) if usable and in_file else None)
    every_label = layout.name == "torchvision" and n_classes == len(TORCHVISION_IDS)
    coco = COCO_BY_LABEL if every_label else CLASSES
    if n_classes == len(coco) and names in (None, coco):
        if names is None:
            assumed.append(Assumption("classes", "COCO", f"the checkpoint holds no class names, and {n_classes} are COCO's"))
        return coco, facts.category_ids or (TORCHVISION_IDS if every_label else CATEGORY_IDS)
    return classes_or_assumed(names, n_classes, assumed), facts.category_ids
