"""``classes.json``: what the label ids of a folder mean."""

from __future__ import annotations

from pathlib import Path

import msgspec

from segship.core.errors import BadDataset
from segship.core.spec import Task

NAME = "classes.json"
EXAMPLE = '{"task": "semantic", "names": ["road", "car"], "ignore": 255}'


class ClassesFile(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """``names``: class names, the position is the id in the label. ``ignore``: the id of pixels that are not judged.
    ``colors``: one RGB triple, 0 to 255, for each class."""

    names: tuple[str, ...]
    task: Task = "semantic"
    ignore: int | None = None
    colors: tuple[tuple[int, int, int], ...] | None = None


def find_classes_file(folder: Path) -> Path | None:
    """``classes.json`` in ``folder`` or one level up, or None."""
    for place in (folder, folder.resolve().parent):
        if (place / NAME).is_file():
            return place / NAME
    return None


def read_classes_file(file: Path) -> ClassesFile:
    """Read and check a ``classes.json``; raises :class:`BadDataset` with what is wrong in it."""
    try:
        content = msgspec.json.decode(file.read_bytes(), type=ClassesFile)
    except (msgspec.DecodeError, OSError, UnicodeDecodeError) as error:  # ValidationError is a DecodeError
        raise BadDataset(f"{file} cannot be used ({error}): write it like {EXAMPLE}") from error
    problem = _problem(content)
    if problem:
        raise BadDataset(f"{file} {problem}")
    return content


def _problem(content: ClassesFile) -> str | None:
    names, colors, ignore = content.names, content.colors, content.ignore
    repeated = sorted({name for name in names if names.count(name) > 1})
    if not names:
        return "names no class: list the class names in `names`"
    if repeated:
        return f"names {', '.join(repeated)} more than once: give every class a name of its own"
    if colors is not None and len(colors) != len(names):
        return f"has {len(colors)} colors for {len(names)} names: give one for each class, or none"
    if colors is not None and any(not 0 <= value <= 255 for color in colors for value in color):
        return "has a color with a value outside 0 to 255: give RGB triples of 8-bit values"
    if ignore is not None and not 0 <= ignore <= 65535:
        return f"has ignore {ignore}, expected an id that a label can hold (0 to 255): use 255, or leave it out"
    if ignore is not None and ignore < len(names) and content.task == "semantic":
        return (
            f"has ignore {ignore}, which is also the id of the class {names[ignore]!r}: pixels to ignore need an id of their own"
        )
    return None
