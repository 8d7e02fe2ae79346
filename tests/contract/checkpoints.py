"""Small networks of every family, and the files that official code would write for them."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from golden.weights import tensor
from segship.models import build_module

Tensors = dict[str, torch.Tensor]

NETWORKS: dict[str, tuple[str, dict[str, Any]]] = {
    "unet-transposed": ("unet", {"n_channels": 3, "n_classes": 2, "widths": [4, 8, 16, 32, 64], "bilinear": False}),
    "unet-odd-widths": ("unet", {"n_channels": 1, "n_classes": 1, "widths": [3, 5, 9, 14, 22], "bilinear": False}),
    "unet-bilinear": ("unet", {"n_channels": 3, "n_classes": 21, "widths": [4, 6, 10, 12, 12], "bilinear": True}),
    "segformer-small": (
        "segformer",
        {
            "n_classes": 19,
            "dims": [8, 16, 40, 64],
            "depths": [2, 2, 2, 2],
            "heads": [1, 2, 5, 8],
            "hidden": [32, 64, 160, 256],
            "sr_ratios": [8, 4, 2, 1],
            "head_width": 32,
            "layer_norm_eps": 1e-6,
        },
    ),
    "segformer-odd": (
        "segformer",
        {
            "n_classes": 3,
            "dims": [7, 12, 25, 16],
            "depths": [1, 3, 2, 11],
            "heads": [1, 2, 5, 8],
            "hidden": [13, 12, 31, 70],
            "sr_ratios": [4, 1, 3, 1],
            "head_width": 17,
            "layer_norm_eps": 1e-6,
        },
    ),
    "pointrend-basic": (
        "pointrend",
        {
            "blocks": [1, 2, 1, 1],
            "stem": 8,
            "inner": [8, 12, 16, 16],
            "widths": [8, 12, 16, 16],
            "bottleneck": False,
            "n_classes": 5,
            "fpn_channels": 16,
            "head_channels": 8,
            "fc": [16, 12],
            "coarse_pred_each_layer": True,
            "stride_in_1x1": False,
            "subdivision_steps": 2,
            "subdivision_points": 8192,
        },
    ),
    "pointrend-bottleneck": (
        "pointrend",
        {
            "blocks": [1, 1, 2, 1],
            "stem": 4,
            "inner": [4, 5, 6, 7],
            "widths": [10, 12, 14, 16],
            "bottleneck": True,
            "n_classes": 19,
            "fpn_channels": 12,
            "head_channels": 64,
            "fc": [9],
            "coarse_pred_each_layer": False,
            "stride_in_1x1": True,
            "subdivision_steps": 2,
            "subdivision_points": 8192,
        },
    ),
}
"""Test id to family and hyper-parameters."""


def random_state(name: str, seed: int = 0) -> Tensors:
    """The state dict of a network by the golden cases' rule: no value is 0 or 1, and the output depends on the image."""
    family, hyperparameters = NETWORKS[name]
    state = build_module(family, hyperparameters).state_dict()
    return {key: torch.from_numpy(tensor(key, list(value.shape), seed)) for key, value in state.items()}


def write(content: Any, path: Path) -> Path:
    """``content`` in PyTorch's own format."""
    torch.save(content, path)
    return path


_TO_HUGGING_FACE = (
    (r"backbone\.patch_embed(\d)\.proj\.(.*)", r"segformer.encoder.patch_embeddings.\1.proj.\2"),
    (r"backbone\.patch_embed(\d)\.norm\.(.*)", r"segformer.encoder.patch_embeddings.\1.layer_norm.\2"),
    (r"backbone\.norm(\d)\.(.*)", r"segformer.encoder.layer_norm.\1.\2"),
    (r"backbone\.block(\d)\.(\d+)\.norm(\d)\.(.*)", r"segformer.encoder.block.\1.\2.layer_norm_\3.\4"),
    (r"backbone\.block(\d)\.(\d+)\.attn\.q\.(.*)", r"segformer.encoder.block.\1.\2.attention.self.query.\3"),
    (r"backbone\.block(\d)\.(\d+)\.attn\.kv\.(.*)", r"segformer.encoder.block.\1.\2.attention.self.key+value.\3"),
    (r"backbone\.block(\d)\.(\d+)\.attn\.proj\.(.*)", r"segformer.encoder.block.\1.\2.attention.output.dense.\3"),
    (r"backbone\.block(\d)\.(\d+)\.attn\.sr\.(.*)", r"segformer.encoder.block.\1.\2.attention.self.sr.\3"),
    (r"backbone\.block(\d)\.(\d+)\.attn\.norm\.(.*)", r"segformer.encoder.block.\1.\2.attention.self.layer_norm.\3"),
    (r"backbone\.block(\d)\.(\d+)\.mlp\.fc(\d)\.(.*)", r"segformer.encoder.block.\1.\2.mlp.dense\3.\4"),
    (r"backbone\.block(\d)\.(\d+)\.mlp\.dwconv\.dwconv\.(.*)", r"segformer.encoder.block.\1.\2.mlp.dwconv.dwconv.\3"),
    (r"decode_head\.linear_c(\d)\.proj\.(.*)", r"decode_head.linear_c.\1.proj.\2"),
    (r"decode_head\.linear_fuse\.conv\.(.*)", r"decode_head.linear_fuse.\1"),
    (r"decode_head\.linear_fuse\.bn\.(.*)", r"decode_head.batch_norm.\1"),
    (r"decode_head\.linear_pred\.(.*)", r"decode_head.classifier.\1"),
)
"""Official names to those of transformers 4 and of every file on the hub (``convert_segformer_original_to_pytorch.py``)."""


def hugging_face_state(state: Tensors) -> Tensors:
    """The official tensors under their Hugging Face names: stages counted from 0, ``kv`` split into key and value."""
    result: Tensors = {}
    for key, value in state.items():
        pattern, replacement = next(rule for rule in _TO_HUGGING_FACE if re.fullmatch(rule[0], key))
        name = _counted_from_zero(re.sub(pattern, replacement, key))
        if "key+value" in name:
            result[name.replace("key+value", "key")], result[name.replace("key+value", "value")] = value.clone().chunk(2)
        else:
            result[name] = value
    return result


def _counted_from_zero(name: str) -> str:
    counted = r"(patch_embeddings|encoder\.layer_norm|encoder\.block|linear_c)\.(\d)\."
    return re.sub(counted, lambda match: f"{match[1]}.{int(match[2]) - 1}.", name, count=1)


def write_hugging_face(folder: Path, state: Tensors, *, safetensors: bool = True, **config: Any) -> Path:
    """A model folder with ``config.json`` and the weights in one of the two formats."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps({"model_type": "segformer", **config}))
    tensors = {key: value.contiguous() for key, value in hugging_face_state(state).items()}
    if safetensors:
        save_file(tensors, folder / "model.safetensors")
    else:
        torch.save(tensors, folder / "pytorch_model.bin")
    return folder
