"""Files that are either whole or absent, whatever happens while they are written."""

from __future__ import annotations

import contextlib
import hashlib
import os
from pathlib import Path

__all__ = ["append", "publish", "sha256_of", "sweep", "write_atomic"]


def write_atomic(path: Path, data: bytes, *, mode: int = 0o644) -> None:
    """Write ``path`` so that a reader, or a restart, sees the old bytes or the new ones.

    The temporary file beside it is removed on any error (a full disk raises OSError, Ctrl-C
    KeyboardInterrupt); only a killed process can leave one.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}.new")  # two processes, two files
    try:
        descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode)
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


def sha256_of(path: Path) -> bytes:
    """SHA-256 of a file, read in pieces."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").digest()
