"""A SegFormer-B1 on real photographs: CamVid, 11 classes, begun from the embedded network of synthetic streets.

    python -m recipes.train_camvid_segformer --data DIR/camvid --out weights

The eleven classes of the streets have CamVid's order, so the whole network goes on where `train_scenes_segformer` ended. The
pictures (360 x 480) are enlarged 1.5 times. `DIR/camvid` is that of `train_camvid_unet`; the best epoch is chosen on `val`, and
`test` is looked at once, at the end.

Writes the folder `camvid-segformer` (Hugging Face's layout, float16), `camvid-segformer.facts.json` and the log.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import torch
from recipes.train_camvid_unet import CLASSES, read
from recipes.train_scenes_segformer import prepare, save
from recipes.training import Settings, on_gpu, on_test_set, train

from segship import load_model

NOMINAL = 1.5
SIZE = (540, 720)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--begin", type=Path, default=Path("src/segship/assets/scenes-segformer"))
    parser.add_argument("--log", type=Path, default=Path("recipes/results/camvid-segformer.json"))
    parser.add_argument("--epochs", type=int, default=200)
    parser.add_argument("--rate", type=float, default=3e-4)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()

    torch.manual_seed(options.seed)
    about = json.loads((options.data / "classes.json").read_text(encoding="utf-8"))
    net = on_gpu(load_model(options.begin).model.module.float().requires_grad_(requires_grad=True))
    settings = Settings(
        classes=CLASSES,
        epochs=options.epochs,
        batch=16,
        crop=(512, 640),
        zoom=(0.6, 1.9),
        nominal=NOMINAL,
        rate=options.rate,
        evaluations=40,
        seed=options.seed,
    )
    data, val = read(options.data / "train"), read(options.data / "val")
    best, log = train(net, data.to(torch.device("cuda")), val, settings, prepare)

    save(best, options.out / "camvid-segformer", about["names"], about["colors"], SIZE)
    best.load_state_dict({k: t.half().float() if t.is_floating_point() else t for k, t in best.state_dict().items()})
    judged = on_test_set(best, read(options.data / "test"), settings, prepare, about["names"], batch=8)
    log.write(options.log, recipe="camvid-segformer", **judged)


if __name__ == "__main__":
    main()
