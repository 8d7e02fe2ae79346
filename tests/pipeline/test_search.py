"""A network that plain INT8 breaks is mended by keeping few layers in float; an interrupted search repeats no build; a plan
that was tuned is what deploy then builds."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from msgspec import convert

import segship.search.mixed as mixed
import segship.search.search as search
from cli.command import run as command
from segship.core.plan_file import read_plan
from segship.core.precision import PrecisionPlan
from segship.core.profile import Profile
from segship.deploy import Delivered, deploy
from segship.evidence.measure import Schedule
from segship.graph.int8_recipe import Recipe
from segship.quantiser import Quantiser
from segship.scenes import write_dataset
from segship.search.plans import FLOAT
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
    monkeypatch.setattr(Quantiser, "refinements", lambda *_: ())  # smoothing mends the planted channel, and hides the search


@pytest.fixture
def steady(monkeypatch: pytest.MonkeyPatch) -> None:
    """Times by rule instead of by a clock (a float layer costs 1 ms), so that two searches must come to the same end."""

    def times(_store: EngineStore, plans: list[PrecisionPlan], _recipe: Recipe) -> list[float]:
        return [99.0 if plan == FLOAT else sum(3.0 if keep.where.endswith("*") else 1.0 for keep in plan.keep) for plan in plans]

    monkeypatch.setattr(EngineStore, "profile", lambda *_: Profile())
    monkeypatch.setattr(EngineStore, "times", times)


@pytest.mark.slow
@pytest.mark.usefixtures("few", "steady")
def test_the_search_finds_the_planted_layer_and_resumes(
    checkpoint: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = run(checkpoint, data, tmp_path / "whole.engine")
    candidates = {candidate.name: candidate for candidate in whole.deployment.candidates}
    (found,) = whole.deployment.searches
    assert not all(candidates["onnxruntime int8"].verdicts)
    assert found.sensitivities[0].group == "up3"
    assert all(candidates["onnxruntime mixed"].verdicts)
    assert {keep.where for keep in found.plan.keep} == {"outc.conv", "up3.conv.double_conv.0", "up3.conv.double_conv.3"}
    assert {entry.group for entry in found.finer if entry.stays == "int8"} == {"up3.up"}

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


@pytest.mark.slow
@pytest.mark.usefixtures("few")
def test_a_tuned_plan_is_what_deploy_builds(
    checkpoint: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """With the machine's own clock: interrupted after three engines, resumed, written, read, built, right."""
    plan_file, built = tmp_path / "plan.toml", []
    asked = ("--data", data, "--max-drop", 1, "--fact", "scale=1.0", "--json")
    original = EngineStore.engine

    def counted(store: EngineStore, *what: object) -> object:
        if len(built) == 3:
            raise KeyboardInterrupt
        before, engine = store.built, original(store, *what)  # type: ignore[arg-type]
        built.extend([engine] * (store.built - before))
        return engine

    with monkeypatch.context() as patch:
        patch.setattr(EngineStore, "engine", counted)
        assert command("tune", checkpoint, "--backend", "onnxruntime", *asked, "-o", plan_file) == 130
    assert not plan_file.exists()
    capsys.readouterr()
    assert command("tune", checkpoint, "--backend", "onnxruntime", *asked, "-o", plan_file) == 0
    tuned = json.loads(capsys.readouterr().out)
    plan = read_plan(plan_file)
    effects = [keep for keep in plan.keep if keep.effect_ms is not None]
    assert effects
    assert tuned["candidate"]["drop"] <= 1
    assert plan.recipe == str(convert(tuned["search"]["recipe"], Recipe))
    assert not list(tmp_path.glob(".plan*"))

    asked = (*asked, "--plan", plan_file, "--backend", "onnxruntime", "-o", tmp_path / "planned.engine")
    assert command("deploy", checkpoint, *asked) == 0
    candidates = {each["name"]: each for each in json.loads(capsys.readouterr().out)["candidates"]}
    assert set(candidates) == {"PyTorch fp32", "onnxruntime fp32", "onnxruntime mixed"}
    assert candidates["onnxruntime mixed"]["drop"] == pytest.approx(tuned["candidate"]["drop"], abs=1e-6)  # the same engine
    assert candidates["onnxruntime mixed"]["reasons"] == []
