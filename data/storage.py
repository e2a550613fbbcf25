"""Files that are either whole or absent, whatever happens while they are written."""

from __future__ import annotations

import atexit
import contextlib
import fcntl
import hashlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from functools import cache
from pathlib import Path

__all__ = [
    "append",
    "at_home",
    "cache_folder",
    "locked",
    "private_folder",
    "publish",
    "sha256_of",
    "sweep",
    "write_atomic",
]


def write_atomic(path: Path, data: bytes, *, mode: int = 0o644) -> None:
    """Write ``path`` so that a reader, or a restart, sees the old bytes or the new ones.

    The temporary file beside it is removed on any error (a full disk raises OSError, Ctrl-C
    KeyboardInterrupt); only a killed process can leave one. ``mode`` is narrowed by the umask,
    never widened; for the owner alone (0o600) a folder that has to be made is theirs alone, too.
    """
    path.parent.mkdir(0o777 if mode & 0o077 else 0o700, parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}.new")  # two processes, two files
    try:
        with contextlib.suppress(FileNotFoundError):
            partial.unlink()  # of a killed process with our number, of whatever mode
        descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
        with open(descriptor, "wb") as out:
            out.write(data)
        publish(partial, path)
    except BaseException:
        with contextlib.suppress(OSError):
            partial.unlink()
        raise


def publish(partial: Path, path: Path) -> None:
    """Make a finished file durable, then give it its name in one step."""
    _sync(partial)
    os.replace(partial, path)
    _sync(path.parent)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sweep(folder: Path) -> None:
    """Remove what killed writers left in ``folder``; for the start of its only owner."""
    for path in folder.glob(".*.new"):
        path.unlink(missing_ok=True)


def append(path: Path, size: int, data: bytes | memoryview) -> None:
    """Add ``data`` to a file of ``size`` bytes, all of it or (OSError: a full disk) nothing."""
    fresh = memoryview(data)
    with path.open("ab", buffering=0) as file:
        try:
            written = 0
            while written < len(fresh):
                written += file.write(fresh[written:])
        except OSError:
            file.truncate(size)
            raise


@contextlib.contextmanager
def locked(path: Path, *, wait: bool = True) -> Iterator[int]:
    """Alone among processes while the file ``path`` is locked; yields its descriptor.

    The kernel releases the lock of a killed process. The file is removed by its holder, so
    whoever waited has to look whether the name still means the file that was locked. Raises
    BlockingIOError at once where another holds it and one does not ``wait``.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
            if not _same(descriptor, path):
                continue
            try:
                yield descriptor
            finally:
                path.unlink(missing_ok=True)
            return
        finally:
            os.close(descriptor)


def _same(descriptor: int, path: Path) -> bool:
    try:
        named = path.stat()
    except OSError:
        return False
    opened = os.fstat(descriptor)
    return (opened.st_ino, opened.st_dev) == (named.st_ino, named.st_dev)


@cache
def cache_folder() -> Path:
    """Where downloads and settings are kept: ``$XDG_CACHE_HOME/endedge``, else
    ``~/.cache/endedge``. Where neither can be written (no home, a read-only disk) a folder of
    this process's own, which goes with it: never a name in /tmp that others could have made."""
    given = Path(os.environ.get("XDG_CACHE_HOME", ""))  # to be absolute, says the standard
    try:
        folder = (given if given.is_absolute() else Path.home() / ".cache") / "endedge"
        private_folder(folder)
        if os.access(folder, os.W_OK):
            return folder
    except (OSError, RuntimeError):  # RuntimeError: nobody knows the home
        pass
    own = Path(tempfile.mkdtemp(prefix="endedge-"))
    atexit.register(shutil.rmtree, own, ignore_errors=True)
    return own


def at_home(name: str) -> str:
    """``name`` with a leading ``~`` as the user's home; as it is where that is not known."""
    try:
        return str(Path(name).expanduser()) if name.startswith("~") else name
    except RuntimeError:
        return name


def private_folder(folder: Path) -> None:
    """Make ``folder`` for its owner alone, whatever the umask; one that is there stays as it is."""
    folder.mkdir(0o700, parents=True, exist_ok=True)


def sha256_of(path: Path) -> bytes:
    """SHA-256 of a file, read in pieces."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").digest()
