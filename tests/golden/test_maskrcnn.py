"""Mask R-CNN proved against mmdetection and torchvision: stages, objects and masks; engines and batches beside them.

The cases are those below the directory that the environment variable SEGSHIP_GOLDEN names, else the repository's copy.
"""

from __future__ import annotations

import pickle
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import segship
from golden.case import CASES, NAMED, of_engines
from golden.maskrcnn_case import (
    MaskRCNNCase,
    cases,
    recorded,
    wrong_detections,
    wrong_input,
    wrong_mask_logits,
    wrong_stages,
)
from segship.core.errors import BadArgument
from segship.core.predictions import Instances
from segship.models import FAMILIES, build_module
from segship.models.checkpoint import Checkpoint
from segship.tasks.matching import agreement

BACKENDS = ("onnxruntime", "openvino")
FOUND = tuple(cases(Path(NAMED or CASES)))
SMALLEST = tuple({case.is_mmdetection: case for case in sorted(FOUND, key=lambda case: -case.image.size)}.values())
"""One case of each code base."""
EXPORTED = FOUND if NAMED else SMALLEST
"""Exporting takes long: without a named directory, one case of each code base has its graph run."""


@dataclass
class Loaded:
    """A case and segship's model of it."""

    case: MaskRCNNCase
    model: Any
    folder: Path


@pytest.fixture(scope="module", params=FOUND, ids=lambda case: case.name)
def loaded(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Loaded]:
    """One case at a time, its model loaded once for all its tests."""
    case, folder = request.param, tmp_path_factory.mktemp("golden")
    with segship.load_model(case.write(folder / "model.pth"), **case.facts) as model:
        yield Loaded(case, model, folder)


def faults_of(case: MaskRCNNCase, model: Any) -> list[str]:
    """Every difference between ``model`` and the official implementation."""
    with recorded(model.model.module) as stages:
        found = model.predict(case.image)
    return [
        *wrong_input(case, model.prepare(case.image).tensor),
        *wrong_stages(case, stages),
        *wrong_detections(case, found),
        *wrong_mask_logits(case, stages, found),
    ]


def images_of(case: MaskRCNNCase) -> list[np.ndarray]:
    """Three different images of one size."""
    return [case.image, np.ascontiguousarray(case.image[::-1, ::-1]), np.ascontiguousarray(case.image[:, ::-1] // 2 + 60)]


def test_there_are_cases() -> None:
    assert {case.is_mmdetection for case in cases(CASES)} == {True, False}


@pytest.mark.parametrize("case", FOUND, ids=lambda case: case.name)
def test_exactly_one_family_claims_official_keys(case: MaskRCNNCase) -> None:
    tensors = {key: torch.empty(shape, device="meta") for key, shape in case.manifest["keys"].items()}
    checkpoint = Checkpoint(Path("a.pth"), "", "", tensors, {}, {}, None, None, {})
    assert [family.NAME for family in FAMILIES if family.claims(checkpoint)] == ["maskrcnn"]


def test_torch(loaded: Loaded) -> None:
    assert faults_of(loaded.case, loaded.model) == []


@pytest.mark.parametrize("loaded", EXPORTED, indirect=True, ids=lambda case: case.name)
def test_a_batch_is_its_images(loaded: Loaded) -> None:
    images = images_of(loaded.case)
    together = loaded.model.predict_batch(images)
    assert all(same(one, loaded.model.predict(image)) for one, image in zip(together, images, strict=True))


def same(first: Instances, second: Instances) -> bool:
    """Nearly every object in both. A batch is convolved in another order of sums, so a score beside the threshold, or an
    overlap beside that of the suppression, may fall to the other side: 3 % leaves room for three of a hundred objects."""
    return agreement(first, second) >= 0.97


@pytest.fixture(scope="module")
def exported(loaded: Loaded) -> Any:
    """The case's graph for images of its own size: exported once for all backends."""
    return segship.export(loaded.model, image_size=loaded.case.image.shape[:2])


@of_engines
@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("loaded", EXPORTED, indirect=True, ids=lambda case: case.name)
def test_engine(loaded: Loaded, exported: Any, backend: str) -> None:
    images, path = images_of(loaded.case), loaded.folder / f"{backend}.engine"
    segship.build(exported, backend, path)
    with segship.load_engine(path) as engine:
        assert wrong_detections(loaded.case, engine.predict(loaded.case.image)) == []
        together = engine.predict_batch(images)
        assert wrong_detections(loaded.case, together[0]) == []
        assert all(same(one, engine.predict(image)) for one, image in zip(together, images, strict=True))


@pytest.mark.slow
@pytest.mark.parametrize("loaded", SMALLEST, indirect=True, ids=lambda case: case.name)
def test_engine_of_free_sizes(loaded: Loaded) -> None:
    graph = segship.export(loaded.model)
    for backend in BACKENDS:
        segship.build(graph, backend, loaded.folder / f"free-{backend}.engine")
        with segship.load_engine(loaded.folder / f"free-{backend}.engine") as engine:
            assert wrong_detections(loaded.case, engine.predict(loaded.case.image)) == []


def one_of(*, mmdetection: bool) -> MaskRCNNCase:
    return next(case for case in (*SMALLEST, *cases(CASES)) if case.is_mmdetection == mmdetection)


_OLDER = (
    (r"(backbone\.fpn\.(?:inner|layer)_blocks\.\d)\.0\.(.*)", r"\1.\2"),
    (r"rpn\.head\.conv\.0\.0\.(.*)", r"rpn.head.conv.\1"),
    (r"roi_heads\.mask_head\.(\d)\.0\.(.*)", lambda match: f"roi_heads.mask_head.mask_fcn{int(match[1]) + 1}.{match[2]}"),
)


def test_older_torchvision_names(tmp_path: Path) -> None:
    case = one_of(mmdetection=False)
    older = {}
    for key, value in case.tensors.items():
        rule = next((rule for rule in _OLDER if re.fullmatch(rule[0], key)), None)
        older[re.sub(*rule, key) if rule else key] = value  # type: ignore[arg-type]
    assert sum(key not in older for key in case.tensors) == 2 * (4 + 4 + 1 + 4)
    with segship.load_model(case.write(tmp_path / "older.pth", older), **case.facts) as model:
        assert wrong_detections(case, model.predict(case.image)) == []


def test_detectron2_layout(tmp_path: Path) -> None:
    """Our own names are detectron2's, so mmdetection's weights make its file. Its rules are set to mmdetection's where the two
    differ; clamping of shrinking boxes and the last bits of the level rule are left, and change nothing here."""
    case = one_of(mmdetection=True)
    with segship.load_model(case.write(tmp_path / "model.pth"), **case.facts) as model:
        state = {key: value.numpy() for key, value in model.model.module.state_dict().items()}
        image = model.spec.image
    weights = {key: value for key, value in state.items() if not key.endswith("num_batches_tracked")}
    constants = {
        "pixel_mean": np.zeros((3, 1, 1), np.float32),
        "proposal_generator.anchor_generator.cell_anchors.0": np.zeros((3, 4)),
    }
    path = tmp_path / "model_final.pkl"
    path.write_bytes(pickle.dumps({"model": {**weights, **constants}, "__author__": "Detectron2 Model Zoo"}))
    facts = {**case.facts, "stride_in_1x1": False, "box_min_size": -1.0}
    with segship.load_model(path, **facts) as model:
        assert (model.spec.image.channels, model.spec.decode.paste) == ("bgr", "grid")
        assert model.spec.image.resize == image.resize
        swapped = np.ascontiguousarray(case.image[:, :, ::-1])  # read as BGR, so normalised as RGB
        assert wrong_detections(case, model.predict(swapped)) == []


def test_published_facts_are_assumed_and_said(tmp_path: Path) -> None:
    case = one_of(mmdetection=False)
    with segship.load_model(case.write(tmp_path / "model.pth"), detections=7) as model:
        assumed = {each.fact: each.value for each in model.spec.assumed}
        assert model.spec.outputs[0].shape == ("batch", 7, 4)
        assert model.spec.category_ids == tuple(range(1, 91))
        assert {"norm_eps", "resize", "score_threshold", "classes"} <= set(assumed)
        assert "detections" not in assumed


@pytest.mark.parametrize(
    ("part", "name", "right", "wrong", "fault"),
    [
        ("", "eps", 1e-5, 1e-3, "c5 differs"),
        ("roi_heads.box_pooler", "aligned", True, False, "bbox_roi_feats differs"),
        ("roi_heads.mask_pooler", "sampling_ratio", 0, 2, "mask logits differ"),
        ("proposal_generator.anchors", "offset", 0.0, 0.5, "anchors_p6 differs"),
    ],
)
def test_a_planted_error_is_found(part: str, name: str, right: object, wrong: object, fault: str, tmp_path: Path) -> None:
    case = one_of(mmdetection=True)
    with segship.load_model(case.write(tmp_path / "model.pth"), **case.facts) as model:
        parts = [model.model.module.get_submodule(part)] if part else list(model.model.module.modules())
        planted = [each for each in parts if getattr(each, name, None) == right]
        assert planted
        for each in planted:
            setattr(each, name, wrong)
        assert any(fault in sentence for sentence in faults_of(case, model))


def test_twice_the_limit_is_found(tmp_path: Path) -> None:
    case = one_of(mmdetection=True)
    with segship.load_model(case.write(tmp_path / "model.pth"), **case.facts) as model:
        with recorded(model.model.module) as stages:
            found = model.predict(case.image)
        assert wrong_stages(case, stages) == []
        stages["p3"] = stages["p3"] + 2 * case.bounds.maps * np.abs(case.arrays["p3"]).max()
        stages["mask_logits"] = stages["mask_logits"] + 2 * case.bounds.logits
        assert any("p3" in fault for fault in wrong_stages(case, stages))
        assert wrong_mask_logits(case, stages, found)
        moved = Instances(found.size, found.boxes + np.float32(2 * case.bounds.box), found.scores, found.classes, found.masks)
        doubted = Instances(found.size, found.boxes, found.scores + np.float32(2 * case.bounds.score), found.classes, found.masks)
        assert wrong_detections(case, moved)
        assert wrong_detections(case, doubted)


def test_nothing_and_little_are_found(tmp_path: Path) -> None:
    """A score threshold that none, or one, of the objects reaches."""
    case = one_of(mmdetection=True)
    path = case.write(tmp_path / "model.pth")
    best = np.sort(case.arrays["det_scores"])
    for n, threshold in ((0, float(best[-1] + 1) / 2), (1, float(best[-1] + best[-2]) / 2)):
        with segship.load_model(path, **{**case.facts, "score_threshold": threshold}) as model:
            assert len(model.predict(case.image)) == n


def test_wrong_anchors_are_refused(tmp_path: Path) -> None:
    case = one_of(mmdetection=True)
    with pytest.raises(BadArgument, match="3 anchors for each cell"):
        segship.load_model(case.write(tmp_path / "model.pth"), anchor_ratios=[1.0, 2.0])


def test_batches_of_nothing_but_padding() -> None:
    """More detections asked for than there are candidates: rows beyond the count are zeros."""
    torch.manual_seed(0)
    facts: dict[str, Any] = {
        "blocks": [1, 1, 1, 1],
        "stem": 8,
        "inner": [8, 8, 16, 16],
        "widths": [8, 8, 16, 16],
        "bottleneck": False,
        "channels": 16,
        "rpn_width": 16,
        "n_classes": 3,
        "box_size": 7,
        "box_widths": [32],
        "mask_size": 14,
        "mask_widths": [16, 16],
        **{"stride_in_1x1": False, "norm_eps": 1e-5, "anchor_sizes": [32.0, 64.0, 128.0, 256.0, 512.0]},
        **{"anchor_ratios": [0.5, 1.0, 2.0], "anchor_rounded": False, "anchor_offset": 0.0, "anchor_measured_strides": True},
        **{"rpn_per_level": 50, "rpn_total": 40, "rpn_nms": 0.7, "rpn_min_size": 0.0, "rpn_stds": [1.0] * 4},
        **{"clamp_below": True, "sampling_ratio": 0, "aligned": True, "level_edges": [112.0, 224.0, 448.0]},
        **{"box_stds": [0.1, 0.1, 0.2, 0.2], "box_min_size": 0.0, "score_threshold": 0.4, "nms": 0.5, "detections": 200},
    }
    network = build_module("maskrcnn", facts).eval()
    with torch.inference_mode():
        boxes, scores, classes, masks, count = network(torch.randn(2, 3, 64, 96), torch.tensor([60, 90]))
    assert boxes.shape == (2, 120, 4)  # 40 proposals of 3 classes
    for image, n in enumerate(count.tolist()):
        assert not any(rows[image, n:].any() for rows in (boxes, scores, classes, masks))
        assert (scores[image, :n] > 0.4).all()
        assert (scores[image, :n].diff() <= 0).all()
