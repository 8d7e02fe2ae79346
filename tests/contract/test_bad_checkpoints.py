"""Files that are no checkpoints, broken, or hostile, and facts that make no sense: one clear sentence each."""

from __future__ import annotations

import json
import os
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from contract.checkpoints import random_state, write, write_hugging_face
from segship.core.errors import AmbiguousCheckpoint, BadArgument, BadCheckpoint, BadInput, UnknownCheckpoint
from segship.models import load_model


def refused(path: Path, kind: type[BadInput] = BadCheckpoint, **facts: Any) -> str:
    """The one sentence with which ``path`` is refused."""
    with pytest.raises(kind) as raised:
        load_model(path, **facts)
    sentence = str(raised.value)
    assert "\n" not in sentence
    assert len(sentence) < 500
    assert raised.value.exit_code == 2
    return sentence


@pytest.fixture
def unet(tmp_path: Path) -> Path:
    """A sound checkpoint file."""
    return write(random_state("unet-transposed"), tmp_path / "unet.pth")


def test_missing(tmp_path: Path) -> None:
    assert "no checkpoint at" in refused(tmp_path / "nothing.pth")


@pytest.mark.parametrize("suffix", ["pth", "safetensors", "bin"])
def test_empty(suffix: str, tmp_path: Path) -> None:
    (tmp_path / f"a.{suffix}").touch()
    assert "is empty" in refused(tmp_path / f"a.{suffix}")


@pytest.mark.parametrize("share", [0.001, 0.3, 0.9, 0.999])
def test_truncated(share: float, unet: Path) -> None:
    content = unet.read_bytes()
    unet.write_bytes(content[: int(len(content) * share)])
    assert "no intact PyTorch file" in refused(unet)


@pytest.mark.parametrize("share", [0.0005, 0.3, 0.999])
def test_truncated_safetensors(share: float, tmp_path: Path) -> None:
    folder = write_hugging_face(tmp_path / "hub", random_state("segformer-small"))
    content = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(content[: max(1, int(len(content) * share))])
    assert "no intact safetensors file" in refused(folder)


@pytest.mark.parametrize("suffix", ["pth", "safetensors"])
@pytest.mark.parametrize("content", [b"just a text file\n", b"{}", bytes(range(256)) * 40, b"\x80\x02.", b"\x80\x04K\x01."])
def test_not_a_checkpoint(content: bytes, suffix: str, tmp_path: Path) -> None:
    (tmp_path / f"a.{suffix}").write_bytes(content)
    refused(tmp_path / f"a.{suffix}")


def test_image_with_a_checkpoint_name(tmp_path: Path) -> None:
    Image.new("RGB", (30, 20)).save(tmp_path / "a.png")
    (tmp_path / "a.png").rename(tmp_path / "a.pth")
    assert "no intact PyTorch file" in refused(tmp_path / "a.pth")


class Hostile:
    """Runs a command when it is unpickled."""

    def __init__(self, command: str) -> None:
        self.command = command

    def __reduce__(self) -> Any:
        return os.system, (self.command,)


@pytest.mark.parametrize("form", ["torch", "wrapped", "legacy", "pickle", "new pickle"])
def test_code_is_never_run(form: str, tmp_path: Path) -> None:
    marker = tmp_path / "executed"
    hostile = {**random_state("unet-transposed"), "note": Hostile(f"touch {marker}")}
    path = tmp_path / "a.pth"
    if form.endswith("pickle"):
        path.write_bytes(pickle.dumps(hostile["note"], protocol=2 if form == "pickle" else 5))
    elif form == "legacy":
        torch.save(hostile, path, _use_new_zipfile_serialization=False)
    else:
        torch.save({"state_dict": hostile} if form == "wrapped" else hostile, path)
    sentence = refused(path)
    assert not marker.exists()
    if form != "new pickle":  # PyTorch refuses the protocol before it meets the code
        assert "system" in sentence
        assert "was not read" in sentence


def test_whole_module_is_refused(tmp_path: Path) -> None:
    sentence = refused(write(torch.nn.Conv2d(1, 1, 1), tmp_path / "a.pth"))
    assert "torch.nn.modules.conv.Conv2d" in sentence
    assert "state_dict()" in sentence


@pytest.mark.parametrize("content", [{}, {"epoch": 3}, [1, 2], torch.ones(3), {1: torch.ones(3)}, {"state_dict": {}}])
def test_no_state_dict(content: Any, tmp_path: Path) -> None:
    refused(write(content, tmp_path / "a.pth"))


def test_unknown_keys(tmp_path: Path) -> None:
    path = write({"layer1.weight": torch.ones(3), "layer2.weight": torch.ones(3)}, tmp_path / "a.pth")
    assert "layer1.weight" in refused(path, UnknownCheckpoint)


def test_backbone_alone_is_unknown(tmp_path: Path) -> None:
    """The official ImageNet files (mit_b*.pth) hold no segmentation head."""
    state = {k.removeprefix("backbone."): v for k, v in random_state("segformer-small").items() if k.startswith("backbone.")}
    refused(write({**state, "head.weight": torch.ones(10, 64)}, tmp_path / "mit_b0.pth"), UnknownCheckpoint)


def test_two_models_in_one_file(tmp_path: Path) -> None:
    state = {**random_state("unet-transposed"), **random_state("segformer-small")}
    path = write(state, tmp_path / "a.pth")
    assert "say which with family=" in refused(path, AmbiguousCheckpoint)


def test_folder_without_weights(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    assert "model.safetensors" in refused(tmp_path)


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("config.json", "{"),
        ("config.json", "[1]"),
        ("config.json", '{"id2label": {"a": "b"}}'),
        ("config.json", '{"id2label": {"0": "one", "1": "two"}}'),
        ("config.json", b"\xff\xfe\x00"),
        ("preprocessor_config.json", "not JSON"),
        ("preprocessor_config.json", '{"size": {"longest_edge": 512}}'),
        ("preprocessor_config.json", '{"size": 512, "resample": 3}'),
        ("preprocessor_config.json", '{"size": "large"}'),
        ("preprocessor_config.json", '{"size": 512, "image_mean": "grey"}'),
        ("preprocessor_config.json", '{"size": 512, "image_mean": [0.5]}'),
        ("preprocessor_config.json", '{"size": 512, "image_std": [0.5, 0, 0.5]}'),
        ("preprocessor_config.json", '{"size": {"height": -4, "width": 0}}'),
    ],
)
def test_broken_hugging_face_configuration(file: str, content: str | bytes, tmp_path: Path) -> None:
    folder = write_hugging_face(tmp_path / "hub", random_state("segformer-small"))
    (folder / file).write_bytes(content if isinstance(content, bytes) else content.encode())
    refused(folder, BadInput)


@pytest.mark.parametrize(
    ("facts", "part"),
    [
        ({"scal": 1.0}, "did you mean 'scale'?"),
        ({"window": 3}, "has no fact 'window'"),
        ({"scale": "half"}, "wrong value"),
        ({"scale": 0}, "scale"),
        ({"scale": -1.0}, "scale"),
        ({"scale": float("nan")}, "scale"),
        ({"classes": ["a", "b", "c"]}, "3 class names were given, the network has 2"),
        ({"classes": "ab"}, "wrong value"),
        ({"mask_values": [1, 2, 3]}, "mask_values"),
        ({"colors": [[1, 2]]}, "wrong value"),
        ({"family": "yolo"}, "no family 'yolo'"),
        ({"family": "segformer"}, "fit none of the families segformer"),
    ],
)
def test_wrong_facts_of_a_unet(facts: dict[str, Any], part: str, unet: Path) -> None:
    assert part in refused(unet, BadInput, **facts)


@pytest.mark.parametrize("threshold", [-0.5, 0, 1, 1.5, float("nan")])
def test_wrong_threshold(threshold: float, tmp_path: Path) -> None:
    assert "threshold" in refused(write(random_state("unet-odd-widths"), tmp_path / "a.pth"), BadArgument, threshold=threshold)


@pytest.mark.parametrize(
    ("facts", "part"),
    [
        ({"variant": "b9"}, "no variant 'b9'"),
        ({"test_mode": "tile"}, "give 'whole' or 'slide'"),
        ({"num_heads": [1, 2, 3]}, "wrong value"),
        ({"num_heads": [3, 3, 3, 3]}, "num_heads"),
        ({"num_heads": [0, 2, 5, 8]}, "num_heads"),
        ({"layer_norm_eps": -1.0}, "layer_norm_eps"),
        ({"mean": [1, 2]}, "wrong value"),
        ({"std": [1.0, 0.0, 1.0]}, "std"),
        ({"resize": {"type": "fit", "long": 0, "short": 0, "kernel": "cv2_linear"}}, "resize"),
        ({"resize": {"type": "fit", "long": 64, "short": 64, "kernel": "lanczos"}}, "wrong value"),
        ({"test_mode": "slide", "slide": {"crop": [64, 64], "stride": [0, 64]}}, "slide"),
        ({"test_mode": "slide", "slide": {"crop": [0, 64], "stride": [32, 64]}}, "slide"),
    ],
)
def test_wrong_facts_of_a_segformer(facts: dict[str, Any], part: str, tmp_path: Path) -> None:
    path = write(random_state("segformer-small"), tmp_path / "a.pth")
    assert part in refused(path, BadInput, **facts)


def test_facts_beside_the_checkpoint(unet: Path) -> None:
    unet.with_suffix(".facts.json").write_text(json.dumps({"scale": 0.25, "classes": ["no", "yes"]}))
    model = load_model(unet, classes=["a", "b"])
    assert model.spec.classes == ("a", "b")
    assert [assumption.fact for assumption in model.spec.assumed] == []
    unet.with_suffix(".facts.json").write_text("{")
    assert "facts.json" in refused(unet)
