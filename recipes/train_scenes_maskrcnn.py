"""A small Mask R-CNN for the things of synthetic streets: signs, cars, pedestrians, cyclists; detectron2's layout.

    python -m recipes.train_scenes_maskrcnn --out src/segship/assets

A ResNet-18 of half the usual width, an FPN of 96 channels and small heads: 3.6 million parameters, trained from scratch in
about eight minutes on one H100 (`--minutes` bounds it: the learning rate falls with the time that is left). The 256-pixel
streets are enlarged 1.5 times: signs and far pedestrians are a few pixels wide.

Writes `scenes-maskrcnn.pth` (`{"model": ...}`, kernels float16), `scenes-maskrcnn.facts.json` and the log with mask AP.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from typing import Any

import numpy as np
import torch
from recipes.maskrcnn import STD, Labelled, judge, log_run, network, parser, save, train
from recipes.streets import FIRST_TRAINING_SEED, TEST, VAL
from recipes.training import on_gpu

from segship.core.image import ImageArray
from segship.core.predictions import Instances, MaskCrop
from segship.scenes import CLASSES, COLORS, THINGS, Scene, generate

SIDE, INPUT, MOST = 256, 384, 64
"""Pixels of a street and of the network's input; objects of one street at most."""

FACTS: dict[str, Any] = {
    "classes": [CLASSES[each] for each in THINGS],
    "colors": [COLORS[each] for each in THINGS],
    "category_ids": list(range(1, len(THINGS) + 1)),
    "resize": {"type": "fit", "long": INPUT, "short": INPUT, "kernel": "cv2_linear"},
    "std": STD,
    "anchor_sizes": [16.0, 32.0, 64.0, 128.0, 256.0],
    "rpn_per_level": 300,
    "rpn_total": 200,
    "sampling_ratio": 2,
    "detections": 60,
}

NETWORK: dict[str, Any] = {
    "blocks": [2, 2, 2, 2],
    "stem": 32,
    "inner": [32, 64, 128, 192],
    "widths": [32, 64, 128, 192],
    "bottleneck": False,
    "channels": 96,
    "rpn_width": 96,
    "n_classes": len(THINGS),
    "box_size": 7,
    "box_widths": [192, 192],
    "mask_size": 14,
    "mask_widths": [96, 96, 96, 96],
}


def _paint(seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    scene = generate(seed, (SIDE, SIDE))
    classes = np.full(MOST, -1, np.int8)
    for segment in scene.segments:
        if segment.is_thing and segment.id <= MOST:
            classes[segment.id - 1] = THINGS.index(segment.class_id)
    ids = np.where(scene.instances <= MOST, scene.instances, 0).astype(np.uint8)
    return scene.image.transpose(2, 0, 1), ids, classes


def paint(seeds: range) -> Labelled:
    """The streets of some seeds, painted on all cores."""
    with ProcessPoolExecutor() as pool:
        parts = zip(*pool.map(_paint, seeds, chunksize=16), strict=True)
        return Labelled(*(torch.from_numpy(np.stack(part)) for part in parts))


def truth_of(scene: Scene) -> Instances:
    """A street's things."""
    things = [segment for segment in scene.segments if segment.is_thing]
    boxes, masks = np.zeros((len(things), 4), np.float32), []
    for row, segment in enumerate(things):
        y, x = np.nonzero(scene.instances == segment.id)
        boxes[row] = x.min(), y.min(), x.max() + 1, y.max() + 1
        masks.append(
            MaskCrop(int(y.min()), int(x.min()), scene.instances[y.min() : y.max() + 1, x.min() : x.max() + 1] == segment.id)
        )
    classes = np.array([THINGS.index(segment.class_id) for segment in things], np.int64)
    return Instances((SIDE, SIDE), boxes, np.ones(len(things), np.float32), classes, tuple(masks))


def streets(seeds: range) -> Iterator[tuple[ImageArray, Instances]]:
    """Streets to judge on."""
    for scene in (generate(seed, (SIDE, SIDE)) for seed in seeds):
        yield scene.image, truth_of(scene)


def main() -> None:
    arguments = parser(__doc__, log="scenes-maskrcnn.json", epochs=24, minutes=7.0, batch=32, side=INPUT)
    arguments.add_argument("--scenes", type=int, default=8000)
    arguments.add_argument("--judged", type=int, default=100, help="scenes that mask AP is measured on")
    options = arguments.parse_args()

    torch.manual_seed(options.seed)
    start = time.perf_counter()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    data = paint(range(FIRST_TRAINING_SEED, FIRST_TRAINING_SEED + options.scenes)).to(device)
    print(f"{len(data)} streets in {time.perf_counter() - start:.0f} s", flush=True)
    net = network(NETWORK, FACTS)
    trained, log = train(on_gpu(net) if device.type == "cuda" else net, data, options)
    checkpoint = save(trained.cpu(), FACTS, options.out / "scenes-maskrcnn.pth")
    judged = {name: judge(checkpoint, streets(seeds[: options.judged])) for name, seeds in (("val", VAL), ("test", TEST))}
    log_run("scenes-maskrcnn", options, start, log, **judged)


if __name__ == "__main__":
    main()
