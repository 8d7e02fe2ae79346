"""PointRend's parts by themselves: uncertainty, points, what is read, stated and assumed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from contract.checkpoints import random_state, write
from segship.core.errors import BadArgument, BadCheckpoint, BadInput
from segship.core.spec import KeepSize, ShortestEdgeResize
from segship.datasets import cityscapes
from segship.models import load_model
from segship.models.pointrend import network
from segship.models.pointrend.published import CITYSCAPES


@pytest.mark.parametrize("n_classes", [2, 3, 19])
def test_uncertainty_is_second_best_minus_best(n_classes: int) -> None:
    logits = torch.randint(-3, 3, (2, n_classes, 20, 30)).float()  # so few values that ties are everywhere
    best = logits.topk(2, dim=1).values
    assert (best[:, 0] == best[:, 1]).any()
    assert torch.equal(network.uncertainty(logits), best[:, 1:] - best[:, :1])  # exactly: the same two numbers are taken


def test_grid_centres() -> None:
    """Width and height are told apart, and a megapixel's last index is still exact in float32."""
    height, width = 1024, 2048
    where = network.grid_centres(torch.tensor([[0, width - 1, width, height * width - 1]]), height, width)
    x, y = 1 - 1 / width, 1 - 1 / height
    expected = [[-x, -y], [x, -y], [-x, -y + 2 / height], [x, y]]
    torch.testing.assert_close(where[0, :, 0], torch.tensor(expected), rtol=0, atol=2e-7)  # one rounding of numbers up to 2


def test_points_of_a_batch_are_chosen_in_each_image() -> None:
    subdivision = network.Subdivision(5)
    logits = torch.randn(3, 4, 6, 8)
    fine, head = torch.randn(3, 7, 6, 8), network.PointHead(7, 4, (9,), coarse_pred_each_layer=True)
    together = subdivision(logits, logits, fine, head)
    alone = [subdivision(logits[i : i + 1], logits[i : i + 1], fine[i : i + 1], head) for i in range(3)]
    torch.testing.assert_close(together, torch.cat(alone), rtol=0, atol=1e-6)  # sums of 11 products in another order
    plain = torch.nn.functional.interpolate(logits, scale_factor=2.0, mode="bilinear", align_corners=False)
    assert (together != plain).any(1).flatten(1).sum(1).tolist() == [5, 5, 5]


def test_more_points_than_pixels_replace_all() -> None:
    subdivision, head = network.Subdivision(8192), network.PointHead(7, 4, (9,), coarse_pred_each_layer=False)
    logits, fine = torch.randn(1, 4, 6, 8), torch.randn(1, 7, 6, 8)
    refined = subdivision(logits, logits, fine, head)
    where = network.grid_centres(torch.arange(12 * 16)[None], 12, 16)
    everywhere = head(network.point_sample(fine, where), network.point_sample(logits, where))
    torch.testing.assert_close(refined.flatten(2), everywhere, rtol=0, atol=1e-6)  # the same sums, points in another order


@pytest.fixture
def basic() -> dict[str, torch.Tensor]:
    """A small checkpoint of 5 classes."""
    return random_state("pointrend-basic")


def test_what_is_assumed(basic: dict[str, torch.Tensor], tmp_path: Path) -> None:
    spec = load_model(write({"model": basic}, tmp_path / "a.pth")).spec
    facts = ["subdivision_steps", "subdivision_points", "channels", "resize", "mean", "std", "classes"]
    assert [assumption.fact for assumption in spec.assumed] == facts
    assert spec.variant == "pointrend-r12-c5"
    assert spec.image.resize == ShortestEdgeResize(1024, 2048, "pil_bilinear", "detectron2")
    assert spec.image.divisor == 32


def test_stride_matters_to_bottlenecks_only(tmp_path: Path) -> None:
    path = write(random_state("pointrend-bottleneck"), tmp_path / "a.pth")
    model = load_model(path)
    assert "stride_in_1x1" in [assumption.fact for assumption in model.spec.assumed]
    assert model.module.get_submodule("backbone.bottom_up.res3.0.conv1").stride == (2, 2)
    stated = load_model(path, stride_in_1x1=False)
    assert stated.module.get_submodule("backbone.bottom_up.res3.0.conv2").stride == (2, 2)


def test_nineteen_classes_are_those_of_cityscapes(tmp_path: Path) -> None:
    spec = load_model(write(random_state("pointrend-bottleneck"), tmp_path / "a.pth")).spec
    assert spec.classes == CITYSCAPES == cityscapes.CLASSES
    assert "classes" in [assumption.fact for assumption in spec.assumed]


def test_pixel_mean_in_the_file_is_obeyed_or_overruled(basic: dict[str, torch.Tensor], tmp_path: Path) -> None:
    pixels = {"pixel_mean": torch.tensor([1.0, 2.0, 3.0])[:, None, None], "pixel_std": torch.full((3, 1, 1), 4.0)}
    path = write({"model": {**basic, **pixels}}, tmp_path / "a.pth")
    spec = load_model(path).spec
    assert (spec.image.normalise.mean, spec.image.normalise.std) == ((1.0, 2.0, 3.0), (4.0, 4.0, 4.0))
    assert not {"mean", "std"} & {assumption.fact for assumption in spec.assumed}
    assert load_model(path, mean=(5.0, 6.0, 7.0)).spec.image.normalise.mean == (5.0, 6.0, 7.0)


@pytest.mark.parametrize("values", [[1.0], [1.0, 2.0, float("nan")], [1.0, 2.0, 0.0], [[1.0, 2.0, 3.0]] * 2])
def test_wrong_pixels_in_the_file(values: Any, basic: dict[str, torch.Tensor], tmp_path: Path) -> None:
    path = write({"model": {**basic, "pixel_std": torch.tensor(values)}}, tmp_path / "a.pth")
    with pytest.raises(BadCheckpoint, match="state std"):
        load_model(path)


@pytest.mark.parametrize(
    "facts",
    [
        {"subdivision_points": 0},
        {"subdivision_steps": 3},
        {"subdivision_steps": -1},
        {"std": (1.0, 0.0, 1.0)},
        {"mean": (1.0, 2.0)},
        {"channels": "gray"},
        {"stride_in_1x1": "yes"},
        {"resize": {"type": "shortest_edge", "short": 0, "long": 4, "kernel": "pil_bilinear", "rounding": "detectron2"}},
        {"resize": {"type": "shortest_edge", "short": 4, "long": 4, "kernel": "pil_bilinear", "rounding": "up"}},
        {"classes": ("a", "b")},
        {"points": 3},
    ],
)
def test_wrong_facts(facts: dict[str, Any], basic: dict[str, torch.Tensor], tmp_path: Path) -> None:
    with pytest.raises(BadInput) as raised:
        load_model(write({"model": basic}, tmp_path / "a.pth"), **facts)
    assert isinstance(raised.value, BadArgument)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("steps", [0, 1])
def test_fewer_steps_are_resized_before_the_padding_is_cut(steps: int, basic: dict[str, torch.Tensor], tmp_path: Path) -> None:
    model = load_model(write({"model": basic}, tmp_path / "a.pth"), subdivision_steps=steps, resize={"type": "keep"})
    assert model.spec.image.resize == KeepSize()
    assert model.module(torch.zeros(1, 3, 64, 96)).shape[2:] == (16 * 2**steps, 24 * 2**steps)
    assert model.spec.decode.resize_to == ("input", "content", "image")


@pytest.mark.parametrize(
    ("key", "shape", "part"),
    [
        ("point_head.fc1.weight", (16, 37, 1), "POINT_HEAD.IN_FEATURES p2"),
        ("coarse_sem_seg_head.predictor.weight", (5, 40, 1, 1), "groups"),
        ("coarse_sem_seg_head.predictor.weight", (1, 8, 1, 1), "one class"),
        ("point_head.predictor.weight", (4, 17, 1), "misshapen"),
        ("point_head.predictor.weight", (5, 13, 1), "misshapen"),
    ],
)
def test_heads_that_do_not_fit(
    key: str, shape: tuple[int, ...], part: str, basic: dict[str, torch.Tensor], tmp_path: Path
) -> None:
    mixed = {**basic, f"sem_seg_head.{key}": torch.ones(shape)}
    with pytest.raises(BadCheckpoint, match=part):
        load_model(write({"model": mixed}, tmp_path / "a.pth"))
