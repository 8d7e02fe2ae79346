"""The SegFormer-B1 of `segship demo`, on synthetic streets, saved as Hugging Face transformers saves it.

    python -m recipes.streets --out build/streets.npz --scenes 8000
    python -m recipes.train_scenes_segformer --streets build/streets.npz --out src/segship/assets

About eight minutes on one H100; test mIoU 89.0 (300 scenes, weights rounded to float16, run in float32).

Writes the folder `scenes-segformer` (config.json, preprocessor_config.json, model.safetensors in float16),
`scenes-segformer.facts.json` (colours) and the log. The pictures are enlarged to `--input` pixels a side first: the
network answers at a quarter of its input's resolution, and the posts of a 256-pixel street are one or two pixels wide.
"""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from recipes import streets
from recipes.training import Settings, on_gpu, on_test_set, train
from safetensors.torch import save_file
from torch import Tensor, nn

from segship.models.segformer.network import SegFormer
from segship.scenes import CLASSES, COLORS

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
B1: dict[str, Any] = {
    "dims": (64, 128, 320, 512),
    "depths": (2, 2, 2, 2),
    "heads": (1, 2, 5, 8),
    "hidden": (256, 512, 1280, 2048),
    "sr_ratios": (8, 4, 2, 1),
    "head_width": 256,
    "layer_norm_eps": 1e-5,
}


def prepare(images: Tensor) -> Tensor:
    """0..255 to ImageNet's mean 0 and standard deviation 1."""
    mean, std = (torch.tensor(values, device=images.device)[:, None, None] for values in (MEAN, STD))
    return (images / 255 - mean) / std


def initialise(net: nn.Module) -> None:
    """The encoder as the official code does: narrow normal for linear layers, by fan-out for convolutions."""
    for module in net.get_submodule("backbone").modules():
        if isinstance(module, nn.Linear):
            nn.init.trunc_normal_(module.weight, std=0.02)
            nn.init.zeros_(module.bias)
        elif isinstance(module, nn.Conv2d):
            fan_out = module.kernel_size[0] * module.kernel_size[1] * module.out_channels // module.groups
            nn.init.normal_(module.weight, std=(2.0 / fan_out) ** 0.5)
            if module.bias is not None:
                nn.init.zeros_(module.bias)


_NAMES = (
    (r"^backbone\.patch_embed(\d)\.proj\.", r"segformer.encoder.patch_embeddings.<\1>.proj."),
    (r"^backbone\.patch_embed(\d)\.norm\.", r"segformer.encoder.patch_embeddings.<\1>.layer_norm."),
    (r"^backbone\.norm(\d)\.", r"segformer.encoder.layer_norm.<\1>."),
    (r"^backbone\.block(\d)\.(\d+)\.norm([12])\.", r"segformer.encoder.block.<\1>.\2.layer_norm_\3."),
    (r"^backbone\.block(\d)\.(\d+)\.attn\.proj\.", r"segformer.encoder.block.<\1>.\2.attention.output.dense."),
    (r"^backbone\.block(\d)\.(\d+)\.attn\.q\.", r"segformer.encoder.block.<\1>.\2.attention.self.query."),
    (r"^backbone\.block(\d)\.(\d+)\.attn\.kv\.", r"segformer.encoder.block.<\1>.\2.attention.self.key+value."),
    (r"^backbone\.block(\d)\.(\d+)\.attn\.sr\.", r"segformer.encoder.block.<\1>.\2.attention.self.sr."),
    (r"^backbone\.block(\d)\.(\d+)\.attn\.norm\.", r"segformer.encoder.block.<\1>.\2.attention.self.layer_norm."),
    (r"^backbone\.block(\d)\.(\d+)\.mlp\.fc([12])\.", r"segformer.encoder.block.<\1>.\2.mlp.dense\3."),
    (r"^backbone\.block(\d)\.(\d+)\.mlp\.dwconv\.", r"segformer.encoder.block.<\1>.\2.mlp.dwconv."),
    (r"^decode_head\.linear_c(\d)\.", r"decode_head.linear_c.<\1>."),
    (r"^decode_head\.linear_fuse\.conv\.", r"decode_head.linear_fuse."),
    (r"^decode_head\.linear_fuse\.bn\.", r"decode_head.batch_norm."),
    (r"^decode_head\.linear_pred\.", r"decode_head.classifier."),
)
"""Official names to those of transformers 4, which every file on the hub has; <n> becomes n - 1, key+value two tensors."""


def hugging_face(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The state dict under Hugging Face's names, in float16."""
    result = {}
    for name, tensor in state.items():
        half = tensor.half().cpu().contiguous() if tensor.is_floating_point() else tensor.cpu()
        renamed = next(re.sub(rule, new, name) for rule, new in _NAMES if re.match(rule, name))
        renamed = re.sub(r"<(\d)>", lambda match: str(int(match[1]) - 1), renamed)
        parts = half.chunk(2) if "key+value" in renamed else (half,)
        for part, kind in zip(parts, ("key", "value"), strict=False):
            result[renamed.replace("key+value", kind)] = part.clone()
    return result


def config(classes: Sequence[str]) -> dict[str, Any]:
    """`config.json`: what transformers' SegformerForSemanticSegmentation needs to know."""
    return {
        "architectures": ["SegformerForSemanticSegmentation"],
        "model_type": "segformer",
        "torch_dtype": "float16",
        "num_channels": 3,
        "num_encoder_blocks": 4,
        "depths": B1["depths"],
        "sr_ratios": B1["sr_ratios"],
        "hidden_sizes": B1["dims"],
        "patch_sizes": [7, 3, 3, 3],
        "strides": [4, 2, 2, 2],
        "num_attention_heads": B1["heads"],
        "mlp_ratios": [4, 4, 4, 4],
        "hidden_act": "gelu",
        "hidden_dropout_prob": 0.0,
        "attention_probs_dropout_prob": 0.0,
        "classifier_dropout_prob": 0.0,
        "drop_path_rate": 0.0,
        "layer_norm_eps": 1e-6,
        "decoder_hidden_size": B1["head_width"],
        "semantic_loss_ignore_index": 255,
        "id2label": {str(index): name for index, name in enumerate(classes)},
        "label2id": {name: index for index, name in enumerate(classes)},
    }


def preprocessor(size: tuple[int, int]) -> dict[str, Any]:
    """`preprocessor_config.json`: resize bilinearly to one (height, width), then ImageNet's mean and deviation."""
    return {
        "image_processor_type": "SegformerImageProcessor",
        "do_resize": True,
        "size": {"height": size[0], "width": size[1]},
        "resample": 2,
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": MEAN,
        "image_std": STD,
        "do_reduce_labels": False,
    }


def save(net: nn.Module, folder: Path, classes: Sequence[str], colors: Sequence[Any], size: tuple[int, int]) -> None:
    """The model folder, and the colours beside it; ``size``: (height, width) of the network's input."""
    folder.mkdir(parents=True, exist_ok=True)
    save_file(hugging_face(net.state_dict()), folder / "model.safetensors", metadata={"format": "pt"})
    (folder / "model.safetensors").chmod(0o644)  # safetensors makes it private
    facts = {"colors": colors, "num_heads": B1["heads"]}
    for path, content in (
        (folder / "config.json", config(classes)),
        (folder / "preprocessor_config.json", preprocessor(size)),
        (folder.with_name(f"{folder.name}.facts.json"), facts),
    ):
        path.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--streets", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--log", type=Path, default=Path("recipes/results/scenes-segformer.json"))
    parser.add_argument("--input", type=int, default=512)
    parser.add_argument("--epochs", type=int, default=24)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()

    torch.manual_seed(options.seed)
    device = torch.device("cuda")
    data, val, test = (streets.load(options.streets, split) for split in ("train", "val", "test"))
    net = SegFormer(n_classes=len(CLASSES), **B1)
    initialise(net)
    on_gpu(net)
    settings = Settings(
        classes=len(CLASSES),
        epochs=options.epochs,
        batch=32,
        crop=(options.input, options.input),
        zoom=(0.8, 1.6),
        nominal=options.input / 256,
        rate=6e-4,
        rare=0.25,
        seed=options.seed,
    )
    best, log = train(net, data.to(device), val, settings, prepare)

    save(best, options.out / "scenes-segformer", CLASSES, COLORS, (options.input, options.input))
    best.load_state_dict({k: t.half().float() if t.is_floating_point() else t for k, t in best.state_dict().items()})
    judged = on_test_set(best, test, settings, prepare, CLASSES)
    log.write(options.log, recipe="scenes-segformer", input=options.input, **judged)


if __name__ == "__main__":
    main()
