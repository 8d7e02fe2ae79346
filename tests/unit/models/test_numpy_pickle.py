"""Pickles of numpy arrays: every way that pickle and numpy write them is read; everything else is refused, nothing is run."""

from __future__ import annotations

import os
import pickle
from collections import OrderedDict
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from contract.checkpoints import random_state
from segship.core.errors import BadCheckpoint
from segship.models import load_model, numpy_pickle
from segship.models.checkpoint import read_checkpoint

EVERY_PROTOCOL = pytest.mark.parametrize("protocol", range(6))

ARRAYS = {
    "float32": np.arange(6, dtype=np.float32).reshape(2, 3),
    "half": np.ones(3, np.float16) / 3,
    "double": np.linspace(0, 1, 4),
    "integers": np.arange(-3, 3, dtype=np.int64),
    "bytes": np.array([0, 255], np.uint8),
    "bool": np.array([True, False]),
    "big endian": np.arange(3, dtype=">f4"),
    "column major": np.asfortranarray(np.arange(6.0).reshape(2, 3)),
    "strided": np.arange(10, dtype=np.float32)[::3],
    "no axis": np.array(7, np.int64),
    "empty": np.zeros((0, 4), np.float32),
}


@EVERY_PROTOCOL
def test_every_array_comes_back(protocol: int, tmp_path: Path) -> None:
    content = {"model": OrderedDict(ARRAYS), "scalar": np.float32(0.5), "text": "é", "raw": b"\xff\x00", "none": b""}
    (tmp_path / "a.pkl").write_bytes(pickle.dumps(content, protocol))
    found = numpy_pickle.load(tmp_path / "a.pkl")
    assert {name: found[name] for name in ("scalar", "text", "raw", "none")} == {
        name: content[name] for name in ("scalar", "text", "raw", "none")
    }
    for name, array in ARRAYS.items():
        tensor = found["model"][name]
        assert isinstance(tensor, torch.Tensor)
        assert tensor.shape == array.shape, name
        assert np.array_equal(tensor.numpy(), array), name
        assert tensor.numpy().dtype == array.dtype.newbyteorder("="), name


@pytest.mark.parametrize("protocol", range(4))  # later ones write lengths before names, which a replacement would break
def test_names_of_numpy_1_and_2(protocol: int, tmp_path: Path) -> None:
    content = pickle.dumps({"a": ARRAYS["float32"]}, protocol)
    old, new = b"numpy.core.", b"numpy._core."
    assert new in content or old in content
    (tmp_path / "old.pkl").write_bytes(content.replace(new, old))
    (tmp_path / "new.pkl").write_bytes(content.replace(new, old).replace(old, new))
    for name in ("old.pkl", "new.pkl"):
        assert torch.equal(numpy_pickle.load(tmp_path / name)["a"], torch.from_numpy(ARRAYS["float32"]))


def test_text_of_python_2(tmp_path: Path) -> None:
    """Python 2 wrote keys and data as byte strings: ``SHORT_BINSTRING``."""
    parts = [b"}", b"U\x01a", b"cnumpy.core.multiarray\n_reconstruct\n", b"(cnumpy\nndarray\nK\x00\x85U\x01btR"]
    dtype = b"cnumpy\ndtype\n(U\x02f4K\x00K\x01tR(K\x03U\x01<NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"
    parts.append(b"(K\x01K\x01\x85" + dtype + b"\x89U\x04\x00\x00\x80\xbftb")
    (tmp_path / "a.pkl").write_bytes(b"\x80\x02" + b"".join(parts) + b"s.")
    assert numpy_pickle.load(tmp_path / "a.pkl")["a"].tolist() == [-1.0]


class Calls:
    """Calls a function when it is unpickled."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.call = function, arguments

    def __reduce__(self) -> Any:
        return self.call


def refused(content: bytes, folder: Path) -> str:
    """The one sentence with which a file of these bytes is refused."""
    path = folder / "a.pkl"
    path.write_bytes(content)
    with pytest.raises(BadCheckpoint) as raised:
        load_model(path)
    sentence = str(raised.value)
    assert "\n" not in sentence
    assert len(sentence) < 500
    return sentence


@EVERY_PROTOCOL
@pytest.mark.parametrize("place", ["value", "key", "inside the model", "instead of all"])
def test_code_is_never_run(place: str, protocol: int, tmp_path: Path) -> None:
    marker = tmp_path / "executed"
    hostile = Calls(os.system, f"touch {marker}")
    arrays = dict(list(ARRAYS.items())[:1])
    content: Any = {
        "value": {"model": arrays, "note": hostile},
        "key": {"model": arrays, Calls(os.getenv, "HOME"): 1},
        "inside the model": {"model": {**arrays, "more": hostile}},
        "instead of all": hostile,
    }[place]
    sentence = refused(pickle.dumps(content, protocol), tmp_path)
    assert "was not read" in sentence
    assert not marker.exists()


@pytest.mark.parametrize(
    "name",
    [
        "builtins eval",
        "builtins getattr",
        "os system",
        "posix system",
        "subprocess Popen",
        "numpy load",
        "numpy.core ndarray",
        "numpy.core.multiarray x",
        "numpy._core._core.multiarray _reconstruct",
        "collections namedtuple",
        "_codecs decode",
        "torch load",
    ],
)
def test_other_names_are_refused(name: str, tmp_path: Path) -> None:
    module, attribute = name.split()
    sentence = refused(f"c{module}\n{attribute}\n)R.".encode(), tmp_path)
    assert f"{module}.{attribute}" in sentence


@pytest.mark.parametrize("dtype", ["O8", "S4", "U3", "V8", "M8[s]", "f16", "c8", "i3", "O", "(2,)f4", "f4,f4", "f" * 1000])
def test_other_types_than_numbers_are_refused(dtype: str, tmp_path: Path) -> None:
    text = pickle.dumps(dtype, 2)[2:-1]
    assert "numpy.dtype" in refused(b"\x80\x02cnumpy\ndtype\n" + text + b"\x85R.", tmp_path)


def test_objects_in_an_array_are_refused(tmp_path: Path) -> None:
    assert "numpy.dtype" in refused(pickle.dumps({"model": {"a": np.array([None, 1], object)}}), tmp_path)


@pytest.mark.parametrize("share", [0.0, 0.001, 0.1, 0.5, 0.9, 0.999])
def test_truncated(share: float, tmp_path: Path) -> None:
    content = pickle.dumps({"model": {key: value.numpy() for key, value in random_state("pointrend-basic").items()}})
    assert "is empty" in refused(b"", tmp_path)
    assert "no intact pickle" in refused(content[: max(1, int(len(content) * share))], tmp_path)


@pytest.mark.parametrize(
    "content",
    [
        b"just a text file\n",
        b"{}",
        bytes(range(256)) * 40,
        b"\x80\x02.",
        b"\x80\x04K\x01.",
        b"\x80\xff}.",
        b"\x80\x02]q\x00h\x00.",
        b"\x80\x02}q\x00U\x01ah\x00s.",  # a dict within itself
        b"\x80\x02Vid\nQ.",  # a persistent id
        b"\x80\x02\x82\x01.",  # an extension code
        b"\x80\x04\x8e\xff\xff\xff\xff\xff\xff\xff\x7f.",  # exabytes announced
        b"\x80\x02}U\x05modelcnumpy\ndtype\n(U\x02f4tRs.",  # a type, no array
        b"\x80\x02cnumpy\nndarray\n)R(K\x01K\x09\x85cnumpy\ndtype\n(U\x02f4tR\x89U\x04\x00\x00\x00\x00tb.",  # 4 bytes, 9 numbers
        b"\x80\x02cnumpy\nndarray\n)R}b.",  # a state that is none
        b"\x80\x02cnumpy\nndarray\n}U\x0c__defaults__)sb.",  # attributes of a function
        pickle.dumps({"model": {}}),
        pickle.dumps({"model": {"a": 1}}),
        pickle.dumps([np.ones(3)]),
        pickle.dumps(np.ones(3)),
        pickle.dumps({1: np.ones(3)}),
    ],
)
def test_no_checkpoint(content: bytes, tmp_path: Path) -> None:
    refused(content, tmp_path)


def test_a_file_changes_nothing_for_the_next(tmp_path: Path) -> None:
    """A pickle may set attributes of what it names: those stand-ins live as long as one file's reading."""
    hostile = b"\x80\x02cnumpy\ndtype\n}U\x0c__defaults__K\x01K\x02\x86sbcnumpy\ndtype\n(U\x02f4tR."
    (tmp_path / "a.pkl").write_bytes(hostile)
    numpy_pickle.load(tmp_path / "a.pkl")
    (tmp_path / "b.pkl").write_bytes(pickle.dumps({"a": ARRAYS["float32"]}))
    assert torch.equal(numpy_pickle.load(tmp_path / "b.pkl")["a"], torch.from_numpy(ARRAYS["float32"]))
    assert numpy_pickle._allowed()["numpy.dtype"].__defaults__ is None


def test_every_single_damaged_byte(tmp_path: Path) -> None:
    """Whatever byte is wrong: the file is read (where it was a number or a name) or refused; nothing else is raised."""
    state = {"a.weight": np.arange(4, dtype=np.float32), "b": np.float32(1)}
    content = pickle.dumps({"model": state, "__author__": "x"}, 4)
    path = tmp_path / "a.pkl"
    for index in range(len(content)):
        for flip in (1, 0x80, 0xFF):
            path.write_bytes(content[:index] + bytes([content[index] ^ flip]) + content[index + 1 :])
            with suppress(BadCheckpoint):
                read_checkpoint(path)


def test_a_model_zoo_file_loads(tmp_path: Path) -> None:
    state = {key: value for key, value in random_state("pointrend-basic").items() if "num_batches" not in key}
    zoo = {"model": {key: value.numpy() for key, value in state.items()}, "__author__": "Zoo", "matching_heuristics": True}
    (tmp_path / "a.pkl").write_bytes(pickle.dumps(zoo))
    model = load_model(tmp_path / "a.pkl")
    assert model.spec.checkpoint.layout == "detectron2 pickle (model)"
    loaded = model.module.state_dict()
    assert all(torch.equal(loaded[key], value) for key, value in state.items())


def test_a_pickle_by_name_that_pytorch_wrote(tmp_path: Path) -> None:
    torch.save({"model": random_state("pointrend-basic")}, tmp_path / "a.pkl")
    assert load_model(tmp_path / "a.pkl").spec.checkpoint.layout == "detectron2 torch (model)"
