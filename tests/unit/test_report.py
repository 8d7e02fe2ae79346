"""The report: what it says for a deployment that passed, one without labels, one that failed, and one without an engine."""

from __future__ import annotations

import re
from html.parser import HTMLParser

import msgspec
import numpy as np
import pytest

from segship.core.backend import Built
from segship.core.engine import Calibration, Manifest
from segship.core.environment import Environment, Processor
from segship.core.errors import BadArgument
from segship.core.graph import PassRecord
from segship.core.precision import Disagreement, Keep, LayerPrecision, PrecisionPlan, PrecisionReport
from segship.core.predictions import SemanticMap
from segship.core.spec import (
    Assumption,
    CheckpointRef,
    ExactResize,
    ImageInput,
    ModelSpec,
    Normalise,
    SemanticDecode,
    Signature,
    TensorSpec,
)
from segship.evidence.records import Candidate, ClassScore, Deployment, ImageScore, Limit, Timing, Verdict
from segship.evidence.report import ExamplePicture, example_picture, render

CLASSES = ("sky", "building", "pole", "road", "pavement", "tree", "sign", "fence", "car", "pedestrian", "bicyclist")
PROCESSOR = Processor("x86_64", "Intel(R) Xeon(R) Platinum 8481C CPU @ 2.70GHz", ("avx2", "avx512f", "avx512_vnni"), 2)
MACHINE = Environment(PROCESSOR, "Linux 6.1", "3.11.7", {"torch": "2.13.0", "openvino": "2026.4.1", "onnxruntime": "1.31.1"}, 2)
NOW = "2026-11-21T08:30:00Z"


def timing(name: str, median: float) -> Timing:
    """Eleven samples around a median."""
    samples = tuple(round(median * (1 + 0.01 * step), 3) for step in (-3, -2, -2, -1, -1, 0, 1, 1, 2, 4, 9))
    return Timing(
        candidate=name,
        scope="network",
        input_size=(512, 512),
        batch=1,
        threads=2,
        samples_ms=samples,
        beside=("PyTorch fp32",),
        environment=MACHINE,
        created=NOW,
    )


def candidate(name: str, network: float, image: float, score: float | None, same: float, **more: object) -> Candidate:
    """A candidate that was tried; ``name`` is backend and precision."""
    backend, precision = name.replace("PyTorch", "torch").split()
    values = {"network_ms": network, "image_ms": image, "metric": score, "agreement": same, "timings": (timing(name, network),)}
    return Candidate(name=name, backend=backend, precision=precision, **{**values, **more})  # type: ignore[arg-type]


def verdicts(drop: float, same: float, *, passed: bool) -> tuple[Verdict, ...]:
    """The four levels; the dataset's fails when not ``passed``."""
    about = {"reference": "PyTorch fp32", "candidate": "openvino int8", "images": 117, "created": NOW}
    scores = [(97.4, 96.9), (88.1, 88.0), (41.9, 40.1), (97.0, 97.0), (84.2, 84.0), (86.3, 86.4), (44.8, 43.9)]
    scores += [(52.1, 52.3), (85.7, 85.5), (59.0, 57.6), (61.1, 61.0)]
    classes = tuple(ClassScore(n, a, b, 900_000 // (i + 1)) for i, (n, (a, b)) in enumerate(zip(CLASSES, scores, strict=True)))
    noise = Limit(
        "flipped_with_ties", at_most=10.0, reason="quantisation moves labels along borders, a few percent of a busy image"
    )
    pixels = Limit("agreement", at_least=98.0, reason="FP32 on ONNX Runtime agrees to 99.9 %; 98 % leaves edges room")
    budget = Limit("drop", at_most=1.0, reason="--max-drop 1.0")
    worst = (ImageScore("0016E5_07959.jpg", 97.1), ImageScore("Seq05VD_f00330.jpg", 97.9))
    return (
        Verdict(
            level="tensors",
            title="the network's output is PyTorch's",
            measured={"flipped_with_ties": 1.31, "max_abs_difference": 0.0184},
            limits=(noise,),
            passed=True,
            **about,
        ),  # type: ignore[arg-type]  # fmt: skip
        Verdict(
            level="predictions",
            title="the predictions are PyTorch's",
            measured={"agreement": same},
            limits=(pixels,),
            passed=same >= 98,
            worst=worst,
            **about,
        ),  # type: ignore[arg-type]  # fmt: skip
        Verdict(
            level="dataset",
            title="the data set's metric is PyTorch's",
            measured={"drop": drop},
            limits=(budget,),
            passed=passed,
            interval=(round(-drop - 0.19, 2), round(-drop + 0.18, 2)),
            classes=classes,
            notes=("11 is ignored, as the data set says",),
            **about,
        ),  # type: ignore[arg-type]  # fmt: skip
        Verdict(
            level="invariance",
            title="the result does not depend on its company",
            measured={"batch_1_against_n": 0.0},
            limits=(Limit("batch_1_against_n", at_most=0.0, reason="the same kernels run in every batch"),),
            passed=True,
            **about,
        ),  # type: ignore[arg-type]  # fmt: skip
    )


def deployment(**more: object) -> Deployment:
    """SegFormer on street scenes: five candidates, INT8 on OpenVINO chosen."""
    values: dict[str, object] = {
        "title": "SegFormer-B1, street scenes",
        "metric_name": "mIoU",
        "max_drop": 1.0,
        "candidates": (
            candidate("PyTorch fp32", 2532.0, 2571.0, 72.51, 100.0, size_bytes=54_900_000),
            candidate("onnxruntime fp32", 744.1, 771.3, 72.51, 99.998, drop=0.0, size_bytes=55_100_000),
            candidate(
                "onnxruntime int8",
                584.0,
                611.0,
                69.30,
                96.8,
                drop=3.21,
                size_bytes=14_900_000,
                skipped="mIoU drops by 3.21, at most 1.0 may be lost",
            ),  # fmt: skip
            candidate("openvino fp32", 341.0, 368.2, 72.51, 99.997, drop=0.0, size_bytes=55_000_000),
            candidate(
                "openvino int8",
                206.4,
                233.0,
                72.39,
                99.31,
                drop=0.12,
                size_bytes=14_700_000,
                chosen=True,
                verdicts=verdicts(0.12, 99.31, passed=True),
            ),  # fmt: skip
            Candidate(
                name="tensorrt int8",
                backend="tensorrt",
                precision="int8",
                skipped="TensorRT is not installed: pip install tensorrt, and it needs an NVIDIA GPU",
            ),  # fmt: skip
        ),
        "calibration_images": 64,
        "evaluation_images": 117,
        "notes": ("3 of 120 images were left out: their labels differ from them in size",),
        "seconds": {"load_model": 1.9, "export": 14.2, "quantise": 61.0, "build": 22.8, "measure": 95.1, "verify": 388.0},
        "created": NOW,
    }
    return Deployment(**{**values, **more})  # type: ignore[arg-type]


def manifest(**more: object) -> Manifest:
    """The manifest that fits :func:`deployment`."""
    mean, std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    spec = ModelSpec(
        family="segformer",
        variant="b1",
        task="semantic",
        hyperparameters={"depths": [2, 2, 2, 2]},
        image=ImageInput("rgb", ExactResize((512, 512), "pil_bilinear"), Normalise(1 / 255, mean, std), exif_orientation=False),
        output=TensorSpec("logits", "float32", ("batch", 11, 128, 128)),
        decode=SemanticDecode(("image",)),
        slide=None,
        classes=CLASSES,
        checkpoint=CheckpointRef(
            "segformer-b1-street.safetensors", "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd1", "huggingface"
        ),
        assumed=(Assumption("input normalisation", "ImageNet mean and std", "SegformerImageProcessor's defaults"),),
    )
    layers = tuple(LayerPrecision(f"encoder.block.{i}.attn.q/MatMul", "MatMul", "int8") for i in range(61))
    report = PrecisionReport(
        asked={"int8": 62, "fp32": 2},
        found={"int8": 61, "fp32": 3},
        layers=(*layers, LayerPrecision("decode_head.linear_c1/MatMul", "MatMul", "fp32")),
        disagreements=(Disagreement("decode_head.linear_c1/MatMul", "int8", "fp32"),),
    )
    values: dict[str, object] = {
        "segship": "0.1.0",
        "created": NOW,
        "spec": spec,
        "signature": Signature(
            inputs=(TensorSpec("image", "float32", (1, 3, 512, 512)),),
            outputs=(TensorSpec("labels", "uint8", (1, "height", "width")),),
            output="labels",
            input_size=(512, 512),
            image_size=None,
        ),  # fmt: skip
        "history": (
            PassRecord("export_onnx", "export", {"opset": "20"}, changed=True),
            PassRecord("fold_constants", "simplify", {}, changed=True),
            PassRecord("fuse_layernorm", "fuse", {}, changed=True),
            PassRecord("insert_qdq", "precision", {"method": "minmax"}, changed=True),
            PassRecord("unsigned_activations", "legalise", {}, changed=False),
        ),
        "plan": PrecisionPlan(
            "int8", (Keep("decode_head.classifier", "fp32", "the last layer decides the classes: 0.4 points mIoU"),)
        ),
        "calibration": Calibration("minmax", 64, "ab" * 32),
        "backend": "openvino",
        "built": Built(options={"hint": "LATENCY"}, version="2026.4.1", precision=report),
        "processor": PROCESSOR,
    }
    return Manifest(**{**values, **more}).sealed()  # type: ignore[arg-type]


def without_labels() -> Deployment:
    """The same, on plain images: no metric, and the drop is what the agreement lacks."""
    bare = [
        msgspec.structs.replace(c, metric=None, drop=None if c.agreement is None else 100 - c.agreement)
        for c in deployment().candidates
    ]
    kept = [msgspec.structs.replace(c, verdicts=tuple(v for v in c.verdicts if v.level != "dataset")) for c in bare]
    return deployment(candidates=tuple(kept), metric_name="agreement")


def failed() -> Deployment:
    """An engine that lost more than it may, found out after it was made."""
    kept = [c for c in deployment().candidates if not c.chosen]
    bad = candidate(
        "openvino int8", 206.4, 233.0, 66.2, 93.4, drop=6.31, chosen=True, verdicts=verdicts(6.31, 93.4, passed=False)
    )
    return deployment(candidates=(*kept, bad))


def nothing() -> Deployment:
    """No candidate could be chosen."""
    kept = [
        msgspec.structs.replace(c, chosen=False, skipped=c.skipped or "slower than the allowed 100 ms")
        for c in failed().candidates[1:]
    ]
    return deployment(candidates=(deployment().candidates[0], *kept))


def picture(name: str = "0016E5_07959.jpg") -> ExamplePicture:
    """A noisy photo of two classes in which one tenth of the pixels differ."""
    labels = np.repeat(np.arange(10, dtype=np.uint8) // 5, 10)[None].repeat(60, axis=0)
    photo = np.random.default_rng(0).integers(0, 256, (60, 100, 3), np.uint8)
    return example_picture(name, photo, SemanticMap(labels), SemanticMap(np.roll(labels, 5, axis=1)), CLASSES)
