"""Panoptic FCN from files of every kind: what is read, what is assumed, what is refused, and parts beside plain code."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from segship.core.errors import BadArgument, BadCheckpoint
from segship.core.spec import PanopticDecode, ShortestEdgeResize
from segship.models import build_module, load_model
from segship.models.checkpoint import Checkpoint, read_checkpoint
from segship.models.panopticfcn.heads import Head, HeadShape, coordinates
from segship.models.panopticfcn.kernels import Candidates, ThingGenerator
from segship.models.panopticfcn.layout import official, renamed

SMALL: dict[str, Any] = {
    "blocks": [1, 1, 1, 1],
    "stem": 8,
    "inner": [8, 8, 8, 8],
    "widths": [16, 16, 16, 16],
    "bottleneck": True,
    "stride_in_1x1": True,
    "fpn_channels": 16,
    "semantic_channels": 32,
    **HeadShape(3, 16, coord=False, deform=True, norm=True).as_facts("position"),
    **HeadShape(2, 16, coord=True, deform=False, norm=True).as_facts("kernel"),
    **HeadShape(3, 8, coord=True, deform=False, norm=False).as_facts("encoder"),
    "n_things": 3,
    "n_stuff": 5,
    "top_num": 100,
    "center_threshold": 0.05,
    "region_threshold": 0.05,
    "mask_threshold": 0.4,
    "similarity": 0.9,
    "class_specific": True,
    "least_score": 0.05,
    "center_pools": [3, 3, 3, 5, 5],
}
STAR = {**SMALL, "encoder_deform": True}


def saved(hyperparameters: dict[str, Any], path: Path) -> Path:
    """A checkpoint with random weights, as detectron2 saves it."""
    module = build_module("panopticfcn", hyperparameters)
    torch.save({"model": official(module.state_dict()), "iteration": 7}, path)
    return path


@pytest.mark.parametrize("hyperparameters", [SMALL, STAR])
def test_hyperparameters_come_back(hyperparameters: dict[str, Any], tmp_path: Path) -> None:
    model = load_model(saved(hyperparameters, tmp_path / "a.pth"))
    assert model.spec.hyperparameters == hyperparameters
    masks, scores, classes, count, stuff, stuff_scores = model.module(torch.randn(2, 3, 64, 96))
    assert (masks.shape, scores.shape, classes.shape, count.shape) == ((2, 100, 16, 24), (2, 100), (2, 100), (2,))
    assert (stuff.shape, stuff_scores.shape) == ((2, 5, 16, 24), (2, 5))


def test_official_names_and_back() -> None:
    state = build_module("panopticfcn", STAR).state_dict()
    assert official(state)["feature_encoder.encode_head.encode_head_head_1.dcnv2.weight"].shape == (8, 34, 3, 3)
    assert official(state)["kernel_head.kernel_head.kernel_head_head_1.weight"].shape == (16, 18, 3, 3)
    back = renamed(official(state))
    assert back.keys() == state.keys()
    assert all(torch.equal(back[key], state[key]) for key in state)


def test_what_is_assumed(tmp_path: Path) -> None:
    spec = load_model(saved(STAR, tmp_path / "a.pth")).spec
    assert spec.variant == "panopticfcn-star-r14-3x"
    assert spec.image.resize == ShortestEdgeResize(800, 1333, "pil_bilinear", "detectron2")
    assert spec.decode == PanopticDecode(3, mask_threshold=0.4, score_threshold=0.2, overlap=0.5, stuff_area=4096)
    assert {"shortest_side", "center_threshold", "stuff_area", "classes", "mean"} <= {each.fact for each in spec.assumed}
    assert len(spec.classes) == 3 + 4


def test_a_named_configuration_and_facts_that_beat_it(tmp_path: Path) -> None:
    path = saved(SMALL, tmp_path / "a.pth")
    spec = load_model(path, config="PanopticFCN-R50-400-3x-FAST.yaml", stuff_area=9, classes=list("abcdefg")).spec
    assert spec.image.resize == ShortestEdgeResize(400, 666, "pil_bilinear", "detectron2")
    assert (spec.hyperparameters["center_threshold"], spec.hyperparameters["region_threshold"]) == (0.2, 0.1)
    assert isinstance(spec.decode, PanopticDecode)
    assert spec.decode.stuff_area == 9
    assert {each.fact for each in spec.assumed} == {"mean", "std", "stride_in_1x1"}


@pytest.mark.parametrize(
    "facts", [{"config": "R101"}, {"overlap": 1.5}, {"top_num": 1}, {"classes": ["a"]}, {"category_ids": [1]}]
)
def test_wrong_facts_are_refused(facts: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(BadArgument):
        load_model(saved(SMALL, tmp_path / "a.pth"), **facts)


def test_another_number_of_channels_is_refused(tmp_path: Path) -> None:
    path = saved(SMALL, tmp_path / "a.pth")
    content = torch.load(path)
    key = "kernel_head.kernel_head.kernel_head_head_1.weight"
    content["model"][key] = torch.zeros(16, 17, 3, 3)
    torch.save(content, path)
    with pytest.raises(BadCheckpoint, match="17 channels"):
        load_model(path)


@pytest.mark.parametrize("size", [(6, 9), (1, 4), (1, 1)])
def test_coordinates_are_linspace(size: tuple[int, int]) -> None:
    rows, columns = torch.meshgrid(torch.linspace(-1, 1, size[0]), torch.linspace(-1, 1, size[1]), indexing="ij")
    found = coordinates(torch.zeros(2, 3, *size))
    torch.testing.assert_close(found, torch.stack([rows, columns])[None], rtol=0, atol=1e-6)  # another order of rounding


def test_a_coordinate_convolution_is_one_over_joined_channels() -> None:
    head = Head(6, HeadShape(1, 4, coord=True, deform=False, norm=False), "x")
    conv, x = head.get_submodule("x_head_1"), torch.randn(3, 6, 5, 7)
    whole = official({f"x_head_1.{key}": value for key, value in conv.state_dict().items()})
    joined = torch.cat([x, coordinates(x).expand(3, -1, -1, -1)], dim=1)
    expected = torch.conv2d(joined, whole["x_head_1.weight"], whole["x_head_1.bias"], padding=1).relu()
    torch.testing.assert_close(head(x), expected, rtol=0, atol=1e-5)  # float32, summed in two parts


def test_a_tiny_level_gives_at_most_its_positions() -> None:
    """One position, two classes, three asked for: officially ``min(h * w, TOP_NUM // 2)``."""
    centres = torch.tensor([4.0, 3.0]).reshape(1, 2, 1, 1)
    scores, classes, kernels = Candidates(3, 0.05, (3,))([(centres, centres, torch.ones(1, 5, 1, 1))])
    assert (scores > 0).tolist() == [[True, False, False]]
    assert classes[0, 0] == 0
    assert kernels.shape == (1, 5, 3)


def test_fusion_is_the_official_sequential_rule() -> None:
    """Beside the official matrix code, written for one image, on kernels with many likes."""
    torch.manual_seed(3)
    n, generator = 40, ThingGenerator(4, 4, 0.8, class_specific=True)
    with torch.no_grad():
        generator.embed_extractor.weight.copy_(torch.eye(4).reshape(4, 4, 1, 1))
        generator.embed_extractor.bias.zero_()
    kernels, classes = torch.randn(n, 4), torch.randint(0, 2, (n,))
    scores = torch.linspace(0.9, 0.1, n) * (torch.arange(n) < 33)  # seven places are empty
    fused, kept = (part[0] for part in generator(scores[None], classes[None], kernels.T[None]))
    expected: dict[int, torch.Tensor] = {}
    unit, seen = kernels / kernels.norm(dim=1, keepdim=True), torch.zeros(n)
    for i in range(33):
        alike = (unit @ unit[i] >= 0.8) & (classes == classes[i]) & (torch.arange(n) >= i) & (torch.arange(n) < 33)
        seen += alike
        if seen[i] < 2:
            expected[i] = kernels[alike & (seen < 2)].mean(0)
    assert torch.flatten(kept.nonzero()).tolist() == list(expected)
    assert 0 < len(expected) < 33
    for i, kernel in expected.items():
        torch.testing.assert_close(fused[i], kernel, rtol=0, atol=1e-5)  # a mean of a few float32 numbers


def refused(checkpoint: Checkpoint, tensors: dict[str, torch.Tensor], monkeypatch: pytest.MonkeyPatch) -> None:
    """``tensors`` in the checkpoint's place are refused with one sentence (no file is written: there are hundreds of trials)."""
    monkeypatch.setattr("segship.models.family.read_checkpoint", lambda _path: replace(checkpoint, tensors=tensors))
    with pytest.raises((BadCheckpoint, BadArgument)) as raised:
        load_model(checkpoint.path)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("hyperparameters", [SMALL, STAR])
def test_every_missing_or_misshapen_key_is_refused(
    hyperparameters: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoint = read_checkpoint(saved(hyperparameters, tmp_path / "a.pth"))
    for key, right in checkpoint.tensors.items():
        if key.endswith("num_batches_tracked") or key.startswith("backbone.bottom_up"):  # PointRend's tests try those
            continue
        refused(checkpoint, {other: value for other, value in checkpoint.tensors.items() if other != key}, monkeypatch)
        for wrong in (torch.tensor(1.0), torch.cat([right] * 2), right[None]):
            refused(checkpoint, {**checkpoint.tensors, key: wrong}, monkeypatch)


def test_a_foreign_key_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    checkpoint = read_checkpoint(saved(SMALL, tmp_path / "a.pth"))
    refused(checkpoint, {**checkpoint.tensors, "aux_head.conv.weight": torch.ones(2)}, monkeypatch)
