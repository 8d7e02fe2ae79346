"""An engine is a directory.

    NAME.engine/
    ├── manifest.json      identity: written once, last; its presence means that the engine is complete
    ├── network/           what the backend left; every file's SHA-256 is in the manifest
    ├── evidence/*.jsonl   verdicts and timings: only grows
    └── report.html        made from the manifest and the evidence; can be made again at any time

Serving needs nothing else: neither torch nor onnx.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

import msgspec

from segship.core.backend import Built
from segship.core.environment import Processor, processor
from segship.core.errors import BadEngine, EngineNotPortable
from segship.core.files import directory_in_one_piece, file_sha256
from segship.core.graph import PassRecord
from segship.core.precision import Precision, PrecisionPlan
from segship.core.spec import ModelSpec, Signature

SCHEMA = 1
"""Raised whenever a manifest of an older segship could be misread."""

NETWORK = "network"
MANIFEST = "manifest.json"


class FileRecord(msgspec.Struct, frozen=True):
    """Hash and size of one file of the engine."""

    sha256: str
    bytes: int


class Calibration(msgspec.Struct, frozen=True):
    """Where the numbers of a quantised engine came from. ``method``: text form of :class:`segship.graph.int8_recipe.Recipe`."""

    method: str
    images: int
    sha256: str
    """Hash of graph, images, preprocessing and method together."""


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    """Identity of an engine: what it computes, how it was made, what it needs to run."""

    schema: int = SCHEMA
    id: str = ""
    """SHA-256 of the manifest's own content with this field empty."""
    segship: str
    created: str
    """UTC, ISO 8601."""
    spec: ModelSpec
    signature: Signature
    history: tuple[PassRecord, ...] = ()
    plan: PrecisionPlan = PrecisionPlan("fp32")
    calibration: Calibration | None = None
    backend: str
    built: Built
    processor: Processor
    files: dict[str, FileRecord] = {}

    def sealed(self) -> Manifest:
        """The same manifest with its ``id`` filled in."""
        blank = msgspec.structs.replace(self, id="")
        return msgspec.structs.replace(blank, id=sha256(msgspec.json.encode(blank)).hexdigest())

    @property
    def precision(self) -> Precision:
        """The plan's default precision, the engine's short name for users."""
        return self.plan.default


@dataclass(frozen=True)
class Engine:
    """An engine directory whose files have been checked against its manifest."""

    path: Path
    manifest: Manifest

    @property
    def network(self) -> Path:
        """Directory of the backend's own files."""
        return self.path / NETWORK

    @property
    def evidence(self) -> Path:
        """Directory of verdicts and timings."""
        return self.path / "evidence"

    @property
    def size_bytes(self) -> int:
        """Size on disk of the backend's files, weights included."""
        return sum(record.bytes for record in self.manifest.files.values())


def create_engine(path: Path, manifest: Manifest, write_network: Callable[[Path], Built]) -> Engine:
    """Make an engine directory in one piece: the network's files first, the manifest last.

    ``write_network`` gets the directory for the backend's files; what it returns goes into the manifest.
    Nothing is left at ``path`` when anything fails or is interrupted. An existing engine there is replaced;
    anything else there raises :class:`BadEngine`.
    """
    refuse_foreign(path)
    with directory_in_one_piece(path) as partial:
        (partial / NETWORK).mkdir()
        (partial / "evidence").mkdir()
        built = write_network(partial / NETWORK)
        files = {
            file.relative_to(partial).as_posix(): FileRecord(file_sha256(file), file.stat().st_size)
            for file in sorted((partial / NETWORK).rglob("*"))
            if file.is_file()
        }
        sealed = msgspec.structs.replace(manifest, built=built, files=files).sealed()
        (partial / MANIFEST).write_bytes(msgspec.json.format(msgspec.json.encode(sealed), indent=1))
    return Engine(path, sealed)


def refuse_foreign(path: Path) -> None:
    """Raise :class:`BadEngine` when something other than an engine is at ``path``: it would be replaced.

    A manifest alone makes no engine: folders of web applications have a ``manifest.json``, too.
    """
    if path.exists() and not ((path / MANIFEST).is_file() and (path / NETWORK).is_dir()):
        raise BadEngine(f"{path} exists and is not an engine, so it is left alone: choose another name with -o")


def open_engine(path: Path | str, *, check_processor: bool = True) -> Engine:
    """Read and check an engine directory: schema, manifest, every file's hash, processor.

    Raises :class:`BadEngine` or :class:`EngineNotPortable` with what was found, expected, and what to do.
    """
    path = Path(path)
    manifest = _read_manifest(path)
    for name, record in manifest.files.items():
        _check_file(path, name, record)
    _check_unlisted(path, manifest)
    if check_processor:
        _check_processor(path, manifest.processor)
    return Engine(path, manifest)


def _read_manifest(path: Path) -> Manifest:
    file = path / MANIFEST
    if not path.exists():
        raise BadEngine(f"no engine at {path}: make one with `segship deploy CHECKPOINT --data DIR -o {path}`")
    if not file.is_file():
        raise BadEngine(f"{path} has no {MANIFEST}, so it is no (complete) engine: give an engine directory, or build it again")
    content = file.read_bytes()
    try:
        schema = msgspec.json.decode(content, type=_SchemaOnly).schema
        if schema != SCHEMA:
            raise BadEngine(f"{path} has engine schema {schema}, this segship reads {SCHEMA}: build the engine again")
        manifest = msgspec.json.decode(content, type=Manifest)
    except msgspec.DecodeError as error:  # ValidationError is a DecodeError
        raise BadEngine(f"{file} cannot be read ({error}): build the engine again") from error
    if _seal(content, manifest.id) != manifest.id:
        raise BadEngine(f"{file} was changed after the engine was built: build the engine again")
    return manifest


def _seal(content: bytes, own: str) -> str:
    """The ``id`` that a manifest's file must have. Of its text, so that a field that is new since then changes nothing."""
    blank = msgspec.json.format(content, indent=-1).replace(f'"id":"{own}"'.encode(), b'"id":""', 1)
    return sha256(blank).hexdigest()


class _SchemaOnly(msgspec.Struct):
    schema: int


def _check_file(engine: Path, name: str, record: FileRecord) -> None:
    file = engine / name
    if ".." in Path(name).parts or Path(name).is_absolute():
        raise BadEngine(f"{engine} lists a file outside itself ({name}): do not use this engine")
    if not file.is_file():
        raise BadEngine(f"{file} is missing: build the engine again")
    if file.stat().st_size != record.bytes or file_sha256(file) != record.sha256:
        raise BadEngine(f"{file} is not the file that was built (its hash differs): build the engine again")


def _check_unlisted(path: Path, manifest: Manifest) -> None:
    """Raise :class:`BadEngine` for a file among the backend's that no hash vouches for."""
    for file in (path / NETWORK).rglob("*"):
        if not file.is_dir() and file.relative_to(path).as_posix() not in manifest.files:
            raise BadEngine(f"{file} is no part of the engine that was built: build the engine again")


def _check_processor(path: Path, built_on: Processor) -> None:
    here = processor()
    missing = [flag for flag in built_on.instruction_sets if flag not in here.instruction_sets]
    if here.architecture != built_on.architecture or missing:
        extensions = ", ".join(built_on.instruction_sets) or "no extensions"
        lacks = ", ".join(missing) or "that architecture"
        raise EngineNotPortable(
            f"{path} was built and proved on {built_on.architecture} with {extensions}; "
            f"this processor is {here.architecture} without {lacks}: build the engine again here"
        )


def check_backend_version(path: Path, manifest: Manifest, installed: str) -> None:
    """Raise :class:`EngineNotPortable` unless the installed runtime is the release (major.minor) that built the engine."""
    if installed.split(".")[:2] != manifest.built.version.split(".")[:2]:
        raise EngineNotPortable(
            f"{path} was built and proved with {manifest.backend} {manifest.built.version}, installed is {installed}: "
            f"build the engine again, or install {manifest.backend}=={manifest.built.version}"
        )
