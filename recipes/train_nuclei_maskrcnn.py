"""A small Mask R-CNN for nuclei in microscopy: one class, up to hundreds of objects in a picture; detectron2's layout.

    python -m recipes.train_nuclei_maskrcnn --data DIR/nuclei --out weights

`DIR/nuclei` holds `train`, `val` and `test`, pairs of NAME.jpg and NAME.png (16-bit object ids, 0 = background), and
`classes.json`: the stage 1 images of the 2018 Data Science Bowl with their public label fixes (466, 66 and 66 of them here,
256 x 256 to 1040 x 1388 pixels). The network is that of `train_scenes_maskrcnn`, with smaller anchors, at 512 pixels: the
picture's shorter side. Pictures are cut into squares of that size for training; they have no up and down.

Writes `nuclei-maskrcnn.pth` (`{"model": ...}`, kernels float16), `nuclei-maskrcnn.facts.json` and the log with mask AP. `test`
is looked at once, at the end.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from itertools import product
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from recipes.maskrcnn import STD, Labelled, judge, log_run, network, parser, save, train
from recipes.train_scenes_maskrcnn import NETWORK
from recipes.training import on_gpu

from segship.core.predictions import Instances
from segship.datasets import open_dataset

INPUT, MOST = 512, 400
"""Pixels of the picture's shorter side, and objects of one square at most."""

FACTS: dict[str, Any] = {
    "classes": ["nucleus"],
    "colors": [[220, 20, 60]],
    "category_ids": [1],
    "resize": {"type": "fit", "long": 2 * INPUT, "short": INPUT, "kernel": "cv2_linear"},
    "std": STD,
    "anchor_sizes": [12.0, 24.0, 48.0, 96.0, 192.0],
    "rpn_per_level": 1000,
    "rpn_total": 600,
    "sampling_ratio": 2,
    "detections": 300,
}


def squares(image: NDArray[np.uint8], ids: NDArray[np.integer]) -> Iterator[tuple[NDArray[np.uint8], NDArray[np.int16]]]:
    """A picture (h, w, 3) as the product resizes it, cut into as few overlapping squares as cover it; ids (h, w) likewise."""
    scale = min(INPUT / min(ids.shape), 2 * INPUT / max(ids.shape))
    size = (max(INPUT, round(ids.shape[1] * scale)), max(INPUT, round(ids.shape[0] * scale)))
    large = cv2.resize(image, size, interpolation=cv2.INTER_LINEAR)
    names = cv2.resize(ids.astype(np.int32), size, interpolation=cv2.INTER_NEAREST)
    columns, rows = (np.linspace(0, side - INPUT, -(-side // INPUT)).astype(int) for side in size)
    for top, left in product(rows, columns):
        cut = np.s_[top : top + INPUT, left : left + INPUT]
        _, numbers = np.unique(np.append(names[cut], 0), return_inverse=True)  # 0, the background, is there and comes first
        renumbered = numbers[:-1].reshape(INPUT, INPUT)
        yield large[cut], np.where(renumbered <= MOST, renumbered, 0).astype(np.int16)


def read(folder: Path) -> Labelled:
    """All pictures of a folder as squares."""
    dataset = open_dataset(folder)
    found = [
        each
        for sample in dataset.samples
        for each in squares(cv2.imread(str(sample.image), cv2.IMREAD_COLOR)[..., ::-1], dataset.load_label(sample))
    ]
    images, ids = (np.stack(part) for part in zip(*found, strict=True))
    classes = np.where(np.arange(1, MOST + 1) <= ids.max(axis=(1, 2))[:, None], 0, -1).astype(np.int8)
    pictures = torch.from_numpy(np.ascontiguousarray(images.transpose(0, 3, 1, 2)))
    return Labelled(pictures, torch.from_numpy(ids), torch.from_numpy(classes), any_way_up=True)


def labelled(folder: Path) -> Iterator[tuple[Path, Instances]]:
    """Pictures to judge on."""
    dataset = open_dataset(folder)
    for sample in dataset.samples:
        truth = dataset.load_truth(sample)
        assert isinstance(truth, Instances)
        yield sample.image, truth


def main() -> None:
    arguments = parser(__doc__, log="nuclei-maskrcnn.json", epochs=120, minutes=7.0, batch=12, side=INPUT)
    arguments.add_argument("--data", type=Path, required=True)
    options = arguments.parse_args()

    torch.manual_seed(options.seed)
    start = time.perf_counter()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    data = read(options.data / "train").to(device)
    print(f"{len(data)} squares in {time.perf_counter() - start:.0f} s", flush=True)
    net = network({**NETWORK, "n_classes": 1}, FACTS)
    trained, log = train(on_gpu(net) if device.type == "cuda" else net, data, options)
    checkpoint = save(trained.cpu(), FACTS, options.out / "nuclei-maskrcnn.pth")
    judged = {name: judge(checkpoint, labelled(options.data / name)) for name in ("val", "test")}
    log_run("nuclei-maskrcnn", options, start, log, **judged)


if __name__ == "__main__":
    main()
