"""A network that plain INT8 breaks is mended by keeping few layers in float; an interrupted search repeats no build."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import segship.search.mixed as mixed
import segship.search.search as search
from segship.deploy import Delivered, deploy
from segship.evidence.measure import Schedule
from segship.scenes import write_dataset
from segship.search.store import EngineStore
from segship.trial import Options

OUTLIER = 400.0
"""How much larger one channel is than its neighbours: at 255 steps, nothing is left of the others."""


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("scenes")
    write_dataset(folder, range(70_000, 70_008), (128, 128))
    return folder


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The demo's UNet with one channel of one layer scaled up and scaled down again behind it: the same function."""
    state = {key: tensor.float() for key, tensor in torch.load(asset(), weights_only=True).items()}
    for entry in ("weight", "bias"):
        state[f"up3.conv.double_conv.1.{entry}"][3] *= OUTLIER
    state["up3.conv.double_conv.3.weight"][:, 3] /= OUTLIER
    path = tmp_path_factory.mktemp("outlier") / "outlier.pth"
    torch.save(state, path)
    return path


def asset() -> Path:
    from importlib.resources import files

    return Path(str(files("segship") / "assets" / "scenes-unet.pth"))


def run(checkpoint: Path, data: Path, output: Path) -> Delivered:
    options = Options(backend="onnxruntime", max_drop=1.0, schedule=Schedule(rounds=3, runs_per_turn=1, budget_s=5))
    return deploy(checkpoint, data, output, options=options, scale=1.0)


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(search, "AT_MOST_GROUPS", 10)
    monkeypatch.setattr(mixed, "AT_MOST_PROBES", 2)


@pytest.mark.slow
@pytest.mark.usefixtures("few")
def test_the_search_finds_the_planted_layer_and_resumes(
    checkpoint: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = run(checkpoint, data, tmp_path / "whole.engine")
    candidates = {candidate.name: candidate for candidate in whole.deployment.candidates}
    (found,) = whole.deployment.searches
    assert not all(candidates["onnxruntime int8"].verdicts)
    assert found.sensitivities[0].group == "up3"
    assert all(candidates["onnxruntime mixed"].verdicts)
    assert {keep.where for keep in found.plan.keep} <= {"outc.conv", "up3.*"}

    output, built = tmp_path / "interrupted.engine", 0
    original = EngineStore.engine

    def interrupted(store: EngineStore, *what: object) -> object:
        nonlocal built
        if store.built >= 4:
            raise KeyboardInterrupt
        engine = original(store, *what)  # type: ignore[arg-type]
        built = store.built
        return engine

    with monkeypatch.context() as patch:
        patch.setattr(EngineStore, "engine", interrupted)
        with pytest.raises(KeyboardInterrupt):
            run(checkpoint, data, output)
    assert not output.exists()
    again = run(checkpoint, data, output)
    assert again.deployment.searches[0].engines + built == found.engines
    assert again.deployment.searches[0].plan == found.plan
    assert [entry.name for entry in tmp_path.iterdir() if entry.name.startswith(".")] == []
