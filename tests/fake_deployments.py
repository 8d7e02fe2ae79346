"""Deployments as they could have happened, for tests of what is made from them: reports, tables, JSON."""

from __future__ import annotations

from msgspec.structs import replace

from segship.core.backend import Built
from segship.core.engine import Calibration, Manifest
from segship.core.environment import Environment, Processor
from segship.core.graph import PassRecord
from segship.core.precision import Disagreement, Keep, LayerPrecision, PrecisionPlan, PrecisionReport
from segship.core.profile import Kernel, Profile
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
from segship.evidence.searches import Found, JudgedPlan, RecipeLoss, Sensitivity
from segship.graph.int8_recipe import Recipe

NOW = "2026-11-21T08:30:00Z"
IOU = {
    "sky": (97.4, 96.9),
    "building": (88.1, 88.0),
    "pole": (41.9, 40.1),
    "road": (97.0, 97.0),
    "pavement": (84.2, 84.0),
    "tree": (86.3, 86.4),
    "sign": (44.8, 43.9),
    "fence": (52.1, 52.3),
    "car": (85.7, 85.5),
    "pedestrian": (59.0, 57.6),
    "bicyclist": (61.1, 61.0),
}
CLASSES = tuple(IOU)
PROCESSOR = Processor("x86_64", "Example 9000 Processor", ("avx2", "avx512f", "avx512_vnni"), 8)
MACHINE = Environment(PROCESSOR, "Linux 6.1", "3.11.7", {"torch": "2.13.0", "openvino": "2026.4.1"}, 2)


def candidate(name: str, network: float, image: float, score: float | None, same: float, **more: object) -> Candidate:
    """A candidate that was tried; ``name`` is backend and precision."""
    backend, precision = name.replace("PyTorch", "torch").split()
    timed = Timing(
        candidate=name,
        scope="network",
        input_size=(512, 512),
        batch=1,
        threads=2,
        samples_ms=tuple(network * (1 + step / 100) for step in (-3, -2, -2, -1, -1, 0, 1, 1, 2, 4, 9)),
        beside=("PyTorch fp32", "openvino int8"),
        environment=MACHINE,
        created=NOW,
    )
    values = {"network_ms": network, "image_ms": image, "metric": score, "agreement": same, "timings": (timed,), **more}
    return Candidate(name=name, backend=backend, precision=precision, **values)  # type: ignore[arg-type]


def verdict(level: str, title: str, measured: dict[str, float], limit: Limit, **more: object) -> Verdict:
    """A verdict on INT8 beside PyTorch with one limit; passed if the limit holds."""
    values = {"reference": "PyTorch fp32", "candidate": "openvino int8", "images": 117, **more}
    passed = limit.holds(measured.get(limit.quantity, float("nan")))
    return Verdict(level=level, title=title, measured=measured, limits=(limit,), passed=passed, **values)  # type: ignore[arg-type]


def verdicts(drop: float, same: float) -> tuple[Verdict, ...]:
    """Four levels of evidence for a candidate that drops and agrees so much."""
    flips = Limit("flipped_with_ties", at_most=10.0, reason="quantisation moves labels along borders")
    alone = Limit("batch_1_against_n", at_most=0.005, reason="another batch may choose another kernel")
    pixels = Limit("agreement", at_least=98.0, reason="--min-agreement 98")
    budget = Limit("drop", at_most=1.0, reason="--max-drop 1")
    classes = tuple(ClassScore(name, *scores, support=900_000 - 70_000 * i) for i, (name, scores) in enumerate(IOU.items()))
    worst = (ImageScore("street-07.jpg", 97.1), ImageScore("street-03.jpg", 97.9))
    interval = (round(-drop - 0.19, 2), round(-drop + 0.18, 2))
    return (
        verdict("invariance", "the result does not depend on its company", {"batch_1_against_n": 0.0}, alone),
        verdict("tensors", "the network's output is PyTorch's", {"flipped_with_ties": 1.31, "max_abs_difference": 0.0184}, flips),
        verdict("predictions", "the predictions are PyTorch's", {"agreement": same}, pixels, worst=worst),
        verdict(
            "dataset", "the metric is PyTorch's", {"drop": drop}, budget, interval=interval, classes=classes, notes=("a note",)
        ),
    )


def passed(**more: object) -> Deployment:
    """SegFormer on street scenes with labels: INT8 on OpenVINO is chosen."""
    candidates = (
        candidate("PyTorch fp32", 2532.0, 2571.0, 72.51, 100.0, size_bytes=54_900_000),
        candidate("onnxruntime fp32", 744.1, 771.3, 72.51, 99.998, drop=0.0, size_bytes=55_100_000),
        candidate("onnxruntime int8", 584.0, 611.0, 69.30, 96.8, drop=3.21, skipped="mIoU drops by 3.21, at most 1 may be lost"),
        candidate("openvino fp32", 341.0, 368.2, 72.51, 99.997, drop=0.0, size_bytes=55_000_000),
        candidate("openvino int8", 206.4, 233.0, 72.39, 99.31, drop=0.12, size_bytes=14_700_000, chosen=True),
        Candidate(name="tensorrt int8", backend="tensorrt", precision="int8", skipped="TensorRT needs an NVIDIA GPU"),
    )
    proven = tuple(replace(each, verdicts=verdicts(0.12, 99.31)) if each.chosen else each for each in candidates)
    values: dict[str, object] = {
        "title": "SegFormer-B1, street scenes",
        "metric_name": "mIoU",
        "max_drop": 1.0,
        "candidates": proven,
        "calibration_images": 64,
        "evaluation_images": 117,
        "notes": ("3 of 120 images were left out: their labels differ from them in size",),
        "seconds": {"load": 1.9, "export": 14.2, "calibrate": 61.0, "build": 22.8, "measure": 95.1, "verify": 388.0},
        "created": NOW,
    }
    return Deployment(**{**values, **more})  # type: ignore[arg-type]


def searched() -> Deployment:
    """Plain INT8 lost too much, so a plan was searched: one group stays in float, INT8 is slower in another."""
    kernels = (
        Kernel("head/TopK", "TopK", "float", 3.0),
        Kernel("body.a/Conv", "Convolution", "int8", 5.0),
        Kernel("a_abcd_b", "Reorder", "convert", 2.0),
    )
    found = Found(
        backend="openvino",
        probe_images=16,
        recipes=(RecipeLoss(Recipe("mse"), 3.2), RecipeLoss(Recipe("percentile", smooth=True), 2.1)),
        sensitivities=(
            Sensitivity("body <a>", 2, 2.0, 1.5, "partly"),
            Sensitivity("body.b", 4, 0.1, 30.0),
            Sensitivity("head", 1, None, -0.3, "slower"),
        ),
        finer=(Sensitivity("body.a.0", 1, 1.9, 0.5, "float"), Sensitivity("body.a.1", 1, 0.1, 1.0)),
        plan=PrecisionPlan("int8", (Keep("body.a.0", "fp32", "alone in INT8 it loses 1.90 points", 0.5, 1.9),)),
        recipe=Recipe("percentile", smooth=True),
        engines=9,
        stopped_early=True,
        judged=(
            JudgedPlan(("head",), right=False, drop=2.2, network_ms=206.0),
            JudgedPlan(("body.a.0", "head"), right=True, drop=0.12, network_ms=206.4, chosen=True),
            JudgedPlan(("body <a>", "head", "body.b", "x", "y", "z"), right=True, drop=0.1),
        ),
        fp32_ms=341.0,
        int8_ms=206.0,
    )
    candidates = (replace(each, profile=Profile(kernels) if each.chosen else None) for each in passed().candidates)
    return passed(candidates=tuple(candidates), searches=(found,))


def mixed(deployment: Deployment) -> Deployment:
    """The same, the chosen engine being a mixed one."""
    candidates = (
        replace(each, name=f"{each.backend} mixed", precision="mixed") if each.chosen else each for each in deployment.candidates
    )
    return replace(deployment, candidates=tuple(candidates))


def without_labels() -> Deployment:
    """The same on plain images: no metric, and the drop is what the agreement lacks."""
    candidates = tuple(
        replace(
            each,
            metric=None,
            skipped=each.skipped and each.skipped.replace("mIoU", "the agreement"),
            drop=None if each.agreement is None else 100 - each.agreement,
            verdicts=tuple(proof for proof in each.verdicts if proof.level != "dataset"),
        )
        for each in passed().candidates
    )
    return passed(candidates=candidates, metric_name="agreement")


def failed() -> Deployment:
    """An engine that turned out to lose more than it may."""
    bad = {"metric": 66.2, "agreement": 93.4, "drop": 6.31, "verdicts": verdicts(6.31, 93.4)}
    return passed(candidates=tuple(replace(each, **bad) if each.chosen else each for each in passed().candidates))


def without_engine() -> Deployment:
    """No candidate could be chosen."""
    refused = "slower than the allowed 100 ms"
    candidates = (
        each if each.backend == "torch" else replace(each, skipped=None if each.chosen else each.skipped or refused, chosen=False)
        for each in failed().candidates
    )
    return passed(candidates=tuple(candidates))


def spec(**more: object) -> ModelSpec:
    """SegFormer-B1 with eleven classes and no colours of its own."""
    values: dict[str, object] = {
        "family": "segformer",
        "variant": "b1",
        "task": "semantic",
        "hyperparameters": {"depths": [2, 2, 2, 2]},
        "image": ImageInput("rgb", ExactResize((512, 512), "pil_bilinear"), Normalise(1 / 255), exif_orientation=False),
        "outputs": (TensorSpec("logits", "float32", ("batch", 11, 128, 128)),),
        "decode": SemanticDecode(("image",)),
        "slide": None,
        "classes": CLASSES,
        "checkpoint": CheckpointRef("segformer-b1-street.safetensors", "9f86d081884c7d659a2feaa0c55ad015" * 2, "huggingface"),
        "assumed": (Assumption("normalisation", "ImageNet mean and std", "SegformerImageProcessor's defaults"),),
    }
    return ModelSpec(**{**values, **more})  # type: ignore[arg-type]


def manifest(**more: object) -> Manifest:
    """The manifest that fits :func:`passed`; one layer runs in FP32 although INT8 was asked for."""
    wrong = "decode_head.linear_c1/MatMul"
    layers = tuple(LayerPrecision(f"encoder.block.{i}.attn.q/MatMul", "MatMul", "int8") for i in range(61))
    values: dict[str, object] = {
        "segship": "0.1.0",
        "created": NOW,
        "spec": spec(),
        "signature": Signature(
            inputs=(TensorSpec("image", "float32", (1, 3, 512, 512)),),
            outputs=(TensorSpec("labels", "uint8", (1, "height", "width")),),
            output="labels",
            input_size=(512, 512),
            image_size=None,
        ),
        "history": (
            PassRecord("export_onnx", "export", {"opset": "20"}, True),
            PassRecord("fold_constants", "simplify", {}, True),
            PassRecord("fuse_layernorm", "fuse", {}, True),
            PassRecord("insert_qdq", "precision", {"method": "minmax"}, True),
            PassRecord("unsigned_activations", "legalise", {}, False),
        ),
        "plan": PrecisionPlan("int8", (Keep("decode_head.classifier", "fp32", "the last layer decides the classes"),)),
        "calibration": Calibration("minmax", 64, "ab" * 32),
        "backend": "openvino",
        "built": Built(
            options={"hint": "LATENCY"},
            version="2026.4.1",
            precision=PrecisionReport(
                asked={"int8": 62, "fp32": 2},
                found={"int8": 61, "fp32": 3},
                layers=(*layers, LayerPrecision(wrong, "MatMul", "fp32")),
                disagreements=(Disagreement(wrong, "int8", "fp32"),),
            ),
        ),
        "processor": PROCESSOR,
    }
    return Manifest(**{**values, **more}).sealed()  # type: ignore[arg-type]
