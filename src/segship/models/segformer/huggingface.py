"""The Hugging Face layout of SegFormer: ``config.json`` with ``model.safetensors`` or ``pytorch_model.bin``.

Key names of transformers 4 and of transformers 5.2x (which renamed the modules) both load. Facts differ from the
official code: LayerNorm eps is 1e-5 everywhere (``nn.LayerNorm`` without eps; ``layer_norm_eps`` in the config is not
used), and the logits are resized once, from stride 4 straight to the image's size
(``post_process_semantic_segmentation``).
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import torch

from segship.core.errors import BadCheckpoint
from segship.core.spec import Assumption, ExactResize, KeepSize, Resize
from segship.models.checkpoint import Checkpoint, Tensors
from segship.models.keys import renamed
from segship.models.segformer.variants import IMAGENET_MEAN, IMAGENET_STD, Defaults, encoder_name

_ENCODER4 = r"segformer\.encoder\."
_BLOCK4 = _ENCODER4 + r"block\.(\d)\.(\d+)\."
_BLOCK5 = r"segformer\.stages\.(\d)\.blocks\.(\d+)\."
_BLOCK = r"stage\1.block.\2."

_RULES: tuple[tuple[str, str], ...] = (
    # transformers 4, and every file on the hub
    (_ENCODER4 + r"patch_embeddings\.(\d)\.proj\.(.*)", r"stage\1.patch_embed.proj.\2"),
    (_ENCODER4 + r"patch_embeddings\.(\d)\.layer_norm\.(.*)", r"stage\1.patch_embed.norm.\2"),
    (_ENCODER4 + r"layer_norm\.(\d)\.(.*)", r"stage\1.norm.\2"),
    (_BLOCK4 + r"layer_norm_([12])\.(.*)", _BLOCK + r"norm\3.\4"),
    (_BLOCK4 + r"attention\.self\.query\.(.*)", _BLOCK + r"attn.q.\3"),
    (_BLOCK4 + r"attention\.self\.key\.(.*)", _BLOCK + r"attn.k.\3"),
    (_BLOCK4 + r"attention\.self\.value\.(.*)", _BLOCK + r"attn.v.\3"),
    (_BLOCK4 + r"attention\.self\.sr\.(.*)", _BLOCK + r"attn.sr.\3"),
    (_BLOCK4 + r"attention\.self\.layer_norm\.(.*)", _BLOCK + r"attn.norm.\3"),
    (_BLOCK4 + r"attention\.output\.dense\.(.*)", _BLOCK + r"attn.proj.\3"),
    (_BLOCK4 + r"mlp\.dense([12])\.(.*)", _BLOCK + r"mlp.fc\3.\4"),
    (_BLOCK4 + r"mlp\.dwconv\.(.*)", _BLOCK + r"mlp.dwconv.\3"),
    # transformers 5.2x
    (r"segformer\.stages\.(\d)\.patch_embeddings\.proj\.(.*)", r"stage\1.patch_embed.proj.\2"),
    (r"segformer\.stages\.(\d)\.patch_embeddings\.layer_norm\.(.*)", r"stage\1.patch_embed.norm.\2"),
    (r"segformer\.stages\.(\d)\.layer_norm\.(.*)", r"stage\1.norm.\2"),
    (_BLOCK5 + r"layernorm_before\.(.*)", _BLOCK + r"norm1.\3"),
    (_BLOCK5 + r"layernorm_after\.(.*)", _BLOCK + r"norm2.\3"),
    (_BLOCK5 + r"attention\.([qkv])_proj\.(.*)", _BLOCK + r"attn.\3.\4"),
    (_BLOCK5 + r"attention\.o_proj\.(.*)", _BLOCK + r"attn.proj.\3"),
    (_BLOCK5 + r"attention\.sequence_reduction\.sequence_reduction\.(.*)", _BLOCK + r"attn.sr.\3"),
    (_BLOCK5 + r"attention\.sequence_reduction\.layer_norm\.(.*)", _BLOCK + r"attn.norm.\3"),
    (_BLOCK5 + r"mlp\.(.*)", _BLOCK + r"mlp.\3"),
    # the head; its stages are counted from 0, the official names from 1
    (r"decode_head\.(?:linear_c|linear_projections)\.(\d)\.proj\.(.*)", r"head\1.proj.\2"),
    (r"decode_head\.linear_fuse\.(.*)", r"decode_head.linear_fuse.conv.\1"),
    (r"decode_head\.batch_norm\.(.*)", r"decode_head.linear_fuse.bn.\1"),
    (r"decode_head\.classifier\.(.*)", r"decode_head.linear_pred.\1"),
)


def claims(keys: Collection[str]) -> bool:
    """Whether the keys are a Hugging Face SegFormer's with its segmentation head."""
    return "decode_head.classifier.weight" in keys and any(key.startswith("segformer.") for key in keys)


def official_tensors(tensors: Tensors) -> Tensors:
    """The tensors under the official names: renamed, stages counted from 1, key and value joined to ``kv``."""
    names = renamed(tensors, _RULES)
    result = {_counted_from_one(new): tensors[old] for old, new in names.items()}
    for key in [key for key in result if ".attn.k." in key]:
        value_key = key.replace(".attn.k.", ".attn.v.")
        if value_key not in result:
            raise BadCheckpoint(f"the checkpoint has {key} but not {value_key}: give an unmodified checkpoint")
        result[key.replace(".attn.k.", ".attn.kv.")] = torch.cat([result.pop(key), result.pop(value_key)])
    return result


def _counted_from_one(name: str) -> str:
    for prefix in ("stage", "head"):
        if name.startswith(prefix) and name[len(prefix)].isdigit():
            stage, rest = int(name[len(prefix)]) + 1, name[len(prefix) + 2 :]
            if prefix == "head":
                return f"decode_head.linear_c{stage}.{rest}"
            part, _, tail = rest.partition(".")
            return f"backbone.{part}{stage}.{tail}"
    return name


def defaults(checkpoint: Checkpoint, stated: Collection[str]) -> Defaults:
    """What ``config.json`` and ``preprocessor_config.json`` say; where they are missing, transformers' defaults.

    ``stated``: names of the facts that the caller states; what the files say of them is not read, so it may be unusable.
    """
    config, processor = checkpoint.config or {}, checkpoint.preprocessor
    assumed = []
    if processor is None:
        source = "transformers SegformerImageProcessor, its defaults (no preprocessor_config.json beside the weights)"
        assumed = [
            Assumption(fact, value, source)
            for fact, value in (("resize", "512 x 512"), ("mean", "ImageNet"), ("std", "ImageNet"))
        ]
        processor = {}
    encoder = encoder_name(official_tensors(checkpoint.tensors))
    return Defaults(
        name=f"segformer-{encoder}-hf",
        layout="Hugging Face",
        resize=KeepSize() if "resize" in stated else _resize(processor),
        slide=None,
        resize_to=("image",),
        mean=IMAGENET_MEAN if "mean" in stated else _on_255(processor, "image_mean", IMAGENET_MEAN, 0.0),
        std=IMAGENET_STD if "std" in stated else _on_255(processor, "image_std", IMAGENET_STD, 1.0),
        layer_norm_eps=1e-5,
        num_heads=_heads(config),
        exif_orientation=False,
        classes=None if "classes" in stated else _classes(config),
        assumed=tuple(assumed),
    )


def _resize(processor: dict[str, Any]) -> Resize:
    if not processor.get("do_resize", True):
        return KeepSize()
    size = processor.get("size", 512)
    height, width = (size["height"], size["width"]) if isinstance(size, dict) and "height" in size else (size, size)
    whole = isinstance(height, int) and isinstance(width, int) and min(height, width) > 0
    if not whole or processor.get("resample", 2) != 2:
        raise BadCheckpoint(
            f"preprocessor_config.json asks for size {size}, resample {processor.get('resample')}: state the fact resize"
        )
    return ExactResize((height, width), "pil_bilinear")


def _on_255(processor: dict[str, Any], name: str, default: tuple[float, ...], without: float) -> tuple[float, ...]:
    """Mean and std are stored for pixels times ``rescale_factor`` (by default in 0..1); ours are for 0..255.

    ``without`` is the value that stands for no normalisation.
    """
    factor = processor.get("rescale_factor", 1 / 255) if processor.get("do_rescale", True) else 1.0
    if not isinstance(factor, float | int) or not factor > 0:
        raise BadCheckpoint(
            f"preprocessor_config.json has rescale_factor {factor}, expected a number above 0: mend it or state mean and std"
        )
    values = processor.get(name) if processor.get("do_normalize", True) else [without] * 3
    if values is None:
        return default if factor == 1 / 255 else tuple(value / 255 / factor for value in default)
    numbers = isinstance(values, list) and len(values) == 3 and all(isinstance(value, float | int) for value in values)
    if not numbers or (name == "image_std" and min(values) <= 0):
        found = f"preprocessor_config.json has {name} {values}"
        raise BadCheckpoint(f"{found}, expected three numbers (std above 0): mend it or state the fact {name[6:]}")
    return tuple(value * (1 / factor) for value in values)


def _heads(config: dict[str, Any]) -> tuple[int, ...] | None:
    heads = config.get("num_attention_heads")
    return tuple(heads) if isinstance(heads, list) and len(heads) == 4 and all(isinstance(n, int) for n in heads) else None


def _classes(config: dict[str, Any]) -> tuple[str, ...] | None:
    names = config.get("id2label")
    if not isinstance(names, dict):
        return None
    try:
        return tuple(str(names[key]) for key in sorted(names, key=int))
    except ValueError as error:
        raise BadCheckpoint("id2label in config.json has keys that are no numbers: mend it or state the fact classes") from error
