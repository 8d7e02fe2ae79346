"""A UNet on real photographs: milesial's layout, widths 32 to 512, 7.8 million parameters, on CamVid, 11 classes.

    python -m recipes.streets --out build/streets.npz --scenes 8000
    python -m recipes.train_camvid_unet --data DIR/camvid --streets build/streets.npz --out weights

About three minutes on one H100; test mIoU 67.4 (whole pictures, kernels rounded to float16, run in float32), 66.1 without
`--streets`, with which the network first learns the same eleven classes on synthetic streets.

`DIR/camvid` holds `train`, `val` and `test`, pairs of NAME.jpg and NAME.png, 360 x 480 (367, 101 and 117 of them here; class
ids, 11 = no truth), and `classes.json`. The best epoch is chosen on `val`; `test` is looked at once, at the end. Writes
`camvid-unet.pth` (state dict, kernels float16, with `mask_values`), `camvid-unet.facts.json` and the log.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from recipes import streets
from recipes.training import IGNORE, Log, Pictures, Settings, half_kernels, on_gpu, on_test_set, train
from torch import Tensor, nn

from segship.models.unet import UNet

WIDTHS = (32, 64, 128, 256, 512)
CLASSES = 11


def prepare(images: Tensor) -> Tensor:
    """0..255 to 0..1, as milesial's data loader does."""
    return images / 255


def read(folder: Path) -> Pictures:
    """All pairs of a folder; class 11 becomes "no truth"."""
    photos = sorted(folder.glob("*.jpg"))
    images = np.stack([np.asarray(Image.open(photo).convert("RGB")).transpose(2, 0, 1) for photo in photos])
    labels = np.stack([np.asarray(Image.open(photo.with_suffix(".png"))) for photo in photos])
    return Pictures(torch.from_numpy(images), torch.from_numpy(np.where(labels < CLASSES, labels, IGNORE).astype(np.uint8)))


def pretrain(net: nn.Module, path: Path, epochs: int, seed: int) -> nn.Module:
    """Teach the network synthetic streets, whose classes have the same order as CamVid's."""
    device = next(net.parameters()).device
    data, val = (streets.load(path, split) for split in ("train", "val"))
    settings = Settings(classes=CLASSES, epochs=epochs, batch=32, crop=(256, 256), zoom=(0.8, 1.8), evaluations=4, seed=seed)
    taught, _ = train(net, data.to(device), val, settings, prepare)
    return taught.requires_grad_(requires_grad=True)


def fit(net: nn.Module, folder: Path, options: argparse.Namespace) -> tuple[nn.Module, Log, Settings]:
    """Train on `train`, choose on `val`."""
    device = next(net.parameters()).device
    settings = Settings(
        classes=CLASSES,
        epochs=options.epochs,
        batch=12,
        crop=(352, 480),
        zoom=(0.6, 1.9),
        rate=options.rate,
        decay=options.decay,
        rare=options.rare,
        dice=options.dice,
        evaluations=40,
        seed=options.seed,
    )
    best, log = train(net, read(folder / "train").to(device), read(folder / "val"), settings, prepare)
    return best, log, settings


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--log", type=Path, default=Path("recipes/results/camvid-unet.json"))
    parser.add_argument("--epochs", type=int, default=260)
    parser.add_argument("--rate", type=float, default=1e-3)
    parser.add_argument("--decay", type=float, default=2e-2)
    parser.add_argument("--rare", type=float, default=0.5)
    parser.add_argument("--dice", type=float, default=0.5)
    parser.add_argument("--streets", type=Path)
    parser.add_argument("--street-epochs", type=int, default=8)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()

    torch.manual_seed(options.seed)
    about = json.loads((options.data / "classes.json").read_text(encoding="utf-8"))
    net: nn.Module = on_gpu(UNet(3, CLASSES, WIDTHS, bilinear=False))
    if options.streets:
        net = pretrain(net, options.streets, options.street_epochs, options.seed)
    best, log, settings = fit(net, options.data, options)

    options.out.mkdir(parents=True, exist_ok=True)
    weights = half_kernels(best)
    torch.save({**weights, "mask_values": list(range(CLASSES))}, options.out / "camvid-unet.pth")
    facts = {"classes": about["names"], "colors": about["colors"], "scale": 1.0}
    (options.out / "camvid-unet.facts.json").write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")
    best.load_state_dict({name: tensor.float() for name, tensor in weights.items()})
    judged = on_test_set(best, read(options.data / "test"), settings, prepare, about["names"], batch=8)
    log.write(options.log, recipe="camvid-unet", **judged)


if __name__ == "__main__":
    main()
