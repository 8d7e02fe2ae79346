"""What the recipes share: augmentation on the GPU, the loop, averaged weights, and the score.

Pictures and labels stay on the GPU as bytes. Every batch is cut out of them by one random affine map per picture,
recoloured, blurred and made noisy, all on the GPU, so that a small network never waits for data.
"""

from __future__ import annotations

import copy
import json
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional

IGNORE = 255

Prepare = Callable[[Tensor], Tensor]
"""From pictures (n, 3, h, w) float32 in 0..255 to what the network takes."""

Network = TypeVar("Network", bound=nn.Module)


@dataclass(frozen=True)
class Pictures:
    """Pictures (n, 3, h, w) uint8 RGB and labels (n, h, w) uint8, :data:`IGNORE` where there is no truth."""

    images: Tensor
    labels: Tensor

    def to(self, device: torch.device) -> Pictures:
        return Pictures(self.images.to(device), self.labels.to(device))

    def __len__(self) -> int:
        return len(self.images)


@dataclass(frozen=True)
class Settings:
    """One training run. `crop`: height and width that the network is trained at; `zoom`: network pixels per picture
    pixel, drawn log-uniformly; `nominal`: the factor that the product resizes by; `rare`: exponent of the class weights
    (0: none, 0.5: inverse square root of frequency); `dice`: weight of the soft Dice loss beside cross-entropy.
    """

    classes: int
    epochs: int
    batch: int
    crop: tuple[int, int]
    zoom: tuple[float, float]
    nominal: float = 1.0
    rate: float = 1e-3
    decay: float = 2e-2
    warmup: float = 0.05
    average: float = 0.998
    smoothing: float = 0.05
    rare: float = 0.5
    dice: float = 0.5
    evaluations: int = 20
    compiled: bool = True
    seed: int = 0


@dataclass
class Log:
    """What happened: one entry per evaluation, and the figures of the best."""

    entries: list[dict[str, float]] = field(default_factory=list)
    best_epoch: int = 0
    best_miou: float = 0.0
    seconds: float = 0.0

    def write(self, path: Path, **facts: object) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        rounded = [{k: round(v, 4) for k, v in entry.items()} for entry in self.entries]
        result = {**facts, "best_epoch": self.best_epoch, "val_miou": round(self.best_miou, 4), "train_s": round(self.seconds, 1)}
        path.write_text(json.dumps({**result, "log": rounded}, indent=1) + "\n", encoding="utf-8")


class Average:
    """An exponential moving average of all weights and statistics; young averages forget faster."""

    def __init__(self, net: nn.Module, keep: float) -> None:
        self.net, self.keep, self.steps = copy.deepcopy(net).eval().requires_grad_(requires_grad=False), keep, 0
        self._mine, self._new = ([t for t in n.state_dict().values() if t.is_floating_point()] for n in (self.net, net))

    @torch.no_grad()
    def update(self) -> None:
        """Move a little towards the network's present state."""
        self.steps += 1
        keep = min(self.keep, (1 + self.steps) / (10 + self.steps))
        torch._foreach_lerp_(self._mine, self._new, 1 - keep)


def on_gpu(net: Network) -> Network:
    """The network on the GPU, its kernels in the channels-last order that tensor cores want."""
    net.cuda()
    for parameter in net.parameters():
        if parameter.ndim == 4:
            parameter.data = parameter.data.contiguous(memory_format=torch.channels_last)
    return net


def augment(data: Pictures, picks: Tensor, settings: Settings, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Some pictures, cut and recoloured: (n, 3, *crop) float32 in 0..255, and labels (n, *crop) int64."""
    images, labels = data.images[picks].float(), data.labels[picks]
    grid = functional.affine_grid(_maps(images.shape, settings, generator), [len(picks), 1, *settings.crop], align_corners=False)
    known = (labels != IGNORE) * (labels.float() + 1)  # 0 then means "no truth", also beyond the picture's edge
    cut_labels = functional.grid_sample(known[:, None], grid, mode="nearest", align_corners=False)[:, 0].long() - 1
    cut_images = functional.grid_sample(images, grid, mode="bilinear", padding_mode="border", align_corners=False)
    return recolour(cut_images, generator), torch.where(cut_labels < 0, IGNORE, cut_labels)


def _maps(shape: torch.Size, settings: Settings, generator: torch.Generator) -> Tensor:
    """Random affine maps, (n, 2, 3), from the crop's coordinates to the picture's, both in -1..1."""
    n, _, height, width = shape

    def uniform(low: float, high: float) -> Tensor:
        return torch.rand(n, generator=generator, device=generator.device) * (high - low) + low

    zoom = torch.exp(uniform(math.log(settings.zoom[0]), math.log(settings.zoom[1]))) * settings.nominal
    stretch = torch.exp(uniform(-0.08, 0.08))
    turn = uniform(-1, 1) ** 3 * 0.12  # radians; seldom more than a few degrees
    flip = torch.where(uniform(0, 1) < 0.5, -1.0, 1.0)
    crop_h, crop_w = settings.crop
    half_w, half_h = crop_w / (width * zoom * stretch), crop_h / (height * zoom / stretch)
    shift_x = uniform(-1, 1) * (1 - half_w).clamp(min=0.0) * 1.05
    shift_y = uniform(-1, 1) * (1 - half_h).clamp(min=0.0) * 1.05
    cos, sin = torch.cos(turn), torch.sin(turn)
    across = torch.stack([half_w * cos * flip, -half_w * sin, shift_x], 1)
    down = torch.stack([half_h * sin * flip, half_h * cos, shift_y], 1)
    return torch.stack([across, down], 1)


def recolour(images: Tensor, generator: torch.Generator) -> Tensor:
    """Another exposure, contrast, saturation, tint, focus and noise for each picture."""
    n = len(images)

    def uniform(low: float, high: float, channels: int = 1) -> Tensor:
        return torch.rand(n, channels, 1, 1, generator=generator, device=images.device) * (high - low) + low

    grey = images.mean(1, keepdim=True)
    x = grey + (images - grey) * uniform(0.5, 1.5)
    middle = grey.mean((2, 3), keepdim=True)
    x = (middle + (x - middle) * uniform(0.7, 1.35)) * uniform(0.75, 1.25) * uniform(0.92, 1.08, 3) + uniform(-14, 14)
    blurred = functional.avg_pool2d(functional.pad(x, (1, 1, 1, 1), mode="replicate"), 3, 1)
    x = x + (blurred - x) * (uniform(-0.9, 1.0).clamp(min=-0.3))  # below 0 sharpens
    noise = torch.randn(x.shape, generator=generator, device=x.device) * (uniform(-6, 10).clamp(min=0.0))
    return (x + noise).clamp(0, 255)


def class_weights(labels: Tensor, settings: Settings) -> Tensor:
    """Weights (classes,) float32: frequency to the power `-rare`, their pixel mean 1, none above 8."""
    counts = torch.bincount(labels.flatten().int(), minlength=256)[: settings.classes].float()
    share = counts / counts.sum()
    weights = share.clamp(min=1e-6) ** -settings.rare
    return (weights / (weights * share).sum()).clamp(max=8.0)


def segmentation_loss(logits: Tensor, labels: Tensor, weights: Tensor, settings: Settings) -> Tensor:
    """Weighted cross-entropy with label smoothing, and soft Dice over the batch, whose gradient favours rare classes."""
    logits = logits.float()
    loss = functional.cross_entropy(logits, labels, weights, ignore_index=IGNORE, label_smoothing=settings.smoothing)
    if settings.dice == 0:
        return loss
    known = (labels != IGNORE)[:, None]
    truth = functional.one_hot(labels.where(labels != IGNORE, 0), settings.classes).permute(0, 3, 1, 2) * known
    share = torch.softmax(logits, 1) * known
    both, total = (share * truth).sum((0, 2, 3)), (share + truth).sum((0, 2, 3))
    present = (truth.sum((0, 2, 3)) > 0).float()
    return loss + settings.dice * (present * (1 - 2 * both / total.clamp(min=1.0))).sum() / present.sum()


def objective(net: nn.Module, settings: Settings, prepare: Prepare, weights: Tensor) -> Callable[[Tensor, Tensor], Tensor]:
    """From pictures and labels to the loss, in bfloat16 where that is safe; compiled as one where asked for."""

    def loss(images: Tensor, labels: Tensor) -> Tensor:
        with torch.autocast("cuda", torch.bfloat16):
            logits = net(prepare(images).contiguous(memory_format=torch.channels_last))
            if logits.shape[2:] != labels.shape[1:]:
                logits = functional.interpolate(logits, size=labels.shape[1:], mode="bilinear", align_corners=False)
        return segmentation_loss(logits, labels, weights, settings)

    return torch.compile(loss, dynamic=False) if settings.compiled else loss


def logits_at(net: nn.Module, images: Tensor, nominal: float, prepare: Prepare) -> Tensor:
    """The product's inference: resize by `nominal`, run, resize the logits to the picture's size."""
    size = images.shape[2:]
    if nominal != 1:
        target = [round(side * nominal) for side in size]
        images = functional.interpolate(images, size=target, mode="bilinear", align_corners=False)
    logits: Tensor = net(prepare(images))
    return logits if logits.shape[2:] == size else functional.interpolate(logits, size=size, mode="bilinear", align_corners=False)


@torch.no_grad()
def confusion(net: nn.Module, data: Pictures, settings: Settings, prepare: Prepare, batch: int = 25) -> Tensor:
    """Counts (classes, classes) int64 over a whole set: truth down, prediction across. Whole pictures, float32."""
    device = next(net.parameters()).device
    total = torch.zeros(settings.classes**2, dtype=torch.int64, device=device)
    for start in range(0, len(data), batch):
        images, labels = data.images[start : start + batch].to(device).float(), data.labels[start : start + batch].to(device)
        guess = logits_at(net, images, settings.nominal, prepare).argmax(1)
        known = labels != IGNORE
        total += torch.bincount(labels[known].long() * settings.classes + guess[known], minlength=settings.classes**2)
    return total.reshape(settings.classes, settings.classes)


def scores(counts: Tensor) -> tuple[float, list[float]]:
    """Mean intersection over union and that of each class, percent, from a confusion matrix."""
    hits = counts.diagonal().double()
    each = 100 * hits / (counts.sum(0) + counts.sum(1) - hits).clamp(min=1)
    return float(each.mean()), [round(float(value), 2) for value in each]


def on_test_set(
    net: nn.Module, data: Pictures, settings: Settings, prepare: Prepare, names: Sequence[str], *, batch: int = 25
) -> dict[str, Any]:
    """What the log says of the test set: mean intersection over union and that of each class, percent; printed, too."""
    miou, each = scores(confusion(net, data, settings, prepare, batch))
    by_name = dict(zip(names, each, strict=True))
    print(f"test mIoU {miou:.2f}", by_name)
    return {"test_miou": round(miou, 2), "test_iou": by_name}


def train(
    net: nn.Module,
    data: Pictures,
    val: Pictures,
    settings: Settings,
    prepare: Prepare,
    make_loss: Callable[[Any, Settings, Prepare, Tensor], Callable[[Tensor, Tensor], Tensor]] = objective,
) -> tuple[nn.Module, Log]:
    """Train in place; returns the averaged network of the best epoch by validation mIoU, in eval mode, and the log."""
    device = data.images.device
    generator = torch.Generator(device).manual_seed(settings.seed)
    optimiser = torch.optim.AdamW(parameter_groups(net, settings.decay), lr=settings.rate, fused=True)
    per_epoch = len(data) // settings.batch
    schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, warm_cosine(per_epoch * settings.epochs, settings.warmup))
    average, log = Average(net, settings.average), Log()
    loss_of = make_loss(net, settings, prepare, class_weights(data.labels, settings))
    best, start = copy.deepcopy(average.net), time.perf_counter()
    pace = max(1, settings.epochs // settings.evaluations)
    for epoch in range(1, settings.epochs + 1):
        net.train()
        order = torch.randperm(len(data), generator=generator, device=device)
        losses = []
        for picks in torch.split(order[: per_epoch * settings.batch], settings.batch):
            loss = loss_of(*augment(data, picks, settings, generator))
            optimiser.zero_grad(set_to_none=True)
            torch.autograd.backward(loss)
            nn.utils.clip_grad_norm_(net.parameters(), 2.0)
            optimiser.step()
            schedule.step()
            average.update()
            losses.append(loss.detach())
        if epoch % pace == 0 or epoch == settings.epochs:
            miou, _ = scores(confusion(average.net, val, settings, prepare))
            log.entries.append({"epoch": epoch, "loss": float(torch.stack(losses).mean()), "val_miou": miou})
            if miou > log.best_miou:
                log.best_epoch, log.best_miou, best = epoch, miou, copy.deepcopy(average.net)
            print(
                f"{epoch:4d}  loss {log.entries[-1]['loss']:.4f}  val mIoU {miou:.2f}  {time.perf_counter() - start:.0f} s",
                flush=True,
            )
    log.seconds = time.perf_counter() - start
    return best, log


def parameter_groups(net: nn.Module, decay: float) -> list[dict[str, Any]]:
    """Weight decay for matrices and kernels only, not for biases and norms."""
    matrices = [p for p in net.parameters() if p.ndim > 1]
    others = [p for p in net.parameters() if p.ndim <= 1]
    return [{"params": matrices, "weight_decay": decay}, {"params": others, "weight_decay": 0.0}]


def warm_cosine(steps: int, warmup: float) -> Callable[[int], float]:
    warm = max(1, int(steps * warmup))

    def factor(step: int) -> float:
        if step < warm:
            return (step + 1) / warm
        return 0.5 * (1 + math.cos(math.pi * min(1.0, (step - warm) / max(1, steps - warm))))

    return factor


def half_kernels(net: nn.Module) -> dict[str, Tensor]:
    """The state dict with kernels and matrices in float16; vectors (norms, biases) stay float32: they weigh nothing."""
    return {k: (t.half() if t.ndim > 1 else t).cpu().contiguous() for k, t in net.state_dict().items()}
