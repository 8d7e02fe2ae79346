"""What COCO's annotation files say, instances and panoptic.

Format: https://cocodataset.org/#format-data. Segmentations stay undecoded until they are asked for.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Generic, TypeVar

import msgspec

from segship.core.errors import BadDataset
from segship.core.spec import Pixels
from segship.datasets.dataset import Color

Key = int | str
"""Image ids are numbers in COCO, file stems in other data sets of its format."""


class Picture(msgspec.Struct, frozen=True):
    """One image of the file."""

    id: Key
    file_name: str
    height: Pixels
    width: Pixels


class Category(msgspec.Struct, frozen=True):
    """One class; ``isthing`` is in panoptic files only."""

    id: int
    name: str
    isthing: int | None = None
    color: tuple[int, int, int] | None = None


class ObjectRow(msgspec.Struct, frozen=True):
    """One object of an instances file; ``bbox``: x, y, width, height."""

    image_id: Key
    category_id: int
    segmentation: msgspec.Raw = msgspec.Raw(b"null")
    bbox: tuple[float, ...] = ()
    iscrowd: int = 0


class SegmentRow(msgspec.Struct, frozen=True):
    """One segment of a panoptic PNG."""

    id: int
    category_id: int
    iscrowd: int = 0


class PanopticRow(msgspec.Struct, frozen=True):
    """The panoptic PNG of one image."""

    image_id: Key
    file_name: str
    segments_info: tuple[SegmentRow, ...]


Row = TypeVar("Row", ObjectRow, PanopticRow)


@dataclass(frozen=True)
class CocoFile(Generic[Row]):
    """What one annotations file says, its ids checked."""

    path: Path
    pictures: tuple[Picture, ...]
    rows: tuple[Row, ...]
    categories: tuple[Category, ...]


class _Content(msgspec.Struct, Generic[Row]):
    images: tuple[Picture, ...]
    annotations: tuple[Row, ...]
    categories: tuple[Category, ...]


def read_file(path: Path, row: type[Row]) -> CocoFile[Row]:
    """The file's content; raises :class:`BadDataset` when it is broken, empty, or its ids are not unique."""
    try:
        content: _Content[Row] = msgspec.json.decode(path.read_bytes(), type=_Content[row])  # type: ignore[valid-type]
    except (msgspec.DecodeError, OSError, UnicodeDecodeError) as error:
        raise BadDataset(f"{path} cannot be used as COCO annotations ({error}): download or export it again") from error
    _check_unique(path, "image id", [each.id for each in content.images])
    _check_unique(path, "image file_name", [each.file_name for each in content.images])
    _check_unique(path, "category id", [each.id for each in content.categories])
    for each in content.images:
        _check_name(path, each.file_name)
    return CocoFile(path, content.images, content.annotations, content.categories)


def _check_unique(path: Path, what: str, values: Sequence[Key]) -> None:
    if not values:
        raise BadDataset(f"{path} lists no {what}: export it again")
    value, times = Counter(values).most_common(1)[0]
    if times > 1:
        raise BadDataset(f"{path} has the {what} {value} {times} times: each must be there once")


def _check_name(path: Path, name: str) -> None:
    """Names become names of results: they must not lead out of the folder."""
    if not name or PurePosixPath(name).is_absolute() or ".." in PurePosixPath(name).parts:
        raise BadDataset(f"{path} names the file {name!r}, expected a path inside the folder of images: export it again")


def sample_names(pictures: Sequence[Picture]) -> dict[str, Picture]:
    """Pictures by the names of their samples: the path without suffix, or with it where that is not unique."""
    stems = [PurePosixPath(each.file_name).with_suffix("").as_posix() for each in pictures]
    uses = Counter(stems)
    return {stem if uses[stem] == 1 else each.file_name: each for stem, each in zip(stems, pictures, strict=True)}


def colors_of(categories: Sequence[Category]) -> tuple[Color, ...] | None:
    """The colours of the classes, when each has one."""
    colors = tuple(each.color for each in categories if each.color is not None)
    return colors if len(colors) == len(categories) else None


def left_out(names: Collection[str], n: int, what: str) -> tuple[str, ...]:
    """A note that ``names`` of ``n`` were left out, when there are any."""
    return (f"{len(names)} of {n} {what} and were left out (the first: {min(names)})",) if names else ()


def unknown_categories(path: Path, unknown: Counter[int], what: str) -> tuple[str, ...]:
    """A note that ``what`` of categories that the file does not list was left out, when there is any."""
    ids = ", ".join(map(str, sorted(unknown)[:8]))
    return (f"{unknown.total()} {what} of categories that {path.name} does not list ({ids}) were left out",) if unknown else ()
