"""What a person looks at: example images of an engine beside PyTorch, kept as evidence, and the report made from it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from segship.core.engine import Engine, Manifest
from segship.core.errors import BadEngine
from segship.core.files import storage_errors, write_atomically
from segship.core.image import ImageArray
from segship.core.packing import pack, unpack
from segship.core.predictions import Prediction
from segship.evidence import records
from segship.evidence.records import Deployment
from segship.evidence.report import example_picture, render
from segship.judging import Judge, Tried
from segship.predictor import load_engine

REPORT = "report.html"
_N_EXAMPLES = 4
_DEPLOYMENT = "deployment.jsonl"
_EXAMPLES = "examples"


@dataclass(frozen=True)
class Example:
    """One image and the two predictions of it."""

    name: str
    photo: ImageArray
    reference: Prediction
    candidate: Prediction


def worst_examples(tried: Tried, judge: Judge) -> list[Example]:
    """The images on which the engine and PyTorch differ most."""
    assert tried.engine is not None
    names = [score.image for score in tried.record.verdicts[-1].worst[:_N_EXAMPLES]] if tried.record.verdicts else []
    examples = []
    with load_engine(tried.engine.path) as engine:
        for name in names:
            index, photo = judge.photo(name)
            examples.append(Example(name, photo, judge.references[index], engine.predict(photo)))
    return examples


def write_evidence(engine: Engine, deployment: Deployment, examples: Sequence[Example]) -> None:
    """Append the deployment, its verdicts and its timings to the engine's evidence, and store the examples' images."""
    records.append(engine.evidence / _DEPLOYMENT, deployment)
    for candidate in deployment.candidates:
        for verdict in candidate.verdicts if candidate.chosen else ():
            records.append(engine.evidence / "verdicts.jsonl", verdict)
        for timing in candidate.timings:
            records.append(engine.evidence / "timings.jsonl", timing)
    for index, example in enumerate(examples):
        folder = engine.evidence / _EXAMPLES / f"{index}"
        with storage_errors(folder):
            folder.mkdir(parents=True)
            (folder / "name.txt").write_text(example.name, "utf-8")
            Image.fromarray(example.photo).save(folder / "photo.png")
            (folder / "reference.npz").write_bytes(pack(example.reference))
            (folder / "candidate.npz").write_bytes(pack(example.candidate))


def read_evidence(engine: Engine) -> tuple[Deployment, list[Example]]:
    """What :func:`write_evidence` stored last; raises :class:`BadEngine` when there is nothing."""
    deployments = records.read(engine.evidence / _DEPLOYMENT, Deployment)
    if not deployments:
        raise BadEngine(f"{engine.path} holds no evidence of a deployment: make the engine with `segship deploy`")
    folders = sorted((engine.evidence / _EXAMPLES).glob("*/name.txt"))
    return deployments[-1], [_read_example(name.parent) for name in folders]


def _read_example(folder: Path) -> Example:
    try:
        photo = np.asarray(Image.open(folder / "photo.png"))
        reference, candidate = (unpack((folder / f"{name}.npz").read_bytes()) for name in ("reference", "candidate"))
        name = (folder / "name.txt").read_text("utf-8")
    except (OSError, SyntaxError, ValueError) as error:
        raise BadEngine(f"the evidence in {folder} is damaged ({error}): deploy again") from error
    return Example(name, photo, reference, candidate)


def write_report(
    file: Path, deployment: Deployment, manifest: Manifest | None, examples: Sequence[Example], engine_path: Path
) -> None:
    """Make ``file`` from records and examples: the same ones give the same bytes."""
    classes = manifest.spec.classes if manifest else _class_names(deployment)
    colors = manifest.spec.colors if manifest else None
    pictures = [example_picture(each.name, each.photo, each.reference, each.candidate, classes, colors) for each in examples]
    write_atomically(file, render(deployment, manifest, pictures, engine=engine_path.name).encode())


def _class_names(deployment: Deployment) -> tuple[str, ...]:
    scores = (verdict.classes for candidate in deployment.candidates for verdict in candidate.verdicts if verdict.classes)
    return tuple(score.name for score in next(scores, ()))
