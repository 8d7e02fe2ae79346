"""Nothing half-written, nothing lost, and no more threads than a container gives."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest

from segship.core.engine import refuse_foreign
from segship.core.environment import _container_cores
from segship.core.errors import BadEngine, StorageFailed
from segship.core.files import replace_directory, write_atomically


def folder(path: Path, content: str) -> Path:
    path.mkdir()
    (path / "file").write_text(content)
    return path


def test_replaced_directory_is_the_new_one(tmp_path: Path) -> None:
    target = folder(tmp_path / "target", "old")
    replace_directory(folder(tmp_path / "source", "new"), target)
    assert (target / "file").read_text() == "new"
    assert [entry.name for entry in tmp_path.iterdir()] == ["target"]


def test_interrupted_replacement_brings_the_old_directory_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target, source = folder(tmp_path / "target", "old"), folder(tmp_path / "source", "new")
    rename = Path.rename

    def interrupted(self: Path, to: Path) -> Path:
        if self == source:
            raise KeyboardInterrupt
        return rename(self, to)

    monkeypatch.setattr(Path, "rename", interrupted)
    with pytest.raises(KeyboardInterrupt):
        replace_directory(source, target)
    assert (target / "file").read_text() == "old"


def test_writing_over_a_directory_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(StorageFailed, match="choose another place"):
        write_atomically(tmp_path, b"")
    assert not list(tmp_path.parent.glob(f".{tmp_path.name}.*"))


def test_a_web_application_is_no_engine(tmp_path: Path) -> None:
    (tmp_path / "manifest.json").write_text('{"name": "my page"}')
    with pytest.raises(BadEngine, match="left alone"):
        refuse_foreign(tmp_path)
    (tmp_path / "network").mkdir()
    refuse_foreign(tmp_path)


@pytest.mark.parametrize(("content", "cores"), [("150000 100000\n", 2), ("50000 100000", 1), ("max 100000", None), ("", None)])
def test_container_cores(content: str, cores: int | None, tmp_path: Path) -> None:
    (tmp_path / "cpu.max").write_text(content)
    assert _container_cores(tmp_path) == cores
    assert _container_cores(tmp_path / "nowhere") is None


def test_full_disk_leaves_no_half_record(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from segship.evidence import records
    from segship.evidence.records import ImageScore

    file = tmp_path / "scores.jsonl"
    records.append(file, ImageScore("a", 1.0))
    opened = Path.open

    class Full:
        """A file on a disk that has room for three bytes more."""

        def __init__(self, stream: object) -> None:
            self.stream = stream
            self.left = 3

        def write(self, content: bytes) -> int:
            if not self.left:
                raise OSError(errno.ENOSPC, "No space left on device")
            written, self.left = self.stream.write(content[: self.left]), 0  # type: ignore[attr-defined]
            return int(written)

        def __getattr__(self, name: str) -> object:
            return getattr(self.stream, name)

        def __enter__(self) -> Full:
            return self

        def __exit__(self, *_: object) -> None:
            self.stream.close()  # type: ignore[attr-defined]

    monkeypatch.setattr(Path, "open", lambda self, *words, **more: Full(opened(self, *words, **more)))
    with pytest.raises(StorageFailed, match="the disk is full"):
        records.append(file, ImageScore("b", 2.0))
    monkeypatch.undo()
    assert records.read(file, ImageScore) == [ImageScore("a", 1.0)]
    file.write_bytes(file.read_bytes() + b'{"image": ')
    with pytest.raises(BadEngine, match="damaged"):
        records.read(file, ImageScore)
