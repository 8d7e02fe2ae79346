"""The small UNet of `segship demo`: milesial's layout, widths 16 to 256, 1.9 million parameters, on synthetic streets.

    python -m recipes.streets --out build/streets.npz --scenes 8000
    python -m recipes.train_scenes_unet --streets build/streets.npz --out src/segship/assets

About two minutes on one H100; test mIoU 88.4 (300 scenes, kernels rounded to float16, run in float32). At twice this
learning rate the training came apart after 24 epochs.

Writes `scenes-unet.pth` (state dict, kernels float16), `scenes-unet.facts.json` (class names, colours) and the log.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import torch
from recipes import streets
from recipes.training import Settings, half_kernels, on_gpu, on_test_set, train
from torch import Tensor

from segship.models.unet import UNet
from segship.scenes import CLASSES, COLORS

WIDTHS = (16, 32, 64, 128, 256)


def prepare(images: Tensor) -> Tensor:
    """0..255 to 0..1, as milesial's data loader does."""
    return images / 255


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--streets", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--log", type=Path, default=Path("recipes/results/scenes-unet.json"))
    parser.add_argument("--epochs", type=int, default=36)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()

    torch.manual_seed(options.seed)
    device = torch.device("cuda")
    data, val, test = (streets.load(options.streets, split) for split in ("train", "val", "test"))
    net = on_gpu(UNet(3, len(CLASSES), WIDTHS, bilinear=False))
    settings = Settings(
        classes=len(CLASSES),
        epochs=options.epochs,
        batch=32,
        crop=(256, 256),
        zoom=(0.8, 1.6),
        rate=1e-3,
        rare=0.25,
        seed=options.seed,
    )
    best, log = train(net, data.to(device), val, settings, prepare)

    options.out.mkdir(parents=True, exist_ok=True)
    weights = half_kernels(best)
    torch.save(weights, options.out / "scenes-unet.pth")
    facts = {"classes": CLASSES, "colors": COLORS, "scale": 1.0}
    (options.out / "scenes-unet.facts.json").write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")
    best.load_state_dict({name: tensor.float() for name, tensor in weights.items()})
    judged = on_test_set(best, test, settings, prepare, CLASSES)
    log.write(options.log, recipe="scenes-unet", **judged)


if __name__ == "__main__":
    main()
