"""The PointRend of the demo: detectron2's layout on a ResNet-18, 13.0 million parameters, on synthetic streets.

    python -m recipes.streets --out build/streets.npz --scenes 8000
    python -m recipes.train_scenes_pointrend --streets build/streets.npz --out src/segship/assets

For one GPU. The point head is trained as in the paper (Kirillov et al. 2020, section 4): on points of which three quarters
are the most uncertain of three times as many random ones, the rest random.

Writes `scenes-pointrend.pth` (detectron2's wrapper, kernels float16), `scenes-pointrend.facts.json` (class names, colours,
points) and the log. To see that it runs, on few scenes and a CPU: `--device cpu --epochs 1 --batch 4`.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from recipes import streets
from recipes.training import (
    IGNORE,
    Pictures,
    Prepare,
    Settings,
    confusion,
    half_kernels,
    on_gpu,
    scores,
    segmentation_loss,
    train,
)
from torch import Tensor
from torch.nn import functional

from segship.models.parts.resnet import ResNetShape
from segship.models.pointrend.network import PointRend, point_sample, uncertainty
from segship.scenes import CLASSES, COLORS

RESNET = ResNetShape(blocks=(2, 2, 2, 2), stem=64, inner=(64, 128, 256, 512), widths=(64, 128, 256, 512), bottleneck=False)
PIXEL_MEAN, PIXEL_STD = (103.53, 116.28, 123.675), (57.375, 57.12, 58.395)
"""BGR, on 0..255. They travel in the checkpoint, as detectron2 kept them."""

SUBDIVISION_POINTS = 1024
"""Of 128 x 128 and of 256 x 256 pixels: 6 and 1.6 percent. The published network refines 0.4 percent of a megapixel image,
whose edges are a smaller share of it."""

TRAINING_POINTS, OVERSAMPLING, UNCERTAIN_SHARE = 1024, 3, 0.75


def network() -> PointRend:
    """Without weights."""
    return PointRend(
        RESNET,
        n_classes=len(CLASSES),
        fpn_channels=128,
        head_channels=128,
        fc=(128, 128, 128),
        coarse_pred_each_layer=True,
        stride_in_1x1=False,
        subdivision_steps=2,
        subdivision_points=SUBDIVISION_POINTS,
    )


def prepare(images: Tensor) -> Tensor:
    """RGB 0..255 to normalised BGR, as the product does."""
    mean, std = (images.new_tensor(values)[:, None, None] for values in (PIXEL_MEAN, PIXEL_STD))
    return (images.flip(1) - mean) / std


def point_objective(net: PointRend, settings: Settings, prepare: Prepare, weights: Tensor) -> Callable[[Tensor, Tensor], Tensor]:
    """From pictures and labels to the loss of the coarse logits plus that of the point head, equally weighted."""
    head = net.sem_seg_head

    def dense(images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        with torch.autocast(images.device.type, torch.bfloat16):
            levels = net.backbone(prepare(images).contiguous(memory_format=torch.channels_last))
            coarse = head.coarse_sem_seg_head(levels)
            whole = functional.interpolate(coarse, scale_factor=4.0, mode="bilinear", align_corners=False)
        return levels[0].float(), coarse.float(), whole

    run = torch.compile(dense, dynamic=False) if settings.compiled else dense

    def loss(images: Tensor, labels: Tensor) -> Tensor:
        fine, coarse, whole = run(images)
        where = training_points(coarse.detach())
        refined = head.point_head(point_sample(fine, where), point_sample(coarse, where))
        truth = labels_at(labels, where)
        at_points = functional.cross_entropy(refined, truth, weights, ignore_index=IGNORE, label_smoothing=settings.smoothing)
        return segmentation_loss(whole, labels, weights, settings) + at_points

    return loss


@torch.no_grad()
def training_points(coarse: Tensor) -> Tensor:
    """Where to train the point head, x and y in -1 ... 1, (n, points, 1, 2), from coarse logits (n, c, h, w).

    detectron2 `get_uncertain_point_coords_with_randomness`.
    """
    n, n_uncertain = len(coarse), int(TRAINING_POINTS * UNCERTAIN_SHARE)
    many = 2 * torch.rand(n, TRAINING_POINTS * OVERSAMPLING, 1, 2, device=coarse.device) - 1
    doubt = uncertainty(point_sample(coarse, many)[:, :, None])[:, 0, 0]
    chosen = doubt.topk(n_uncertain, dim=1).indices
    uncertain = many.gather(1, chosen[:, :, None, None].expand(-1, -1, 1, 2))
    anywhere = 2 * torch.rand(n, TRAINING_POINTS - n_uncertain, 1, 2, device=coarse.device) - 1
    return torch.cat([uncertain, anywhere], dim=1)


def labels_at(labels: Tensor, where: Tensor) -> Tensor:
    """Labels (n, h, w) at (n, points, 1, 2): those of the nearest pixel, (n, points)."""
    nearest = functional.grid_sample(labels[:, None].float(), where, mode="nearest", padding_mode="border", align_corners=False)
    return nearest[:, 0, :, 0].long()


def scores_by_points(net: PointRend, data: Pictures, settings: Settings) -> dict[int, tuple[float, list[float]]]:
    """mIoU and IoU of each class, percent, for several numbers of subdivision points."""
    result = {}
    for n_points in (1, SUBDIVISION_POINTS // 4, SUBDIVISION_POINTS, 4 * SUBDIVISION_POINTS):
        net.sem_seg_head.subdivision.n_points = n_points
        result[n_points] = scores(confusion(net, data, settings, prepare))
    net.sem_seg_head.subdivision.n_points = SUBDIVISION_POINTS
    return result


def save(net: PointRend, folder: Path) -> dict[str, Tensor]:
    """Write checkpoint and facts; returns the weights as written."""
    weights = half_kernels(net)
    pixels = {"pixel_mean": PIXEL_MEAN, "pixel_std": PIXEL_STD}
    stored = {**weights, **{name: torch.tensor(values)[:, None, None] for name, values in pixels.items()}}
    folder.mkdir(parents=True, exist_ok=True)
    torch.save({"model": stored}, folder / "scenes-pointrend.pth")
    facts: dict[str, Any] = {"classes": CLASSES, "colors": COLORS, "resize": {"type": "keep"}, "channels": "bgr"}
    facts |= {"subdivision_steps": 2, "subdivision_points": SUBDIVISION_POINTS}
    (folder / "scenes-pointrend.facts.json").write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")
    return weights


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--streets", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--log", type=Path, default=Path("recipes/results/scenes-pointrend.json"))
    parser.add_argument("--epochs", type=int, default=48)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()

    torch.manual_seed(options.seed)
    device = torch.device(options.device)
    data, val, test = (streets.load(options.streets, split) for split in ("train", "val", "test"))
    net = on_gpu(network()) if device.type == "cuda" else network()
    settings = Settings(
        classes=len(CLASSES),
        epochs=options.epochs,
        batch=options.batch,
        crop=(256, 256),
        zoom=(0.8, 1.6),
        rate=1e-3,
        rare=0.25,
        compiled=device.type == "cuda",
        seed=options.seed,
    )
    best, log = train(net, data.to(device), val, settings, prepare, point_objective)

    assert isinstance(best, PointRend)
    weights = save(best, options.out)
    best.load_state_dict({name: tensor.float() if tensor.is_floating_point() else tensor for name, tensor in weights.items()})
    each = scores_by_points(best, test, settings)
    miou, iou = each[SUBDIVISION_POINTS]
    log.write(
        options.log,
        recipe="scenes-pointrend",
        test_miou=round(miou, 2),
        test_iou=dict(zip(CLASSES, iou, strict=True)),
        test_miou_by_points={n_points: round(result[0], 2) for n_points, result in each.items()},
    )
    print(f"test mIoU {miou:.2f}", dict(zip(CLASSES, iou, strict=True)))


if __name__ == "__main__":
    main()
