"""What an official checkpoint's keys and shapes tell, and its tensors under our names."""

from __future__ import annotations

import re
from typing import Any

import torch

from segship.core.errors import BadCheckpoint
from segship.models.checkpoint import Checkpoint, Tensors
from segship.models.keys import count
from segship.models.panopticfcn.heads import HeadShape
from segship.models.parts.deform_conv import as_pointwise
from segship.models.parts.resnet import resnet_shape

_HEADS = {
    "position": "position_head.position_head.position_head_head_",
    "kernel": "kernel_head.kernel_head.kernel_head_head_",
    "encoder": "feature_encoder.encode_head.encode_head_head_",
}
_FIRST_CONV = re.compile(r"(.*_head_head_1)\.(weight|bias|norm\..*)")


def architecture(checkpoint: Checkpoint) -> dict[str, Any]:
    """Every hyper-parameter that the weights hold. Raises :class:`BadCheckpoint` when a part is missing."""
    fpn = checkpoint.shape("backbone.fpn_output2.weight", 4)[0]
    semantic = checkpoint.shape("semantic_fpn.p2.0.weight", 4)[0]
    inputs = {"position": fpn, "kernel": fpn, "encoder": semantic}
    heads = {name: _head(checkpoint, prefix, inputs[name]) for name, prefix in _HEADS.items()}
    return {
        **resnet_shape(checkpoint.tensors, "backbone.bottom_up.").as_facts(),
        "fpn_channels": fpn,
        "semantic_channels": semantic,
        **{fact: value for name, head in heads.items() for fact, value in head.as_facts(name).items()},
        "n_things": checkpoint.shape("position_head.out_inst.weight", 4)[0],
        "n_stuff": checkpoint.shape("position_head.out_sem.weight", 4)[0],
    }


def _head(checkpoint: Checkpoint, prefix: str, c_in: int) -> HeadShape:
    deform = f"{prefix}1.dcnv2.weight" in checkpoint.tensors
    kernel = f"{prefix}1.dcnv2" if deform else f"{prefix}1"
    channels, seen = checkpoint.shape(f"{kernel}.weight", 4)[:2]
    if seen not in (c_in, c_in + 2):
        raise BadCheckpoint(
            f"{kernel}.weight takes {seen} channels, expected {c_in}, or 2 more for coordinates: give an unmodified checkpoint"
        )
    return HeadShape(
        convs=count(checkpoint.tensors, re.escape(prefix) + r"(\d+)\.") - 1,  # the convolutions are numbered from 1
        channels=channels,
        coord=seen == c_in + 2,
        deform=deform,
        norm=f"{kernel}.norm.weight" in checkpoint.tensors,
    )


def renamed(tensors: Tensors) -> Tensors:
    """The tensors under the module's own names, in the shapes that it wants."""
    result: Tensors = {}
    for key, tensor in tensors.items():
        if key.endswith(".dcnv2.weight") and tensor.ndim == 4:
            result[key] = as_pointwise(tensor)
        elif (match := _FIRST_CONV.fullmatch(key)) and _sees_coordinates(tensors, match[1]):
            result.update(_coord_parts(match[1], match[2], tensor))
        else:
            result[key] = tensor
    return result


def _sees_coordinates(tensors: Tensors, conv: str) -> bool:
    semantic_or_fpn = "semantic_fpn.p2.0.weight" if conv.startswith("feature_encoder") else "backbone.fpn_output2.weight"
    return f"{conv}.weight" in tensors and tensors[f"{conv}.weight"].shape[1] == tensors[semantic_or_fpn].shape[0] + 2


def _coord_parts(conv: str, rest: str, tensor: Any) -> Tensors:
    """A :class:`CoordConv`'s share of an official tensor: the last two input channels are the coordinates'."""
    if rest == "weight":
        features, coordinates = tensor[:, :-2].contiguous(), tensor[:, -2:].contiguous()
        return {f"{conv}.features.weight": features, f"{conv}.coordinates.weight": coordinates}
    return {f"{conv}.features.bias" if rest == "bias" else f"{conv}.{rest}": tensor}


def official(tensors: Tensors) -> Tensors:
    """The inverse of :func:`renamed`: a module's state dict as the official code would save it."""
    result: Tensors = {}
    for key, tensor in tensors.items():
        if key.endswith(".dcnv2.weight"):
            result[key] = tensor.reshape(tensor.shape[0], -1, 3, 3)
        elif key.endswith(".coordinates.weight"):
            features = tensors[key.replace(".coordinates.", ".features.")]
            result[key.replace(".coordinates.", ".")] = torch.cat([features, tensor], dim=1)
        elif not key.endswith(".features.weight"):
            result[key.replace(".features.", ".")] = tensor
    return result
