"""One suite for every backend: probe, build, load, run, refuse, read back."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

from segship import load_model
from segship.backends import BACKENDS, load_backend
from segship.core.backend import Session
from segship.core.engine import Engine
from segship.core.errors import BadArgument, BadEngine, EngineNotPortable
from segship.core.graph import Graph
from segship.pipeline import ModelPredictor, build, build_reference, export
from segship.predictor import load_engine

SIZE = (48, 64)
COMPILED = ("onnxruntime", "openvino")

FP32_LIMIT = 1e-4
"""Rounding in another order reaches 1e-6 on logits of order 1 here; a structural error is above 1e-2."""


@pytest.fixture(scope="module")
def model(tiny_checkpoint: Path) -> ModelPredictor:
    return load_model(tiny_checkpoint, scale=1.0)


@pytest.fixture(scope="module")
def graph(model: ModelPredictor) -> Graph:
    return export(model, image_size=SIZE, output="logits")


@pytest.fixture(scope="module", params=sorted(BACKENDS))
def engine(
    request: pytest.FixtureRequest, model: ModelPredictor, graph: Graph, tmp_path_factory: pytest.TempPathFactory
) -> Engine:
    if problem := load_backend(request.param).probe():
        pytest.skip(f"{request.param}: {problem}")
    path = tmp_path_factory.mktemp("engines") / f"{request.param}.engine"
    if load_backend(request.param).TRAITS.source == "model":
        return build_reference(model, path)
    return build(graph, request.param, path)


@pytest.fixture
def session(engine: Engine) -> Session:
    return load_engine(engine.path).session


def image(batch: int = 1) -> np.ndarray:
    return np.random.default_rng(1).random((batch, 3, *SIZE), dtype=np.float32)


def test_name_is_the_module_name(engine: Engine) -> None:
    assert engine.manifest.backend == load_backend(engine.manifest.backend).NAME


def test_runs_any_batch_with_the_stated_shape_and_dtype(session: Session) -> None:
    for batch in (1, 3, 2):
        (output,) = session.run({"image": image(batch)}).values()
        assert output.shape == (batch, 2, *SIZE)
        assert output.dtype == np.float32


def test_agrees_with_pytorch(engine: Engine, session: Session, model: ModelPredictor) -> None:
    (found,) = session.run({"image": image(2)}).values()
    (expected,) = model.session.run({"image": image(2)}).values()
    difference = np.abs(found - expected).max()
    if engine.manifest.backend == "null":
        assert difference > FP32_LIMIT  # the comparison can fail: zeros are no result
    else:
        assert difference <= FP32_LIMIT


def test_results_belong_to_the_caller(session: Session) -> None:
    (first,) = session.run({"image": image()}).values()
    kept = first.copy()
    session.run({"image": image() + 1})
    assert np.array_equal(first, kept)


def test_bound_function_runs_on_memory_that_it_keeps(engine: Engine, session: Session) -> None:
    """A runtime that only borrows the memory would be timed on whatever comes to lie there."""
    feed = image()
    before = sys.getrefcount(feed)
    run = session.bind({"image": feed})
    run()
    run()
    assert sys.getrefcount(feed) > before or engine.manifest.backend == "null"  # which reads no input


@pytest.mark.parametrize(
    ("feeds", "found"),
    [
        ({"picture": image()}, "picture"),
        ({"image": image().astype(np.float64)}, "float64"),
        ({"image": image()[0]}, "(3, 48, 64)"),
        ({"image": image()[:, :2]}, "(1, 2, 48, 64)"),
    ],
    ids=["name", "dtype", "rank", "channels"],
)
def test_wrong_feeds_are_refused_with_what_was_found(session: Session, feeds: dict[str, np.ndarray], found: str) -> None:
    with pytest.raises(BadArgument) as error:
        session.run(feeds)
    assert found in str(error.value)


def test_precision_is_read_back(engine: Engine) -> None:
    report = engine.manifest.built.precision
    if engine.manifest.backend == "null":
        assert report.found is None
    else:
        assert report.found == {"fp32": 23}  # 18 convolutions 3x3, 4 transposed, 1 of the output
        assert not report.disagreements


def test_a_changed_byte_is_noticed(engine: Engine, tmp_path: Path) -> None:
    import shutil

    copy = Path(shutil.copytree(engine.path, tmp_path / "copy.engine"))
    file = max((copy / "network").iterdir(), key=lambda each: each.stat().st_size)
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)
    with pytest.raises(BadEngine, match="not the file that was built"):
        load_engine(copy)


def test_a_manifest_of_fewer_fields_is_still_whole(engine: Engine, tmp_path: Path) -> None:
    """An engine of an older segship lacks what is new since; its seal holds all the same, and a change still breaks it."""
    import json
    import shutil
    from hashlib import sha256

    copy = Path(shutil.copytree(engine.path, tmp_path / "copy.engine"))
    older = json.loads((copy / "manifest.json").read_text())
    del older["plan"]["recipe"]
    older["id"] = ""
    older["id"] = sha256(json.dumps(older, separators=(",", ":"), ensure_ascii=False).encode()).hexdigest()
    (copy / "manifest.json").write_text(json.dumps(older, indent=1, ensure_ascii=False))
    assert load_engine(copy).engine.manifest.plan == engine.manifest.plan
    (copy / "manifest.json").write_text(json.dumps({**older, "created": "today"}, indent=1, ensure_ascii=False))
    with pytest.raises(BadEngine, match="was changed after"):
        load_engine(copy)


def test_another_release_of_the_backend_is_refused(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(load_backend(engine.manifest.backend), "version", lambda: "0.1.7")
    with pytest.raises(EngineNotPortable, match=r"installed is 0\.1\.7"):
        load_engine(engine.path)


def test_the_callers_arithmetic_is_left_alone(session: Session) -> None:
    """ONNX Runtime's option session.set_denormal_as_zero switches denormals off in the calling thread, for good."""
    session.run({"image": image()})
    assert np.float64(5e-324) > 0
    assert float("5e-324") * 1.0 > 0


def test_a_profile_names_the_layers_and_adds_up(engine: Engine, session: Session) -> None:
    """The runtime's own clocks: every convolution is there by its module path, and the shares are whole."""
    found = load_engine(engine.path).profile(np.zeros((*SIZE, 3), np.uint8))
    if engine.manifest.backend == "null":
        assert found.kernels == ()
        return
    assert sum(found.share(role) for role in ("int8", "float", "convert")) == pytest.approx(100)
    assert found.share("int8") == 0
    assert found.share("float") > 50  # a float network converts layouts at most
    if engine.manifest.backend in COMPILED:
        convolutions = {layer.name.partition("/")[0] for layer in engine.manifest.built.precision.layers}
        assert convolutions <= {kernel.path for kernel in found.kernels}
