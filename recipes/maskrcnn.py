"""What the Mask R-CNN recipes share: pictures with objects, augmentation on the GPU, the loop, and the score.

Networks are of detectron2's layout, whose normalisation `prepare` follows.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import math
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from recipes.detection import Objects, Sampling, losses, objects_of
from recipes.training import Average, half_kernels, parameter_groups, recolour, warm_cosine
from torch import Tensor, nn
from torch.nn import functional

import segship
from segship.core.image import ImageArray
from segship.core.predictions import Instances
from segship.models import build_module
from segship.models.maskrcnn import detectron2
from segship.models.maskrcnn.network import MaskRCNN
from segship.tasks import instance

STD = [57.375, 57.12, 58.395]

SMALLEST = 12
"""Pixels of the network's input: smaller remains of an object are not taught."""


@dataclass(frozen=True)
class Labelled:
    """Pictures (n, 3, h, w) uint8 RGB, object numbers (n, h, w) from 1, classes (n, most objects of a picture) int8 or -1.

    ``any_way_up``: turned and mirrored pictures are as likely as upright ones.
    """

    images: Tensor
    ids: Tensor
    classes: Tensor
    any_way_up: bool = False

    def to(self, device: torch.device) -> Labelled:
        return Labelled(self.images.to(device), self.ids.to(device), self.classes.to(device), self.any_way_up)

    def __len__(self) -> int:
        return len(self.images)


def network(shape: dict[str, Any], facts: dict[str, Any]) -> MaskRCNN:
    """The untrained network of these hyper-parameters, with the rules that the facts file states."""
    rules = {name: facts.get(name, value) for name, value in detectron2.LAYOUT.rules.items()}
    net = build_module("maskrcnn", {**shape, **rules})
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


def augment(data: Labelled, picks: Tensor, side: int, generator: torch.Generator) -> tuple[Tensor, Objects]:
    """Some pictures, enlarged, cut, turned around and recoloured: network inputs (n, 3, side, side) and their objects."""
    grid = functional.affine_grid(_maps(data, len(picks), generator), [len(picks), 1, side, side], align_corners=False)
    images = functional.grid_sample(data.images[picks].float(), grid, padding_mode="border", align_corners=False)
    ids = functional.grid_sample(data.ids[picks].float()[:, None], grid, mode="nearest", align_corners=False)[:, 0].long()
    inputs = prepare(recolour(images, generator)).contiguous(memory_format=torch.channels_last)
    return inputs, objects_of(ids, data.classes[picks].long(), SMALLEST)


def _maps(data: Labelled, n: int, generator: torch.Generator) -> Tensor:
    """Random affine maps, (n, 2, 3), from the input's coordinates to the picture's, both in -1..1."""
    device = data.images.device

    def uniform(low: float, high: float) -> Tensor:
        return torch.rand(n, generator=generator, device=device) * (high - low) + low

    half = 1 / torch.exp(uniform(-0.15, 0.5))  # of the picture that is seen
    flip = torch.where(uniform(0, 1) < 0.5, -1.0, 1.0)
    shift_x, shift_y = (uniform(-1, 1) * (1 - half).clamp(min=0.0) for _ in range(2))
    turn = (uniform(0, 4).floor() if data.any_way_up else torch.zeros_like(half)) * (math.pi / 2)
    cos, sin = torch.cos(turn) * half, torch.sin(turn) * half
    return torch.stack([torch.stack([cos * flip, -sin, shift_x], 1), torch.stack([sin * flip, cos, shift_y], 1)], 1)


def prepare(images: Tensor) -> Tensor:
    """RGB 0..255 to the network's input: BGR, detectron2's mean, deviation 1 for most pixels."""
    mean, std = (torch.tensor(values, device=images.device)[:, None, None] for values in (detectron2.LAYOUT.normalise.mean, STD))
    return (images.flip(1) - mean) / std


def train(net: MaskRCNN, data: Labelled, options: argparse.Namespace) -> tuple[nn.Module, list[dict[str, float]]]:
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


def save(net: nn.Module, facts: dict[str, Any], file: Path) -> Path:
    """The checkpoint as detectron2 writes one, and beside it the facts that it does not hold."""
    file.parent.mkdir(parents=True, exist_ok=True)
    weights = {key: value for key, value in half_kernels(net).items() if not key.endswith("num_batches_tracked")}
    torch.save({"model": weights}, file)
    file.with_suffix(".facts.json").write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")
    return file


def judge(checkpoint: Path, pictures: Iterable[tuple[ImageArray | Path, Instances]]) -> dict[str, Any]:
    """Mask AP of the saved file on pictures and their truth, as the product predicts; agreement alone without pycocotools."""
    agreements = []
    can_score = importlib.util.find_spec("pycocotools") is not None
    with segship.load_model(checkpoint) as model:
        scorer = instance.scorer(len(model.spec.classes), None)
        for image, truth in pictures:
            found = model.predict(image)
            assert isinstance(found, Instances)
            agreements.append(instance.agreement(truth, found))
            if can_score:
                scorer.add(truth, found)
        classes = model.spec.classes
    result: dict[str, Any] = {"images": len(agreements), "agreement": round(float(np.mean(agreements)), 4)}
    if not can_score:
        return result
    scores = scorer.scores()
    each = dict(zip(classes, np.round(scores.per_class, 2).tolist(), strict=True))
    extras = {name: round(value, 2) for name, value in scores.extras.items()}
    return {**result, "mask AP": round(scores.mean, 2), "mask AP of": each, **extras}


def log_run(recipe: str, options: argparse.Namespace, start: float, log: list[dict[str, float]], **judged: Any) -> None:
    """Write and print what came of a run that began at ``start`` (`time.perf_counter`)."""
    said = {name: str(value) for name, value in vars(options).items() if name not in ("out", "log", "data")}
    result = {"recipe": recipe, **judged, "seconds": round(time.perf_counter() - start, 1), "options": said, "log": log}
    options.log.parent.mkdir(parents=True, exist_ok=True)
    options.log.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print({name: result[name] for name in (*judged, "seconds")})


def parser(about: str | None, *, log: str, epochs: int, minutes: float, batch: int, side: int) -> argparse.ArgumentParser:
    """The options that both recipes have, with one's own defaults."""
    found = argparse.ArgumentParser(description=about, formatter_class=argparse.RawDescriptionHelpFormatter)
    found.add_argument("--out", type=Path, required=True)
    found.add_argument("--log", type=Path, default=Path("recipes/results") / log)
    found.add_argument("--epochs", type=int, default=epochs)
    found.add_argument("--minutes", type=float, default=minutes)
    found.add_argument("--batch", type=int, default=batch)
    found.add_argument("--input", type=int, default=side)
    found.add_argument("--rate", type=float, default=1e-3)
    found.add_argument("--decay", type=float, default=2e-2)
    found.add_argument("--seed", type=int, default=0)
    return found
