"""The levels over whole predictors: a sound one passes, each planted fault is found."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import segship
from contract.checkpoints import random_state, write
from segship.core.errors import BadArgument
from segship.core.spec import Signature, TensorSpec
from segship.evidence.invariance import BATCH, ORDER, OTHER_SHAPE, REPEAT, SHAPE_THERE_AND_BACK
from segship.evidence.predictors import verify_invariance, verify_tensors
from segship.evidence.records import Limit, Verdict
from segship.evidence.tensors import FLIPPED, FLIPPED_WITH_TIES, RELATIVE_DIFFERENCE
from segship.predictor import Predictor
from segship.tasks.semantic import decide, resize_logits

SLIDE = {"test_mode": "slide", "slide": {"crop": [32, 32], "stride": [24, 24]}}
MODELS = {
    "unet": ("unet-bilinear", {"scale": 1.0}),
    "segformer": ("segformer-small", {"test_mode": "whole"}),
    "slide": ("segformer-small", SLIDE),
}
SMALL = {"resize": {"type": "fit", "long": 96, "short": 64, "kernel": "cv2_linear"}}


@pytest.fixture(scope="module", params=list(MODELS))
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A small PyTorch model of each kind."""
    name, facts = MODELS[request.param]
    path = write(random_state(name), tmp_path_factory.mktemp("model") / "a.pth")
    return segship.load_model(path, threads=1, **(facts if request.param == "unet" else {**SMALL, **facts}))


def photos(n: int, size: tuple[int, int] = (48, 72)) -> list[tuple[str, np.ndarray]]:
    rng = np.random.default_rng(sum(size))
    return [(f"photo {i}", rng.integers(0, 256, (*size, 3), np.uint8)) for i in range(n)]


class Changed:
    """A session whose answer is changed on the way out."""

    def __init__(self, session: Any, change: Callable[[np.ndarray], np.ndarray]) -> None:
        self.inputs, self.outputs = session.inputs, session.outputs
        self._session, self._change = session, change

    def run(self, feeds: Any) -> dict[str, np.ndarray]:
        return {name: self._change(array) for name, array in self._session.run(feeds).items()}

    def bind(self, feeds: Any) -> Callable[[], None]:
        return lambda: None

    def close(self) -> None:
        return None


class LabelSession(Changed):
    """The model with resize and decision behind it, as a graph that gives labels."""

    def __init__(self, model: Any) -> None:
        super().__init__(model.session, lambda array: array)
        self.outputs = (TensorSpec("labels", "uint8", ("batch", "image_height", "image_width")),)
        self.inputs = (*self.inputs, TensorSpec("image_size", "int64", (2,)))
        self._model = model

    def run(self, feeds: Any) -> dict[str, np.ndarray]:
        (logits,) = self._session.run({"image": feeds["image"]}).values()
        size = {"input": feeds["image"].shape[2:], "image": tuple(int(side) for side in feeds["image_size"])}
        maps = []
        for each in logits:
            for step in self._model.spec.decode.resize_to:
                each = resize_logits(each, size[step])
            maps.append(decide(each, None))
        return {"labels": np.stack(maps)}


def changed(model: Any, change: Callable[[np.ndarray], np.ndarray]) -> Predictor:
    return Predictor(model.spec, Changed(model.session, change), model.signature)


def labelling(model: Any) -> Predictor:
    session = LabelSession(model)
    signature = Signature(inputs=session.inputs, outputs=session.outputs, output="labels", input_size=None, image_size=None)
    return Predictor(model.spec, session, signature)


def tensors(model: Any, candidate: Any, limit: Limit, **keywords: Any) -> Verdict:
    return verify_tensors(
        model,
        candidate,
        keywords.get("images", photos(2)),
        tie_margin=1e-3,
        limits=[limit],
        title="t",
        reference_name="pytorch",
        candidate_name="engine",
    )


def invariance(candidate: Any, images: Any = None, reference: Any = None) -> Verdict:
    limits = [
        Limit(quantity, at_most=1e-3, reason="a test") for quantity in (BATCH, ORDER, REPEAT, SHAPE_THERE_AND_BACK, OTHER_SHAPE)
    ]
    images = images or photos(3)
    return verify_invariance(candidate, images, limits=limits, title="t", candidate_name="engine", reference=reference)


CLOSE = Limit(RELATIVE_DIFFERENCE, at_most=1e-5, reason="the same network")
SAME_LABELS = Limit(FLIPPED, at_most=0.0, reason="the same network")


def test_a_sound_engine_passes(model: Any) -> None:
    assert tensors(model, changed(model, np.copy), CLOSE).passed
    verdict = invariance(changed(model, np.copy), reference=model)
    assert verdict.passed
    assert BATCH in verdict.measured
    assert (OTHER_SHAPE in verdict.measured) == (model.spec.slide is None)  # a window has one shape


def test_a_wrong_scale_is_found(model: Any) -> None:
    assert not tensors(model, changed(model, lambda logits: logits * np.float32(1.01)), CLOSE).passed


def test_swapped_channels_are_found(model: Any) -> None:
    class Swapped(Predictor):
        def prepare(self, image: Any) -> Any:
            return super().prepare(np.ascontiguousarray(image[:, :, ::-1]))

    swapped = Swapped(model.spec, model.session, model.signature)
    verdict = tensors(model, swapped, Limit(FLIPPED_WITH_TIES, at_most=0.5, reason="a test"))
    assert not verdict.passed
    assert not tensors(model, swapped, Limit(RELATIVE_DIFFERENCE, at_most=1e-2, reason="a test")).passed


def test_a_broken_batch_is_found(model: Any) -> None:
    verdict = invariance(changed(model, lambda logits: np.repeat(logits[:1], len(logits), axis=0)))
    assert not verdict.passed
    assert verdict.measured[BATCH] > 1e-3
    assert verdict.measured[ORDER] > 1e-3


def test_photos_of_several_sizes(model: Any) -> None:
    verdict = invariance(model, [*photos(1, (60, 72)), *photos(2)])
    assert verdict.passed
    assert BATCH in verdict.measured


def test_label_engines(model: Any) -> None:
    if model.spec.slide is not None:
        with pytest.raises(BadArgument, match="compare with the PyTorch model"):
            tensors(labelling(model), model, SAME_LABELS)
        return
    sound = labelling(model)
    assert tensors(model, sound, SAME_LABELS).passed
    assert invariance(sound, reference=model).passed
    assert invariance(sound, [*photos(1, (60, 72)), *photos(2)]).passed
    wrong = Predictor(sound.spec, Changed(sound.session, lambda labels: np.roll(labels, 2, axis=-1)), sound.signature)
    assert not tensors(model, wrong, SAME_LABELS).passed
    assert not invariance(wrong, reference=model).passed
