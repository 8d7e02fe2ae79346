"""What spoils INT8 in practice, planted in trained networks without changing their function: the search mends it on real engines.

An outlier channel is planted in ``test_search.py``; an overflow of float16 in ``test_half_demo.py``.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from importlib.resources import files
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

import segship
import segship.search.mixed as mixed
import segship.search.search as search
from segship.backends import load_backend
from segship.core.precision import Keep, PrecisionPlan
from segship.deploy import deploy
from segship.evidence.measure import Schedule
from segship.quantiser import Quantiser
from segship.scenes import write_dataset
from segship.tasks import task_of
from segship.trial import Options

State = dict[str, torch.Tensor]
ASSETS = Path(str(files("segship") / "assets"))
SIZE = (128, 128)
FACTOR = 1000.0
"""Of 255 steps, nothing is left of what is so much smaller than its neighbour."""


def skip_of_another_range(state: State) -> None:
    """UNet: what the longest skip carries is a thousand times larger than what it is joined with."""
    for entry in ("weight", "bias"):
        state[f"inc.double_conv.4.{entry}"] *= FACTOR
    state["down1.maxpool_conv.1.double_conv.0.weight"] /= FACTOR
    state["up4.conv.double_conv.0.weight"][:, :16] /= FACTOR


def depthwise_of_unlike_channels(state: State) -> None:
    """SegFormer: the hidden channels of every Mix-FFN reach over four decades, its depthwise weights as far the other way."""
    for name in [each.removesuffix(".dense1.weight") for each in state if each.endswith("mlp.dense1.weight")]:
        growing = torch.logspace(-2, 2, len(state[f"{name}.dense1.bias"]))
        state[f"{name}.dense1.weight"] *= growing[:, None]
        state[f"{name}.dense1.bias"] *= growing
        state[f"{name}.dwconv.dwconv.weight"] /= growing[:, None, None, None]


def outlier_in_every_lateral(state: State) -> None:
    """A feature pyramid: one channel of all its levels a thousand times larger than the others."""
    for level in (2, 3, 4, 5):
        for entry in ("weight", "bias"):
            state[f"backbone.fpn_lateral{level}.{entry}"][3] *= FACTOR
        state[f"backbone.fpn_output{level}.weight"][:, 3] /= FACTOR


def planted(asset: str, plant: Callable[[State], None], folder: Path) -> Path:
    """A copy of an embedded checkpoint, facts beside it, with the fault."""
    for each in ASSETS.glob(f"{Path(asset).stem}*"):
        (shutil.copytree if each.is_dir() else shutil.copy)(each, folder / each.name)
    path = folder / asset
    if path.is_dir():
        state = {key: tensor.float() for key, tensor in load_file(path / "model.safetensors").items()}
        plant(state)
        save_file(state, path / "model.safetensors", metadata={"format": "pt"})
        return path
    whole = torch.load(path, weights_only=True)
    state = {key: tensor.float() for key, tensor in whole.get("model", whole).items()}
    plant(state)
    torch.save({"model": state} if "model" in whole else state, path)
    return path


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("scenes")
    write_dataset(folder, range(72_000, 72_008), SIZE)
    return folder


def test_a_skip_of_another_range_spoils_int8_and_float_there_restores(data: Path, tmp_path: Path) -> None:
    whole = segship.load_model(ASSETS / "scenes-unet.pth", scale=1.0)
    images = sorted(data.glob("*.jpg"))

    def agreement(model: object, *keep: str) -> float:
        graph = segship.export(model, image_size=SIZE)
        quantiser, traits = Quantiser(model, graph, images[:3], cache=tmp_path), load_backend("onnxruntime").TRAITS
        own = quantiser.plan(traits).keep
        plan = PrecisionPlan("int8", (*own, *(Keep(where, "fp32", "a test") for where in keep)))
        segship.build(quantiser.quantised(traits, plan), "onnxruntime", tmp_path / "int8.engine")
        with segship.load_engine(tmp_path / "int8.engine", threads=1) as engine:
            pairs = ((whole.predict(image), engine.predict(image)) for image in images[3:6])
            return float(np.mean([task_of(engine.spec).agreement(*pair) for pair in pairs]))

    spoilt = segship.load_model(planted("scenes-unet.pth", skip_of_another_range, tmp_path), scale=1.0)
    assert agreement(whole) > 0.99
    assert agreement(spoilt) < 0.98
    assert agreement(spoilt, "up4.*") > 0.99


@pytest.mark.slow
@pytest.mark.parametrize(
    ("asset", "plant", "facts"),
    [
        ("scenes-unet.pth", skip_of_another_range, {"scale": 1.0}),
        ("scenes-segformer", depthwise_of_unlike_channels, {"resize": {"type": "keep"}}),
        ("scenes-pointrend.pth", outlier_in_every_lateral, {}),
    ],
    ids=["unet", "segformer", "pointrend"],
)
def test_the_search_mends_what_plain_int8_breaks(
    asset: str,
    plant: Callable[[State], None],
    facts: dict[str, object],
    data: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(search, "AT_MOST_GROUPS", 8)
    monkeypatch.setattr(mixed, "AT_MOST_PROBES", 2)
    monkeypatch.setattr(Quantiser, "refinements", lambda *_: ())  # smoothing mends some of it, and hides the search
    options = Options(backend="onnxruntime", max_drop=0.5, schedule=Schedule(rounds=3, runs_per_turn=1, budget_s=5))
    whole = deploy(planted(asset, plant, tmp_path), data, tmp_path / "found.engine", options=options, **facts)
    candidates = {candidate.name: candidate for candidate in whole.deployment.candidates}
    assert not all(candidates["onnxruntime int8"].verdicts)
    assert all(candidates["onnxruntime mixed"].verdicts)
    assert candidates["onnxruntime mixed"].agreement > candidates["onnxruntime int8"].agreement
