"""What every model family must keep: hyper-parameters from the file alone, one reader for each file, strict loading."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from contract.checkpoints import NETWORKS, hugging_face_state, random_state, write, write_hugging_face
from golden.case import CASES, cases
from segship.core.errors import BadArgument, BadCheckpoint
from segship.core.spec import KeepSize, Normalise
from segship.models import FAMILIES, build_module, load_model
from segship.models.checkpoint import Checkpoint, read_checkpoint

EVERY = pytest.mark.parametrize("name", list(NETWORKS))
SEGFORMERS = pytest.mark.parametrize("name", [name for name in NETWORKS if name.startswith("segformer")])
ONE_OF_EACH = pytest.mark.parametrize("name", ["unet-transposed", "segformer-small", "pointrend-basic"])

SIZES = {"unet": ((61, 90), (61, 90)), "segformer": ((61, 90), (16, 23)), "pointrend": ((64, 96), (64, 96))}
"""Family to a height and width that its network takes, and those of its logits."""


def same(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> bool:
    """Whether two state dicts hold the same names and values."""
    return first.keys() == second.keys() and all(torch.equal(first[key], second[key]) for key in first)


@EVERY
def test_hyperparameters_come_back(name: str, tmp_path: Path) -> None:
    family, hyperparameters = NETWORKS[name]
    state = random_state(name)
    model = load_model(write(state, tmp_path / "a.pth"))
    assert model.spec.family == family
    assert model.spec.hyperparameters == hyperparameters
    assert same(model.module.state_dict(), state)
    assert not model.module.training
    assert len(model.spec.classes) == max(hyperparameters["n_classes"], 2)


@EVERY
def test_forward_works_for_any_batch(name: str, tmp_path: Path) -> None:
    family, hyperparameters = NETWORKS[name]
    module = load_model(write(random_state(name), tmp_path / "a.pth")).module
    size, output_size = SIZES[family]
    images = torch.rand(3, hyperparameters.get("n_channels", 3), *size, generator=torch.Generator().manual_seed(1))
    together = module(images)
    assert together.shape == (3, hyperparameters["n_classes"], *output_size)
    for index in range(3):
        torch.testing.assert_close(together[index : index + 1], module(images[index : index + 1]), rtol=0, atol=1e-5)


@EVERY
def test_exactly_one_family_claims(name: str, tmp_path: Path) -> None:
    checkpoint = read_checkpoint(write(random_state(name), tmp_path / "a.pth"))
    assert [family.NAME for family in FAMILIES if family.claims(checkpoint)] == [NETWORKS[name][0]]


@pytest.mark.parametrize("case", list(cases(CASES)), ids=lambda case: case.name)
def test_exactly_one_family_claims_official_keys(case: Any) -> None:
    tensors = {key: torch.empty(shape, device="meta") for key, shape in case.manifest["keys"].items()}
    checkpoint = Checkpoint(Path("a.pth"), "", "", tensors, {}, {}, None, None, {})
    assert [family.NAME for family in FAMILIES if family.claims(checkpoint)] == [case.family]


@ONE_OF_EACH
@pytest.mark.parametrize("key", ["state_dict", "model_state_dict", "model", "module", "net"])
def test_wrappers(name: str, key: str, tmp_path: Path) -> None:
    state = random_state(name)
    content = {"epoch": 3, "meta": {"CLASSES": ("x",)}, "optimizer": {"lr": 0.1}, key: state}
    assert same(load_model(write(content, tmp_path / "a.pth")).module.state_dict(), state)


@ONE_OF_EACH
def test_data_parallel_prefix(name: str, tmp_path: Path) -> None:
    state = random_state(name)
    path = write({f"module.{key}": value for key, value in state.items()}, tmp_path / "a.pth")
    assert same(load_model(path).module.state_dict(), state)


@ONE_OF_EACH
def test_half_precision_and_gradients_do_not_matter(name: str, tmp_path: Path) -> None:
    state = {
        key: torch.nn.Parameter(value.half()) if value.is_floating_point() else value for key, value in random_state(name).items()
    }
    module = load_model(write(state, tmp_path / "a.pth")).module
    assert all(value.dtype == torch.float32 and not value.requires_grad for value in module.parameters())


def key_of_each_kind(state: dict[str, torch.Tensor]) -> list[str]:
    """The first and the last of the keys that differ only in the number of their stage or block."""
    kinds: dict[str, list[str]] = {}
    for key in state:
        if not key.endswith("num_batches_tracked"):
            kinds.setdefault(re.sub(r"(block|res)\d\.\d+", "block", key), []).append(key)
    return sorted({key for keys in kinds.values() for key in (keys[0], keys[-1])})


def refused_in_memory(checkpoint: Checkpoint, tensors: dict[str, torch.Tensor], monkeypatch: pytest.MonkeyPatch) -> None:
    """``tensors`` in the checkpoint's place are refused with one sentence (no file is written: there are hundreds of trials)."""
    monkeypatch.setattr("segship.models.family.read_checkpoint", lambda _path: replace(checkpoint, tensors=tensors))
    with pytest.raises((BadCheckpoint, BadArgument)) as raised:
        load_model(checkpoint.path)
    assert "\n" not in str(raised.value)


@EVERY
def test_every_missing_key_is_refused(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    checkpoint = read_checkpoint(write(random_state(name), tmp_path / "a.pth"))
    for key in key_of_each_kind(checkpoint.tensors):
        lacking = {other: value for other, value in checkpoint.tensors.items() if other != key}
        refused_in_memory(checkpoint, lacking, monkeypatch)


@ONE_OF_EACH
@pytest.mark.parametrize("shape", ["scalar", "longer", "extra axis"])
def test_every_misshapen_key_is_refused(name: str, shape: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    checkpoint = read_checkpoint(write(random_state(name), tmp_path / "a.pth"))
    for key in key_of_each_kind(checkpoint.tensors):
        right = checkpoint.tensors[key]
        wrong = {"scalar": torch.tensor(1.0), "longer": torch.cat([right] * 2), "extra axis": right[None]}[shape]
        refused_in_memory(checkpoint, {**checkpoint.tensors, key: wrong}, monkeypatch)


@EVERY
def test_a_foreign_key_is_refused(name: str, tmp_path: Path) -> None:
    path = write({**random_state(name), "aux_head.conv.weight": torch.ones(2)}, tmp_path / "a.pth")
    with pytest.raises(BadCheckpoint, match=r"has the foreign aux_head\.conv\.weight"):
        load_model(path)


def test_the_unused_layer_of_official_segformers_is_no_foreign_key(tmp_path: Path) -> None:
    unused = {"decode_head.conv_seg.weight": torch.ones(19, 128, 1, 1), "decode_head.conv_seg.bias": torch.ones(19)}
    state = random_state("segformer-small")
    assert same(load_model(write({**state, **unused}, tmp_path / "a.pth")).module.state_dict(), state)


def test_files_without_batch_counters_load(tmp_path: Path) -> None:
    state = {key: value for key, value in random_state("unet-bilinear").items() if "num_batches" not in key}
    assert load_model(write(state, tmp_path / "a.pth")).spec.variant.startswith("unet-bilinear")


@SEGFORMERS
@pytest.mark.parametrize("safetensors", [True, False])
def test_hugging_face_layout(name: str, safetensors: bool, tmp_path: Path) -> None:
    state = random_state(name)
    id2label = {str(i): f"name {i}" for i in range(NETWORKS[name][1]["n_classes"])}
    model = load_model(write_hugging_face(tmp_path / "hub", state, safetensors=safetensors, id2label=id2label))
    assert same(model.module.state_dict(), state)
    assert model.spec.hyperparameters == {**NETWORKS[name][1], "layer_norm_eps": 1e-5}
    assert model.spec.classes == tuple(id2label.values())
    assert "Hugging Face" in model.spec.checkpoint.layout


@SEGFORMERS
def test_both_layouts_compute_the_same(name: str, tmp_path: Path) -> None:
    state = random_state(name)
    official = load_model(write(state, tmp_path / "a.pth"), layer_norm_eps=1e-5)
    renamed = load_model(write_hugging_face(tmp_path / "hub", state))
    image = torch.rand(1, 3, 64, 96, generator=torch.Generator().manual_seed(1))
    assert torch.equal(official.module(image), renamed.module(image))


def test_hugging_face_value_without_key(tmp_path: Path) -> None:
    state = hugging_face_state(random_state("segformer-small"))
    lacking = {key: value for key, value in state.items() if "block.1.0.attention.self.value" not in key}
    with pytest.raises(BadCheckpoint):
        load_model(write(lacking, tmp_path / "a.bin"))


@SEGFORMERS
@pytest.mark.filterwarnings("ignore")  # transformers' own are not ours
def test_transformers_computes_the_same(name: str, tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers", reason="transformers is not installed: its own SegFormer was not compared")
    facts = NETWORKS[name][1]
    config = transformers.SegformerConfig(
        num_labels=facts["n_classes"],
        hidden_sizes=facts["dims"],
        depths=facts["depths"],
        num_attention_heads=facts["heads"],
        sr_ratios=facts["sr_ratios"],
        mlp_ratios=[hidden // dim for hidden, dim in zip(facts["hidden"], facts["dims"], strict=True)],
        decoder_hidden_size=facts["head_width"],
    )
    theirs = transformers.SegformerForSemanticSegmentation(config).eval()
    theirs.save_pretrained(tmp_path / "hub")
    image = torch.rand(2, 3, 64, 96, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        expected = theirs(image).logits
    torch.testing.assert_close(load_model(tmp_path / "hub").module(image), expected, rtol=0, atol=1e-5)


def test_other_heads_must_be_stated(tmp_path: Path) -> None:
    facts = {**NETWORKS["segformer-odd"][1], "dims": [6, 12, 18, 24], "heads": [1, 2, 3, 4]}
    state = build_module("segformer", facts).state_dict()
    path = write(state, tmp_path / "a.pth")
    with pytest.raises(BadArgument, match="state num_heads"):
        load_model(path)
    assert load_model(path, num_heads=(1, 2, 3, 4)).spec.hyperparameters == facts


def test_hugging_face_files_are_obeyed_or_overruled(tmp_path: Path) -> None:
    facts = NETWORKS["segformer-small"][1]
    write(hugging_face_state(random_state("segformer-small")), tmp_path / "pytorch_model.bin")
    (tmp_path / "config.json").write_text(json.dumps({"num_attention_heads": facts["heads"]}))
    processor = {"size": 64, "do_rescale": False, "image_mean": [1.0, 2.0, 3.0], "image_std": [4.0, 5.0, 6.0]}
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(processor))
    spec = load_model(tmp_path).spec
    assert spec.hyperparameters["heads"] == facts["heads"]
    assert "num_heads" not in {assumption.fact for assumption in spec.assumed}
    assert spec.image.normalise == Normalise(1.0, (1.0, 2.0, 3.0), (4.0, 5.0, 6.0))

    (tmp_path / "preprocessor_config.json").write_text(json.dumps({"size": {"shortest_edge": 64}, "do_normalize": False}))
    with pytest.raises(BadCheckpoint, match="state the fact resize"):
        load_model(tmp_path)
    spec = load_model(tmp_path, resize={"type": "keep"}).spec
    assert spec.image.resize == KeepSize()
    assert spec.image.normalise == Normalise(1.0, (0.0, 0.0, 0.0), (255.0, 255.0, 255.0))
