"""Panoptic FCN as in dvlab-research/PanopticFCN (https://github.com/dvlab-research/PanopticFCN, revision f4141c3).

Every published configuration, any number of classes, any channel widths, heads with and without deformable convolutions.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec
from torch import nn

from segship.core.errors import BadArgument
from segship.core.spec import (
    Assumption,
    CheckpointRef,
    ImageInput,
    ModelSpec,
    Normalise,
    PanopticDecode,
    ShortestEdgeResize,
    TensorSpec,
)
from segship.models.checkpoint import Checkpoint, Tensors
from segship.models.family import classes_or_assumed
from segship.models.keys import has_all
from segship.models.panopticfcn.configs import Rules, Share, rules_of
from segship.models.panopticfcn.layout import architecture, renamed
from segship.models.panopticfcn.network import PanopticFCN
from segship.models.parts import coco
from segship.models.parts.resnet import ResNetShape

NAME = "panopticfcn"

_MEAN = (123.675, 116.28, 103.53)
"""PIXEL_MEAN of every configuration: RGB means, subtracted from B, G, R in this order, because INPUT.FORMAT stays BGR."""


class Facts(msgspec.Struct, frozen=True):
    """What the file does not hold. ``config``: a published configuration (``R50-400-3x-FAST``); the other rules are those of
    :class:`segship.models.panopticfcn.configs.Rules` and beat it."""

    config: str | None = None
    shortest_side: int | None = None
    longest_side: int | None = None
    center_threshold: Share | None = None
    region_threshold: Share | None = None
    top_num: int | None = None
    mask_threshold: Share | None = None
    similarity: Share | None = None
    class_specific: bool | None = None
    score_threshold: Share | None = None
    overlap: Share | None = None
    stuff_area: int | None = None
    least_score: Share | None = None
    center_pools: tuple[int, int, int, int, int] | None = None
    stride_in_1x1: bool | None = None
    mean: tuple[float, float, float] | None = None
    std: tuple[float, float, float] | None = None
    classes: tuple[str, ...] | None = None
    colors: tuple[tuple[int, int, int], ...] | None = None
    category_ids: tuple[int, ...] | None = None


def claims(checkpoint: Checkpoint) -> bool:
    """Whether the keys are dvlab-research/PanopticFCN's."""
    return has_all(
        checkpoint.tensors,
        "backbone.fpn_lateral2.weight",
        "position_head.out_inst.weight",
        "kernel_head.out_conv.weight",
        "thing_generator.embed_extractor.weight",
    )


def build(hyperparameters: Mapping[str, Any]) -> nn.Module:
    """The network without weights."""
    return PanopticFCN(hyperparameters)


def _name(config: str, hyperparameters: Mapping[str, Any]) -> str:
    """The published configuration, with the network's own depth in it."""
    return config.lower().replace("r50", f"r{ResNetShape.from_facts(hyperparameters).depth}")


def read(checkpoint: Checkpoint, facts: Facts) -> tuple[ModelSpec, Tensors]:
    """Spec and tensors of an official checkpoint."""
    assumed: list[Assumption] = []
    shape = architecture(checkpoint)
    stated = {name: value for name in Rules.__struct_fields__ if (value := getattr(facts, name)) is not None}
    config, rules = rules_of(facts.config or _likely_config(shape), _checked(stated))
    if facts.config is None:
        assumed += _assumed_rules(config, rules, stated)
    classes, category_ids = _classes(facts, shape["n_things"], shape["n_stuff"], assumed)
    hyperparameters = {**shape, "stride_in_1x1": _stride_in_1x1(facts, shape, assumed), **_network_rules(rules)}
    spec = ModelSpec(
        family=NAME,
        variant=f"panopticfcn-{_name(config, hyperparameters)}",
        task="panoptic",
        hyperparameters=hyperparameters,
        image=_image(facts, rules, assumed),
        outputs=_outputs(rules.top_num, shape["n_stuff"]),
        decode=PanopticDecode(
            n_things=shape["n_things"],
            mask_threshold=rules.mask_threshold,
            score_threshold=max(rules.score_threshold, rules.least_score),
            overlap=rules.overlap,
            stuff_area=rules.stuff_area,
        ),
        classes=classes,
        colors=facts.colors,
        category_ids=category_ids,
        checkpoint=CheckpointRef(checkpoint.path.name, checkpoint.sha256, f"detectron2 {checkpoint.layout}"),
        assumed=tuple(assumed),
    )
    return spec, renamed(checkpoint.tensors)


def _checked(stated: dict[str, Any]) -> dict[str, Any]:
    """The stated rules, in the bounds of :class:`Rules`."""
    try:
        msgspec.convert(stated, Rules)
    except msgspec.ValidationError as error:
        raise BadArgument(f"a fact of {NAME} has a wrong value: {error}") from error
    return stated


def _likely_config(shape: Mapping[str, Any]) -> str:
    """The weights tell the model with deformable encoder ("Star") from the others, but not for which size they were trained."""
    return "Star-R50-3x" if shape["encoder_deform"] else "R50-3x"


def _assumed_rules(config: str, rules: Rules, stated: Mapping[str, Any]) -> list[Assumption]:
    source = f"configs/PanopticFCN-{config}.yaml; state config=NAME for another size, or for the higher thresholds of FAST"
    return [Assumption(fact, str(getattr(rules, fact)), source) for fact in Rules.__struct_fields__ if fact not in stated]


def _network_rules(rules: Rules) -> dict[str, Any]:
    """The rules that are part of the network; the others are the decoding's."""
    names = ("top_num", "center_threshold", "region_threshold", "mask_threshold", "similarity", "class_specific", "least_score")
    return {**{name: getattr(rules, name) for name in names}, "center_pools": list(rules.center_pools)}


def _image(facts: Facts, rules: Rules, assumed: list[Assumption]) -> ImageInput:
    for fact, value, default in (("mean", facts.mean, _MEAN), ("std", facts.std, (1.0, 1.0, 1.0))):
        if value is None:
            assumed.append(Assumption(fact, str(default), "the same in all published configurations"))
    return ImageInput(
        channels="bgr",
        resize=ShortestEdgeResize(rules.shortest_side, rules.longest_side, "pil_bilinear", "detectron2"),
        normalise=Normalise(scale=1.0, mean=facts.mean or _MEAN, std=facts.std or (1.0, 1.0, 1.0)),
        exif_orientation=True,  # detectron2 utils.read_image
        divisor=32,
    )


def _outputs(top: int, n_stuff: int) -> tuple[TensorSpec, ...]:
    quarter = ("height / 4", "width / 4")
    return (
        TensorSpec("masks", "float32", ("batch", top, *quarter)),
        TensorSpec("scores", "float32", ("batch", top)),
        TensorSpec("classes", "int64", ("batch", top)),
        TensorSpec("count", "int64", ("batch",)),
        TensorSpec("stuff", "float32", ("batch", n_stuff, *quarter)),
        TensorSpec("stuff_scores", "float32", ("batch", n_stuff)),
    )


def _stride_in_1x1(facts: Facts, shape: Mapping[str, Any], assumed: list[Assumption]) -> bool:
    if facts.stride_in_1x1 is None and shape["bottleneck"]:
        assumed.append(Assumption("stride_in_1x1", "True", "detectron2's default; all configurations start from MSRA weights"))
    return facts.stride_in_1x1 is not False


def _classes(
    facts: Facts, n_things: int, n_stuff: int, assumed: list[Assumption]
) -> tuple[tuple[str, ...], tuple[int, ...] | None]:
    """Names and ids of the things, then of the stuff without its class 0, which is all things as one."""
    n_classes = n_things + n_stuff - 1
    if facts.classes is None and (n_things, n_stuff - 1) == (len(coco.THINGS), len(coco.STUFF)):
        assumed.append(Assumption("classes", "COCO panoptic's 133", "as many classes as COCO, which all published models know"))
        return (*coco.THINGS, *coco.STUFF), facts.category_ids or (*coco.THING_IDS, *coco.STUFF_IDS)
    if facts.category_ids is not None and len(facts.category_ids) != n_classes:
        raise BadArgument(f"{len(facts.category_ids)} category_ids were given, the network has {n_classes} classes")
    return classes_or_assumed(facts.classes, n_classes, assumed), facts.category_ids
