"""SegFormer B0 to B5: NVlabs layout (with mmcv's wrapper) and Hugging Face layout, told apart by their keys."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

import msgspec
from torch import nn

from segship.core.errors import BadArgument
from segship.core.spec import (
    Assumption,
    CheckpointRef,
    ImageInput,
    ModelSpec,
    Normalise,
    Resize,
    SemanticDecode,
    Slide,
    TensorSpec,
)
from segship.models.checkpoint import Checkpoint, Tensors, shape_of
from segship.models.family import classes_or_assumed
from segship.models.keys import count, has_all
from segship.models.segformer import huggingface
from segship.models.segformer.network import SegFormer
from segship.models.segformer.variants import Defaults, encoder_name, published_variant

NAME = "segformer"

Positive = Annotated[float, msgspec.Meta(gt=0)]
Heads = Annotated[int, msgspec.Meta(ge=1)]


class Facts(msgspec.Struct, frozen=True):
    """What the file does not hold. ``slide`` stated as ``None`` in ``test_mode="whole"``; mean and std on 0..255, RGB."""

    variant: str | None = None
    classes: tuple[str, ...] | None = None
    colors: tuple[tuple[int, int, int], ...] | None = None
    num_heads: tuple[Heads, Heads, Heads, Heads] | None = None
    layer_norm_eps: Positive | None = None
    resize: Resize | None = None
    mean: tuple[float, float, float] | None = None
    std: tuple[Positive, Positive, Positive] | None = None
    test_mode: str | None = None
    slide: Slide | None = None


def claims(checkpoint: Checkpoint) -> bool:
    """Whether the keys are a SegFormer's with its head, in one of the known layouts."""
    official = has_all(checkpoint.tensors, "backbone.patch_embed1.proj.weight", "decode_head.linear_pred.weight")
    return official or huggingface.claims(checkpoint.tensors)


def build(hyperparameters: Mapping[str, Any]) -> nn.Module:
    """The network without weights."""
    return SegFormer(**hyperparameters)


def read(checkpoint: Checkpoint, facts: Facts) -> tuple[ModelSpec, Tensors]:
    """Spec and tensors of a SegFormer checkpoint of either layout."""
    if huggingface.claims(checkpoint.tensors):
        tensors = huggingface.official_tensors(checkpoint.tensors)
        stated = [name for name in facts.__struct_fields__ if getattr(facts, name) is not None]
        defaults = huggingface.defaults(checkpoint, stated)
    else:
        # conv_seg is created by mmsegmentation's base head and never used by SegFormer's
        tensors = {key: value for key, value in checkpoint.tensors.items() if not key.startswith("decode_head.conv_seg.")}
        n_outputs = shape_of(tensors, "decode_head.linear_pred.bias", 1)[0]
        defaults = published_variant(encoder_name(tensors), n_outputs, facts.variant)
    assumed = [assumption for assumption in defaults.assumed if not _is_stated(facts, assumption.fact)]
    hyperparameters = _hyperparameters(tensors, facts, defaults, assumed)
    n_classes = hyperparameters["n_classes"]
    names = facts.classes or defaults.classes or _meta_classes(checkpoint, n_classes)
    spec = ModelSpec(
        family=NAME,
        variant=defaults.name,
        task="semantic",
        hyperparameters=hyperparameters,
        image=ImageInput(
            channels="rgb",
            resize=facts.resize if facts.resize is not None else defaults.resize,
            normalise=Normalise(1.0, facts.mean or defaults.mean, facts.std or defaults.std),
            exif_orientation=defaults.exif_orientation,
        ),
        outputs=(TensorSpec("logits", "float32", ("batch", n_classes, "height/4", "width/4")),),
        decode=SemanticDecode(resize_to=defaults.resize_to),
        slide=_slide(facts, defaults.slide),
        classes=classes_or_assumed(names, n_classes, assumed),
        colors=facts.colors or _meta_palette(checkpoint, n_classes),
        checkpoint=CheckpointRef(checkpoint.path.name, checkpoint.sha256, f"{defaults.layout} {checkpoint.layout}"),
        assumed=tuple(assumed),
    )
    return spec, tensors


def _hyperparameters(tensors: Tensors, facts: Facts, defaults: Defaults, assumed: list[Assumption]) -> dict[str, Any]:
    dims = [shape_of(tensors, f"backbone.patch_embed{stage}.proj.weight", 4)[0] for stage in (1, 2, 3, 4)]
    first_blocks = [f"backbone.block{stage}.0" for stage in (1, 2, 3, 4)]
    reductions = [f"{block}.attn.sr.weight" for block in first_blocks]
    return {
        "n_classes": shape_of(tensors, "decode_head.linear_pred.weight", 4)[0],
        "dims": dims,
        "depths": [count(tensors, rf"backbone\.block{stage}\.(\d+)\.") for stage in (1, 2, 3, 4)],
        "heads": list(_heads(dims, facts.num_heads or defaults.num_heads, assumed)),
        "hidden": [shape_of(tensors, f"{block}.mlp.fc1.weight", 2)[0] for block in first_blocks],
        "sr_ratios": [shape_of(tensors, key, 4)[3] if key in tensors else 1 for key in reductions],
        "head_width": shape_of(tensors, "decode_head.linear_pred.weight", 4)[1],
        "layer_norm_eps": facts.layer_norm_eps if facts.layer_norm_eps is not None else defaults.layer_norm_eps,
    }


def _is_stated(facts: Facts, name: str) -> bool:
    """Whether the caller states a fact; windows are stated by ``slide`` alone, too."""
    return getattr(facts, name, None) is not None or (name == "test_mode" and facts.slide is not None)


def _heads(dims: list[int], known: tuple[int, ...] | None, assumed: list[Assumption]) -> tuple[int, ...]:
    """Head counts leave no trace in the weights: stated, or from ``config.json``; all published variants have 1, 2, 5, 8."""
    heads = known or (1, 2, 5, 8)
    if known is None:
        assumed.append(Assumption("num_heads", "1, 2, 5, 8", "NVlabs/SegFormer mix_transformer.py, all of mit_b0 to mit_b5"))
    if any(count < 1 or dim % count for dim, count in zip(dims, heads, strict=True)):
        raise BadArgument(f"encoder widths {dims} cannot be split into {', '.join(map(str, heads))} heads: state num_heads")
    return heads


def _slide(facts: Facts, default: Slide | None) -> Slide | None:
    if facts.test_mode not in (None, "whole", "slide"):
        raise BadArgument(f"test_mode is {facts.test_mode!r}; give 'whole' or 'slide'")
    if facts.test_mode == "whole":
        return None
    slide = facts.slide or default
    if facts.test_mode == "slide" and slide is None:
        raise BadArgument("test_mode 'slide' needs the windows: state slide with crop and stride, both (height, width)")
    if slide is not None and any(step > side for step, side in zip(slide.stride, slide.crop, strict=True)):
        raise BadArgument(f"windows of {slide.crop} every {slide.stride} pixels leave gaps: state a stride of at most the crop")
    return slide


def _meta_classes(checkpoint: Checkpoint, n_classes: int) -> tuple[str, ...] | None:
    names = checkpoint.meta.get("CLASSES")
    usable = isinstance(names, list | tuple) and len(names) == n_classes
    return tuple(str(name) for name in names) if usable and names else None


def _meta_palette(checkpoint: Checkpoint, n_classes: int) -> tuple[tuple[int, int, int], ...] | None:
    palette = checkpoint.meta.get("PALETTE")
    if not isinstance(palette, list | tuple) or len(palette) != n_classes:
        return None
    try:
        return msgspec.convert(palette, tuple[tuple[int, int, int], ...])
    except msgspec.ValidationError:
        return None
