"""Which JSON of a folder holds COCO annotations, and which folder its pictures are in: judged by content."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Sequence
from pathlib import Path

import msgspec

from segship.core.errors import BadDataset
from segship.core.spec import Task

_OFFICIAL = re.compile(r"(instances|panoptic|captions|person_keypoints|stuff|image_info)_[a-z-]+20\d\d")
"""Names of COCO's own files: what they hold is known without reading their gigabytes."""


class _Peek(msgspec.Struct):
    images: msgspec.Raw
    annotations: msgspec.Raw
    categories: msgspec.Raw


_NAMES: dict[Task, tuple[str, ...]] = {"instance": ("instances", "annotations", "_annotations"), "panoptic": ("panoptic",)}
"""How such files are called: a broken file of such a name is reported, any other is no business of ours."""


def find_files(root: Path, task: Task) -> list[Path]:
    """The annotation files of a task that belong to ``root``: itself, in it, in its ``annotations``, or for the folder
    ``SPLIT`` in the ``annotations`` beside it, where they end in its name."""
    if root.is_file():
        return [root] if task_of(root) == task else []
    files = [*root.glob("*.json"), *(root / "annotations").glob("*.json")]
    split = root.resolve()
    if split.name != "annotations":
        files += [file for file in (split.parent / "annotations").glob("*.json") if file.stem.endswith(f"_{split.name}")]
    return sorted(file for file in files if not file.name.startswith(".") and task_of(file) == task)


def task_of(file: Path) -> Task | None:
    """Which task's annotations a JSON file holds, judged by its content; by its name where it is
    COCO's own or the content is broken."""
    if official := _OFFICIAL.fullmatch(file.stem):
        tasks: dict[str, Task] = {"instances": "instance", "panoptic": "panoptic"}
        return tasks.get(official[1])
    named = next((task for task, starts in _NAMES.items() if file.stem.startswith(starts)), None)
    try:
        content = file.read_bytes()
        peek = msgspec.json.decode(content, type=_Peek)
    except msgspec.ValidationError:
        return None  # other JSON: captions, a table of categories
    except (msgspec.DecodeError, OSError, UnicodeDecodeError):
        return named
    if b'"keypoints"' in bytes(peek.categories):
        return None
    if b'"segments_info"' in bytes(peek.annotations):
        return "panoptic"
    return "instance" if b"{" in bytes(peek.annotations) else named or "instance"


def choose(files: Sequence[Path], task: Task) -> tuple[Path, tuple[str, ...]]:
    """The file to read, and a note when that is a choice: officially named ones first, of several splits ``val``."""
    named = [file for file in files if file.stem.startswith(_NAMES[task])] or list(files)
    if len(named) == 1:
        return named[0], ()
    names = ", ".join(file.name for file in named)
    validation = [file for file in named if "val" in file.stem]
    if len(validation) != 1:
        raise BadDataset(f"{named[0].parent} holds the annotations {names}: give the path of one of these files")
    return validation[0], (f"of the annotations {names}, {validation[0].name} was taken",)


def find_folder(
    names: Iterable[str], root: Path, file: Path, *, first: Sequence[Path] = (), without: Path | None = None
) -> tuple[Path, set[str]]:
    """The folder that holds most of the files ``names``, and which of them it holds.

    Looked for in ``first``, then in the data set's folder and the file's own, two levels deep; never in ``without``.
    """
    wanted = set(names)
    bases = [root if root.is_dir() else root.parent, file.parent]
    if file.parent.name == "annotations" and root.resolve() in (file.parent.resolve(), file.resolve()):
        bases.append(file.resolve().parent.parent)
    places = [*first, *(place for base in dict.fromkeys(bases) for place in _folders(base, depth=2))]
    found = [(place, _present(place, wanted)) for place in dict.fromkeys(places) if place != without]
    return max(found, key=lambda each: len(each[1]))


def _folders(base: Path, depth: int) -> list[Path]:
    if depth == 0:
        return [base]
    inner = sorted(entry for entry in base.iterdir() if entry.is_dir() and not entry.name.startswith("."))
    return [base, *(place for entry in inner for place in _folders(entry, depth - 1))]


def _present(folder: Path, names: set[str]) -> set[str]:
    if any("/" in name for name in names):
        return {name for name in names if (folder / name).is_file()}
    with os.scandir(folder) as entries:
        return names & {entry.name for entry in entries}
