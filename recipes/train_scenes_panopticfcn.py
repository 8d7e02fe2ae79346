"""The small Panoptic FCN of `segship demo`, on synthetic streets, saved as detectron2 saves it.

    python -m recipes.train_scenes_panopticfcn --out src/segship/assets

Eight to nine minutes on one GPU with 16 CPU cores, of which the first half minute paints the streets. ResNet-18 of half width,
FPN and heads of 64 channels, no deformable convolutions: 3.7 million parameters, kernels stored as float16.

Writes `scenes-panopticfcn.pth`, `scenes-panopticfcn.facts.json` and the log. Things come first in its classes, then stuff.
The pictures are enlarged to `--input` pixels a side: masks have a quarter of that resolution. Learning ends after `--minutes`
or `--steps`, whichever comes first, and the rate falls accordingly. The score threshold and the smallest stuff area are
chosen on the validation set; the test set is looked at once, at the end.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import torch
from numpy.typing import NDArray
from recipes.panoptic_losses import losses, truth_of
from recipes.streets import FIRST_TRAINING_SEED, TEST, VAL
from recipes.training import IGNORE, Average, Pictures, Settings, augment, half_kernels, on_gpu
from torch import Tensor, nn

from segship.core.image import frame
from segship.core.image import prepare as prepare_image
from segship.core.predictions import PanopticMap, Segment
from segship.models import Model, load_model
from segship.models.panopticfcn.heads import HeadShape
from segship.models.panopticfcn.layout import official
from segship.models.panopticfcn.network import PanopticFCN
from segship.scenes import CLASSES, COLORS, THINGS, generate
from segship.scenes.dataset import PANOPTIC_ORDER
from segship.tasks import panoptic

MEAN, STD = (103.53, 116.28, 123.675), (57.375, 57.12, 58.395)  # of B, G, R
N_STUFF = len(CLASSES) - len(THINGS) + 1
SIZE = (256, 256)
NETWORK: dict[str, Any] = {
    "blocks": [2, 2, 2, 2],
    "stem": 32,
    "inner": [32, 64, 128, 256],
    "widths": [32, 64, 128, 256],
    "bottleneck": False,
    "stride_in_1x1": True,
    "fpn_channels": 64,
    "semantic_channels": 64,
    **HeadShape(3, 64, coord=False, deform=False, norm=True).as_facts("position"),
    **HeadShape(3, 64, coord=True, deform=False, norm=True).as_facts("kernel"),
    **HeadShape(3, 64, coord=True, deform=False, norm=False).as_facts("encoder"),
    "n_things": len(THINGS),
    "n_stuff": N_STUFF,
    "top_num": 100,
    "center_threshold": 0.05,
    "region_threshold": 0.05,
    "mask_threshold": 0.4,
    "similarity": 0.9,
    "class_specific": True,
    "least_score": 0.05,
    "center_pools": [3, 3, 3, 5, 5],
}
CODES = 16
"""A label is 16 times the object's number plus the class: no object's code is :data:`IGNORE`, whose class would be 15."""


@dataclass(frozen=True)
class Plan:
    """How to learn: at most ``steps`` batches of ``batch`` pictures and ``seconds``, at ``side`` pixels, rate ``rate``."""

    steps: int
    seconds: float
    batch: int
    side: int
    rate: float
    seed: int


def paint(seed: int) -> tuple[NDArray[np.uint8], NDArray[np.int16]]:
    """Picture (3, h, w) and labels of a scene."""
    scene = generate(seed, SIZE)
    return scene.image.transpose(2, 0, 1), scene.instances.astype(np.int16) * CODES + scene.semantic


def paint_all(seeds: range, workers: int | None) -> Pictures:
    """The scenes of some seeds."""
    with ProcessPoolExecutor(workers) as pool:
        images, labels = zip(*pool.map(paint, seeds, chunksize=16), strict=True)
    return Pictures(torch.from_numpy(np.stack(images)), torch.from_numpy(np.stack(labels)))


def initialise(net: PanopticFCN) -> None:
    """As the official code does; the backbone, which starts from nothing here, as He et al. do."""
    for name, module in net.named_modules():
        if isinstance(module, nn.Conv2d):
            if name.startswith(("backbone.bottom_up", "semantic_fpn")):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
            elif name.endswith(("out_inst", "out_sem", "out_conv", "embed_extractor")):
                nn.init.normal_(module.weight, std=0.01)
            if module.bias is not None:
                nn.init.constant_(module.bias, -2.19 if name.endswith(("out_inst", "out_sem")) else 0.0)


def prepare(images: Tensor, side: int) -> Tensor:
    """Pictures (n, 3, h, w) of 0..255 to the network's input."""
    mean, std = (torch.tensor(values, device=images.device)[:, None, None] for values in (MEAN, STD))
    larger = nn.functional.interpolate(images, size=(side, side), mode="bilinear", align_corners=False)
    return ((larger.flip(1) - mean) / std).contiguous(memory_format=torch.channels_last)


def lookup(device: torch.device) -> tuple[Tensor, Tensor]:
    """For each of the 16 codes of a class: the thing, and the stuff class (0: things, ``N_STUFF``: unknown)."""
    stuff_order = [class_id for class_id in range(len(CLASSES)) if class_id not in THINGS]
    things = [THINGS.index(code) if code in THINGS else 0 for code in range(CODES)]
    stuff = [0 if c in THINGS else stuff_order.index(c) + 1 if c < len(CLASSES) else N_STUFF for c in range(CODES)]
    return torch.tensor(things, device=device), torch.tensor(stuff, device=device)


def batches(data: Pictures, plan: Plan) -> Iterator[tuple[Tensor, Tensor]]:
    """Without end: network inputs, and labels at half their size."""
    device = data.images.device
    generator = torch.Generator(device).manual_seed(plan.seed)
    half = (plan.side // 2, plan.side // 2)
    nominal = half[0] / SIZE[0]
    settings = Settings(classes=len(CLASSES), epochs=1, batch=plan.batch, crop=half, zoom=(0.85, 1.7), nominal=nominal)
    while True:
        order = torch.randperm(len(data), generator=generator, device=device)
        for picks in torch.split(order, plan.batch):
            if len(picks) == plan.batch:
                images, labels = augment(data, picks, settings, generator)
                yield prepare(images, plan.side), labels


def rate_at(progress: float) -> float:
    """Factor of the learning rate: a short rise, then a cosine to zero."""
    return min(1.0, progress / 0.04 + 0.01) * 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))


def train(net: PanopticFCN, data: Pictures, plan: Plan) -> tuple[nn.Module, dict[str, Any]]:
    """Train in place; returns the averaged network, in eval mode, and what happened."""
    device = data.images.device
    matrices, others = ([p for p in net.parameters() if (p.ndim > 1) == many] for many in (True, False))
    groups = [{"params": matrices, "weight_decay": 2e-2}, {"params": others, "weight_decay": 0.0}]
    optimiser = torch.optim.AdamW(groups, lr=plan.rate, fused=device.type == "cuda")
    average, things_of, stuff_of = Average(net, 0.998), *lookup(device)
    start, log, recent = time.perf_counter(), [], []
    for step, (images, labels) in enumerate(batches(data, plan)):
        progress = max(step / plan.steps, (time.perf_counter() - start) / plan.seconds)
        if progress >= 1:
            break
        for group in optimiser.param_groups:
            group["lr"] = plan.rate * rate_at(progress)
        codes, objects = labels % CODES, torch.where(labels == IGNORE, 0, labels // CODES)
        with torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"):
            features, levels = net.head_outputs(images)
        parts = losses(net, features, levels, truth_of(objects, things_of[codes], stuff_of[codes], N_STUFF))
        optimiser.zero_grad(set_to_none=True)
        torch.autograd.backward(torch.stack(list(parts.values())).sum())
        nn.utils.clip_grad_norm_(net.parameters(), 10.0)
        optimiser.step()
        average.update()
        recent.append(torch.stack(list(parts.values())).detach())
        if len(recent) == 250 or step == plan.steps - 1:
            means = [round(value, 4) for value in torch.stack(recent).mean(0).tolist()]
            log.append({"step": step + 1, **dict(zip(parts, means, strict=True))})
            print(log[-1], f"{time.perf_counter() - start:.0f} s", flush=True)
            recent = []
    return average.net, {"steps": step, "train_s": round(time.perf_counter() - start, 1), "log": log}


def truth_map(labels: NDArray[np.int16]) -> PanopticMap:
    """The exact truth of a scene, in the model's class ids."""
    objects, codes = labels // CODES, labels % CODES
    n = int(objects.max())
    ids = np.where(objects > 0, objects, n + 1 + codes).astype(np.int32)
    segments = []
    for number in np.unique(ids).tolist():
        class_id = int(codes[ids == number][0])
        segments.append(Segment(number, PANOPTIC_ORDER.index(class_id), is_thing=number <= n))
    return PanopticMap(ids, tuple(segments))


def evaluate(model: Model, data: Pictures, device: torch.device) -> list[dict[str, NDArray[Any]]]:
    """The raw outputs for every picture: the product's own preparation, and the network in float32 on ``device``."""
    module, names = model.module.to(device), [output.name for output in model.spec.outputs]
    outputs = []
    with torch.inference_mode():
        for image in data.images.numpy():
            tensor = prepare_image(np.ascontiguousarray(image.transpose(1, 2, 0)), model.spec.image)
            results = module(torch.from_numpy(tensor).to(device))
            outputs.append({name: result.cpu().numpy() for name, result in zip(names, results, strict=True)})
    return outputs


def scores(
    model: Model, outputs: list[dict[str, NDArray[Any]]], truths: list[PanopticMap], **rules: Any
) -> tuple[float, list[float]]:
    """Panoptic quality and that of each class, in points, with some of the decoding's rules replaced."""
    spec = msgspec.structs.replace(model.spec, decode=msgspec.structs.replace(model.spec.decode, **rules))
    scorer, sizes = panoptic.scorer(len(CLASSES), None), frame(spec.image, SIZE)
    for each, truth in zip(outputs, truths, strict=True):
        scorer.add(truth, panoptic.decode(each, spec, sizes)[0])
    result = scorer.scores()
    return round(result.mean, 2), [round(float(value), 2) for value in result.per_class]


def facts_of(side: int, **rules: Any) -> dict[str, Any]:
    """What the checkpoint does not hold."""
    return {
        "classes": [CLASSES[class_id] for class_id in PANOPTIC_ORDER],
        "colors": [COLORS[class_id] for class_id in PANOPTIC_ORDER],
        "config": "R50-3x",
        "shortest_side": side,
        "longest_side": 2 * side,
        "mean": MEAN,
        "std": STD,
        **rules,
    }


def save(net: nn.Module, out: Path, facts: dict[str, Any]) -> Path:
    """The checkpoint in the official layout, and the facts beside it."""
    out.mkdir(parents=True, exist_ok=True)
    path = out / "scenes-panopticfcn.pth"
    torch.save({"model": half_weights(net)}, path)
    path.with_suffix(".facts.json").write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")
    return path


def half_weights(net: nn.Module) -> dict[str, Tensor]:
    """Official names; kernels in float16."""
    return {name: tensor.contiguous() for name, tensor in official(half_kernels(net)).items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--log", type=Path, default=Path("recipes/results/scenes-panopticfcn.json"))
    parser.add_argument("--scenes", type=int, default=8000)
    parser.add_argument("--held-out", type=int, default=300, help="scenes of the validation and of the test set, at most 300")
    parser.add_argument("--steps", type=int, default=9000)
    parser.add_argument("--minutes", type=float, default=6.5)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--input", type=int, default=512)
    parser.add_argument("--rate", type=float, default=1e-3)
    parser.add_argument("--workers", type=int)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()

    torch.manual_seed(options.seed)
    torch.backends.cudnn.benchmark = True
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    start = time.perf_counter()
    painted = partial(paint_all, workers=options.workers)
    data = painted(range(FIRST_TRAINING_SEED, FIRST_TRAINING_SEED + options.scenes)).to(device)
    val, test = (painted(seeds[: options.held_out]) for seeds in (VAL, TEST))
    print(f"painted in {time.perf_counter() - start:.0f} s", flush=True)

    net = PanopticFCN(NETWORK)
    initialise(net)
    net = (on_gpu(net) if device.type == "cuda" else net).train()
    plan = Plan(options.steps, 60 * options.minutes, options.batch, options.input, options.rate, options.seed)
    best, happened = train(net, data, plan)

    model = load_model(save(best, options.out, facts_of(options.input)))
    outputs, truths = evaluate(model, val, device), [truth_map(labels) for labels in val.labels.numpy()]
    grid = [{"score_threshold": score, "stuff_area": area} for score, area in product((0.2, 0.3, 0.4), (16, 48, 128))]
    val_pq, rules = max(((scores(model, outputs, truths, **rules)[0], rules) for rules in grid), key=lambda each: each[0])
    test_pq, each = scores(model, evaluate(model, test, device), [truth_map(labels) for labels in test.labels.numpy()], **rules)
    save(best, options.out, facts_of(options.input, **rules))
    names = [CLASSES[class_id] for class_id in PANOPTIC_ORDER]
    result = {"recipe": "scenes-panopticfcn", "test_pq": test_pq, "test_pq_of": dict(zip(names, each, strict=True))}
    result |= {"val_pq": val_pq, **rules, "all_s": round(time.perf_counter() - start, 1), **happened}
    options.log.parent.mkdir(parents=True, exist_ok=True)
    options.log.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(f"test PQ {test_pq} {result['test_pq_of']}, all in {result['all_s']} s")


if __name__ == "__main__":
    main()
