"""A small Mask R-CNN for the things of synthetic streets: signs, cars, pedestrians, cyclists; detectron2's layout.

    python -m recipes.train_scenes_maskrcnn --out src/segship/assets

A ResNet-18 of half the usual width, an FPN of 96 channels and small heads: 3.6 million parameters, trained from scratch in
about eight minutes on one H100 (`--minutes` bounds it: the learning rate falls with the time that is left). The 256-pixel
streets are enlarged 1.5 times: signs and far pedestrians are a few pixels wide.

Writes `scenes-maskrcnn.pth` (`{"model": ...}`, kernels float16), `scenes-maskrcnn.facts.json` and the log with mask AP.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from recipes.detection import Objects, Sampling, losses, objects_of
from recipes.streets import FIRST_TRAINING_SEED, TEST, VAL
from recipes.training import Average, half_kernels, on_gpu, parameter_groups, recolour, warm_cosine
from torch import Tensor, nn
from torch.nn import functional

import segship
from segship.core.predictions import Instances, MaskCrop
from segship.models import build_module
from segship.models.maskrcnn import detectron2
from segship.models.maskrcnn.network import MaskRCNN
from segship.scenes import CLASSES, COLORS, THINGS, Scene, generate
from segship.tasks import instance

SIDE, INPUT, MOST = 256, 384, 64
"""Pixels of a street and of the network's input; objects of one street at most."""

SMALLEST = 12
"""Pixels of the network's input: smaller remains of an object are not taught."""

FACTS: dict[str, Any] = {
    "classes": [CLASSES[each] for each in THINGS],
    "colors": [COLORS[each] for each in THINGS],
    "category_ids": list(range(1, len(THINGS) + 1)),
    "resize": {"type": "fit", "long": INPUT, "short": INPUT, "kernel": "cv2_linear"},
    "std": [57.375, 57.12, 58.395],
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


@dataclass(frozen=True)
class Streets:
    """Pictures (n, 3, h, w) uint8 RGB, object numbers (n, h, w) uint8 from 1, classes (n, MOST) int8 or -1."""

    images: Tensor
    ids: Tensor
    classes: Tensor

    def to(self, device: torch.device) -> Streets:
        return Streets(self.images.to(device), self.ids.to(device), self.classes.to(device))

    def __len__(self) -> int:
        return len(self.images)


def network() -> MaskRCNN:
    """The untrained network with the rules that the facts file states."""
    rules = {name: FACTS.get(name, value) for name, value in detectron2.LAYOUT.rules.items()}
    net = build_module("maskrcnn", {**NETWORK, **rules})
    assert isinstance(net, MaskRCNN)
    for part in net.modules():
        if isinstance(part, nn.Conv2d | nn.ConvTranspose2d | nn.Linear):
            nn.init.kaiming_normal_(part.weight, nonlinearity="relu")
            if part.bias is not None:
                nn.init.zeros_(part.bias)
    head, box, mask = net.proposal_generator.rpn_head, net.roi_heads.box_predictor, net.roi_heads.mask_head
    for layer in (head.objectness_logits, head.anchor_deltas, box.cls_score, box.bbox_pred, mask.predictor):
        nn.init.normal_(layer.weight, std=0.01)
    return net


def _paint(seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    scene = generate(seed, (SIDE, SIDE))
    classes = np.full(MOST, -1, np.int8)
    for segment in scene.segments:
        if segment.is_thing and segment.id <= MOST:
            classes[segment.id - 1] = THINGS.index(segment.class_id)
    ids = np.where(scene.instances <= MOST, scene.instances, 0).astype(np.uint8)
    return scene.image.transpose(2, 0, 1), ids, classes


def paint(seeds: range) -> Streets:
    """The streets of some seeds, painted on all cores."""
    with ProcessPoolExecutor() as pool:
        parts = zip(*pool.map(_paint, seeds, chunksize=16), strict=True)
        return Streets(*(torch.from_numpy(np.stack(part)) for part in parts))


def augment(data: Streets, picks: Tensor, side: int, generator: torch.Generator) -> tuple[Tensor, Objects]:
    """Some streets, enlarged, cut, turned around and recoloured: network inputs (n, 3, side, side) and their objects."""
    n, device = len(picks), picks.device

    def uniform(low: float, high: float) -> Tensor:
        return torch.rand(n, generator=generator, device=device) * (high - low) + low

    half = 1 / torch.exp(uniform(-0.15, 0.5))  # of the street that is seen
    flip = torch.where(uniform(0, 1) < 0.5, -1.0, 1.0)
    shift_x, shift_y = (uniform(-1, 1) * (1 - half).clamp(min=0.0) for _ in range(2))
    none = torch.zeros_like(half)
    maps = torch.stack([torch.stack([half * flip, none, shift_x], 1), torch.stack([none, half, shift_y], 1)], 1)
    grid = functional.affine_grid(maps, [n, 1, side, side], align_corners=False)
    images = functional.grid_sample(data.images[picks].float(), grid, padding_mode="border", align_corners=False)
    ids = functional.grid_sample(data.ids[picks].float()[:, None], grid, mode="nearest", align_corners=False)[:, 0].long()
    inputs = prepare(recolour(images, generator)).contiguous(memory_format=torch.channels_last)
    return inputs, objects_of(ids, data.classes[picks].long(), SMALLEST)


def prepare(images: Tensor) -> Tensor:
    """RGB 0..255 to the network's input: BGR, detectron2's mean, deviation 1 for most pixels."""
    mean, std = (
        torch.tensor(values, device=images.device)[:, None, None] for values in (detectron2.LAYOUT.normalise.mean, FACTS["std"])
    )
    return (images.flip(1) - mean) / std


def train(net: MaskRCNN, data: Streets, options: argparse.Namespace) -> tuple[nn.Module, list[dict[str, float]]]:
    """Train in place until the epochs or the minutes are over; returns the averaged network and the losses of each epoch."""
    device = data.images.device
    generator = torch.Generator(device).manual_seed(options.seed)
    optimiser = torch.optim.AdamW(parameter_groups(net, options.decay), lr=options.rate, fused=device.type == "cuda")
    steps = max(1, len(data) // options.batch)
    factor, average = warm_cosine(1000, 0.05), Average(net, 0.998)
    start, log, step = time.perf_counter(), [], 0
    net.train()
    for epoch in range(1, options.epochs + 1):
        sums: dict[str, float] = {}
        order = torch.randperm(len(data), generator=generator, device=device)
        for picks in torch.split(order[: steps * options.batch], options.batch):
            done = max(step / (steps * options.epochs), (time.perf_counter() - start) / (60 * options.minutes))
            for group in optimiser.param_groups:
                group["lr"] = options.rate * factor(int(1000 * min(done, 1.0)))
            found = losses(net, *augment(data, picks, options.input, generator), Sampling())
            optimiser.zero_grad(set_to_none=True)
            torch.autograd.backward(torch.stack(list(found.values())).sum())
            nn.utils.clip_grad_norm_(net.parameters(), 5.0)
            optimiser.step()
            average.update()
            step += 1
            if step % 20 == 0 or step == 1:
                sums = {name: float(value.detach()) for name, value in found.items()}
            if done >= 1:
                break
        log.append({"epoch": epoch, **sums})
        print(f"{epoch:3d}  {' '.join(f'{k} {v:.3f}' for k, v in sums.items())}  {time.perf_counter() - start:.0f} s", flush=True)
        if done >= 1:
            break
    return average.net, log


def save(net: nn.Module, out: Path) -> Path:
    """The checkpoint as detectron2 writes one, and the facts that it does not hold."""
    out.mkdir(parents=True, exist_ok=True)
    weights = {key: value for key, value in half_kernels(net).items() if not key.endswith("num_batches_tracked")}
    torch.save({"model": weights}, out / "scenes-maskrcnn.pth")
    (out / "scenes-maskrcnn.facts.json").write_text(json.dumps(FACTS, indent=1) + "\n", encoding="utf-8")
    return out / "scenes-maskrcnn.pth"


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


def judge(checkpoint: Path, seeds: range) -> dict[str, Any]:
    """Mask AP of the saved file on some streets, as the product predicts; agreement alone where pycocotools is missing."""
    scorer, agreements = instance.scorer(len(THINGS), None), []
    can_score = importlib.util.find_spec("pycocotools") is not None
    with segship.load_model(checkpoint) as model:
        for seed in seeds:
            scene = generate(seed, (SIDE, SIDE))
            truth, found = truth_of(scene), model.predict(scene.image)
            assert isinstance(found, Instances)
            agreements.append(instance.agreement(truth, found))
            if can_score:
                scorer.add(truth, found)
    result: dict[str, Any] = {"scenes": len(agreements), "agreement": round(float(np.mean(agreements)), 4)}
    if not can_score:
        return result
    scores = scorer.scores()
    each = dict(zip(FACTS["classes"], np.round(scores.per_class, 2).tolist(), strict=True))
    extras = {name: round(value, 2) for name, value in scores.extras.items()}
    return {**result, "mask AP": round(scores.mean, 2), "mask AP of": each, **extras}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--log", type=Path, default=Path("recipes/results/scenes-maskrcnn.json"))
    parser.add_argument("--scenes", type=int, default=8000)
    parser.add_argument("--epochs", type=int, default=24)
    parser.add_argument("--minutes", type=float, default=7.0)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--input", type=int, default=INPUT)
    parser.add_argument("--rate", type=float, default=1e-3)
    parser.add_argument("--decay", type=float, default=2e-2)
    parser.add_argument("--judged", type=int, default=100, help="scenes that mask AP is measured on")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()

    torch.manual_seed(options.seed)
    start = time.perf_counter()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    data = paint(range(FIRST_TRAINING_SEED, FIRST_TRAINING_SEED + options.scenes)).to(device)
    print(f"{len(data)} streets in {time.perf_counter() - start:.0f} s", flush=True)
    net = on_gpu(network()) if device.type == "cuda" else network()
    print(f"{sum(parameter.numel() for parameter in net.parameters()) / 1e6:.2f} million parameters", flush=True)
    trained, log = train(net, data, options)
    checkpoint = save(trained.cpu(), options.out)
    result = {
        "recipe": "scenes-maskrcnn",
        "val": judge(checkpoint, VAL[: options.judged]),
        "test": judge(checkpoint, TEST[: options.judged]),
        "seconds": round(time.perf_counter() - start, 1),
        "options": {name: str(value) for name, value in vars(options).items() if name not in ("out", "log")},
        "log": log,
    }
    options.log.parent.mkdir(parents=True, exist_ok=True)
    options.log.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print({name: result[name] for name in ("val", "test", "seconds")})


if __name__ == "__main__":
    main()
