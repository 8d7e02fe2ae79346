"""NMS and RoIAlign: beside their definitions, and as the standard ONNX operators that the translations make of them."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import onnxruntime
import openvino
import pytest
import torch
from torch import Tensor, nn

from segship.graph.export import OPSET, _quiet
from segship.graph.translations import registered
from segship.models.parts import operators
from segship.models.parts.anchors import Anchors, cell_anchors
from segship.models.parts.boxes import LARGEST_STEP, apply_deltas, clip, encode, iou
from segship.models.parts.nms import nms_keep
from segship.models.parts.pooler import Pooler
from segship.models.parts.roi_align import pyramid_roi_align

SCALES = [1 / 4, 1 / 8, 1 / 16, 1 / 32]
KINDS = [(0, True), (2, False), (2, True), (0, False)]
"""Sampling ratio and ``aligned``: detectron2 and mmdetection, torchvision, and the other two."""


def boxes_in(n: int, height: int, width: int) -> Tensor:
    """Boxes of 1 to 245 pixels a side, cut at the image's edge; one of them empty."""
    centre, size = torch.rand(n, 2) * torch.tensor([width, height]), (torch.rand(n, 2) * 5.5).exp()
    boxes = torch.cat([centre - size / 2, centre + size / 2], dim=1)
    boxes[0] = 0
    return clip(boxes, torch.tensor([height, width]))


def greedy(boxes: Tensor, scores: Tensor, threshold: float, least: float) -> list[bool]:
    """The definition: best first, each drops what overlaps it."""
    overlap, keep, dead = iou(boxes, boxes), [False] * len(boxes), [False] * len(boxes)
    for index in sorted(range(len(boxes)), key=lambda each: -float(scores[each])):
        if dead[index] or not float(scores[index]) > least:
            continue
        keep[index] = True
        dead = [gone or bool(near > threshold) for gone, near in zip(dead, overlap[index], strict=True)]
    return keep


def suppression_problem() -> tuple[Tensor, Tensor]:
    """Groups with plain scores, ties, few candidates, none, and boxes that are all the same."""
    boxes = torch.stack([boxes_in(120, 100, 150) for _ in range(5)])
    scores = torch.rand(5, 120)
    scores[1] = (scores[1] * 10).round() / 10
    scores[2] *= 0.07
    scores[3] = 0
    boxes[4] = boxes[4, 5]
    return boxes, scores


def test_nms_is_greedy() -> None:
    boxes, scores = suppression_problem()
    found = nms_keep(boxes, scores, 0.5, 0.05)
    assert found.tolist() == [greedy(*group, 0.5, 0.05) for group in zip(boxes, scores, strict=True)]
    assert found.sum(1)[3:].tolist() == [0, 1]


def test_nms_of_many_groups_is_that_of_each(monkeypatch: pytest.MonkeyPatch) -> None:
    boxes, scores = suppression_problem()
    monkeypatch.setattr("segship.models.parts.nms.PAIRS_AT_ONCE", {})
    whole = nms_keep(boxes, scores, 0.5, 0.05)
    monkeypatch.setattr("segship.models.parts.nms.PAIRS_AT_ONCE", {"cpu": 1})
    assert torch.equal(nms_keep(boxes, scores, 0.5, 0.05), whole)


def by_definition(level: Tensor, box: list[float], scale: float, size: int, ratio: int, *, aligned: bool) -> np.ndarray:
    """RoIAlign of one box on one map (c, h, w), sample by sample."""
    x0, y0, x1, y1 = (edge * scale - (0.5 if aligned else 0) for edge in box)
    width, height = (max(end - start, 0 if aligned else 1) for start, end in ((x0, x1), (y0, y1)))
    n_x, n_y = (ratio or math.ceil(length / size) for length in (width, height))
    out = np.zeros((level.shape[0], size, size))
    for row, column in np.ndindex(size, size):
        for i, j in np.ndindex(n_y, n_x):
            y = y0 + (row + (i + 0.5) / n_y) * height / size
            x = x0 + (column + (j + 0.5) / n_x) * width / size
            out[:, row, column] += bilinear(level.numpy(), y, x) / (n_y * n_x)
    return out


def bilinear(level: np.ndarray, y: float, x: float) -> np.ndarray:
    h, w = level.shape[1:]
    if not (-1 <= y <= h and -1 <= x <= w):
        return np.zeros(level.shape[0])
    y, x = min(max(y, 0), h - 1), min(max(x, 0), w - 1)
    top, left = int(y), int(x)
    low, right, dy, dx = min(top + 1, h - 1), min(left + 1, w - 1), y - top, x - left
    upper = level[:, top, left] * (1 - dx) + level[:, top, right] * dx
    lower = level[:, low, left] * (1 - dx) + level[:, low, right] * dx
    value: np.ndarray = upper * (1 - dy) + lower * dy
    return value


def pooling_problem(n: int, *, dtype: torch.dtype = torch.float32) -> tuple[list[Tensor], Tensor, Tensor, Tensor]:
    levels = [torch.randn(2, 5, 64 // stride, 96 // stride, dtype=dtype) for stride in (1, 2, 4, 8)]
    boxes = boxes_in(n, 256, 384).to(dtype)
    boxes[1] = torch.tensor([-40.0, 200, 30, 300])  # over the edge
    return levels, boxes, torch.randint(0, 2, (n,)), torch.randint(0, 4, (n,))


@pytest.mark.parametrize(("ratio", "aligned"), KINDS)
def test_roi_align_is_its_definition(ratio: int, aligned: bool) -> None:
    levels, boxes, images, level_of = pooling_problem(12)
    found = pyramid_roi_align(levels, boxes, images, level_of, scales=SCALES, size=3, sampling_ratio=ratio, aligned=aligned)
    for index, (box, image, level) in enumerate(zip(boxes.tolist(), images.tolist(), level_of.tolist(), strict=True)):
        expected = by_definition(levels[level][image], box, SCALES[level], 3, ratio, aligned=aligned)
        # float32 positions up to 96 cells are 4e-6 off, times differences of neighbours of about 3
        assert np.abs(found[index].numpy() - expected).max() < 5e-5


@pytest.mark.parametrize(("ratio", "aligned"), KINDS[:2])
def test_roi_align_has_gradients(ratio: int, aligned: bool) -> None:
    levels, boxes, images, level_of = pooling_problem(6, dtype=torch.float64)
    small = [level[:, :2, :8, :8].clone().requires_grad_() for level in levels]

    def pooled(*maps: Tensor) -> Tensor:
        return pyramid_roi_align(maps, boxes / 8, images, level_of, scales=SCALES, size=2, sampling_ratio=ratio, aligned=aligned)

    assert torch.autograd.gradcheck(pooled, small)


class _Nms(nn.Module):
    def forward(self, boxes: Tensor, scores: Tensor) -> Tensor:
        return operators.nms_keep(boxes, scores, 0.5, 0.05)


class _Pool(nn.Module):
    """Through the pooler, which keeps empty boxes from OpenVINO."""

    def __init__(self, ratio: int, *, aligned: bool) -> None:
        super().__init__()
        self.pooler = Pooler(3, sampling_ratio=ratio, aligned=aligned, level_edges=(30.0, 60.0, 120.0))

    def forward(self, p2: Tensor, p3: Tensor, p4: Tensor, p5: Tensor, boxes: Tensor, images: Tensor) -> Tensor:
        pooled: Tensor = self.pooler([p2, p3, p4, p5], boxes, images)
        return pooled


def runtimes(module: nn.Module, *example: Tensor) -> dict[str, Callable[..., np.ndarray]]:
    """The module as ONNX Runtime and OpenVINO run it, the first axis of every input free."""
    free = tuple({0: torch.export.Dim.DYNAMIC} for _ in example)
    with _quiet():
        program = torch.onnx.export(
            module.eval(),
            example,
            dynamo=True,
            opset_version=OPSET,
            dynamic_shapes=free,
            custom_translation_table=registered(),
            verbose=False,
        )
    assert program is not None
    model = program.model_proto.SerializeToString()
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    names = [each.name for each in session.get_inputs()]
    compiled = openvino.Core().compile_model(openvino.Core().read_model(model), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})

    def feeds(inputs: tuple[Tensor, ...]) -> dict[str, Any]:
        return {name: value.numpy() for name, value in zip(names, inputs, strict=True)}

    return {
        "onnxruntime": lambda *inputs: session.run(None, feeds(inputs))[0],
        "openvino": lambda *inputs: np.asarray(compiled(feeds(inputs))[0]),
    }


def test_nms_in_every_runtime() -> None:
    boxes, scores = suppression_problem()
    expected = nms_keep(boxes, scores, 0.5, 0.05).numpy()
    for name, run in runtimes(_Nms(), boxes[:2], scores[:2]).items():
        assert np.array_equal(run(boxes, scores), expected), name
        assert not run(boxes, scores * 0).any(), name


@pytest.mark.parametrize(("ratio", "aligned"), KINDS)
def test_roi_align_in_every_runtime(ratio: int, aligned: bool) -> None:
    levels, boxes, images, _ = pooling_problem(40)
    module = _Pool(ratio, aligned=aligned)
    for name, run in runtimes(module, *levels, boxes, images).items():
        for some in (boxes, boxes[:1], boxes[[0]], torch.tensor([[0.0, 0, 300, 250]])):  # levels without any box, too
            expected = module(*levels, some, images[: len(some)]).numpy()
            # the same samples added up in another order
            assert np.abs(run(*levels, some, images[: len(some)]) - expected).max() < 1e-4, name


def test_deltas_and_their_inverse() -> None:
    boxes, targets = (boxes_in(50, 200, 300)[1:] + torch.tensor([0, 0, 9, 9]) for _ in range(2))
    stds = (0.1, 0.1, 0.2, 0.2)
    # sides to 300 pixels: a few float32 roundings of numbers of that size
    torch.testing.assert_close(
        apply_deltas(boxes, encode(boxes, targets, stds), stds, clamp_below=False), targets, rtol=0, atol=1e-3
    )


@pytest.mark.parametrize("clamp_below", [True, False])
def test_steps_are_limited(clamp_below: bool) -> None:
    box = torch.tensor([[0.0, 0, 1000, 1000]])
    x0, _, x1, _ = apply_deltas(box, torch.tensor([[0, 0, 99.0, 99.0]]), (1,) * 4, clamp_below=clamp_below)[0]
    assert float(x1 - x0) == pytest.approx(1000 * math.exp(LARGEST_STEP), rel=1e-5)  # float32
    x0, _, x1, _ = apply_deltas(box, torch.tensor([[0, 0, -99.0, -99.0]]), (1,) * 4, clamp_below=clamp_below)[0]
    assert float(x1 - x0) == pytest.approx(16.0 if clamp_below else 0.0, abs=1e-3)  # edges are near 500: float32


def test_anchors() -> None:
    sizes, ratios = [32.0, 64, 128, 256, 512], [0.5, 1.0, 2.0]
    maps = [torch.zeros(1, 1, math.ceil(96 / stride), math.ceil(160 / stride)) for stride in (4, 8, 16, 32, 64)]
    plain = Anchors(sizes, ratios, rounded=False, offset=0.5, measured_strides=False)(maps, (96, 160))
    measured = Anchors(sizes, ratios, rounded=True, offset=0.0, measured_strides=True)(maps, (96, 160))
    assert plain[0][1].tolist() == [-14, -14, 18, 18]  # 32 x 32 around (2, 2)
    assert plain[0][4].tolist() == [-10, -14, 22, 18]  # one cell to the right
    assert [len(level) for level in plain] == [each.shape[2] * each.shape[3] * 3 for each in maps]
    assert measured[4][1].tolist() == [-256, -256, 256, 256]
    assert measured[4][3 * 3 + 1, 1] == -256 + 96 // 2  # P6 has 2 x 3 cells: 48 and 53 pixels, not 64
    assert measured[4][4, 0] == -256 + 160 // 3
    assert cell_anchors([32.0], [0.5])[0].tolist() == pytest.approx([-22.627, -11.314, 22.627, 11.314], abs=1e-3)
