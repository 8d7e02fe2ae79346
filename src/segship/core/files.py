"""Writing that never leaves half a file, and hashing."""

from __future__ import annotations

import errno
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path

from segship.core.errors import StorageFailed


def file_sha256(path: Path) -> str:
    """SHA-256 of a file's bytes, read in pieces."""
    digest = sha256()
    with path.open("rb") as file:
        while piece := file.read(1 << 20):
            digest.update(piece)
    return digest.hexdigest()


_UNWRITABLE = (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EISDIR, errno.EEXIST, errno.ENAMETOOLONG)


@contextmanager
def storage_errors(path: Path) -> Iterator[None]:
    """Turn a failure to write below ``path`` into one clear sentence; other operating-system errors pass."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            sentence = f"the disk is full while writing {path}: free some space and run the command again"
        elif error.errno in _UNWRITABLE:
            sentence = f"cannot write {path} ({error.strerror}): choose another place with -o, or mend its permissions"
        else:
            raise
        raise StorageFailed(sentence) from error


def write_atomically(path: Path, content: bytes) -> None:
    """Write ``content`` to ``path`` so that a reader sees the old file or the whole new one."""
    with storage_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            os.chmod(name, 0o644)
            os.replace(name, path)
        except BaseException:
            Path(name).unlink(missing_ok=True)
            raise


@contextmanager
def directory_in_one_piece(target: Path) -> Iterator[Path]:
    """A temporary sibling directory that becomes ``target`` when the block ends well, and vanishes when it does not.

    An existing ``target`` is replaced only at the very end.
    """
    with storage_errors(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        partial = Path(tempfile.mkdtemp(dir=target.parent, prefix=f".{target.name}.partial-"))
        try:
            yield partial
            partial.chmod(0o755)
            replace_directory(partial, target)
        except BaseException:
            shutil.rmtree(partial, ignore_errors=True)
            raise


def replace_directory(source: Path, target: Path) -> None:
    """Rename ``source`` to ``target`` on the same file system; what was at ``target`` is removed after that.

    When the second rename fails or is interrupted, what was at ``target`` comes back.
    """
    with storage_errors(target):
        old = target.with_name(f".{target.name}.old-{os.getpid()}")
        try:
            if target.exists():
                target.rename(old)
            source.rename(target)
        except BaseException:
            if old.exists() and not target.exists():
                old.rename(target)
            raise
        shutil.rmtree(old, ignore_errors=True)
