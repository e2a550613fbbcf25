"""Results on disk: every piece of work is a folder named by the hash of all that determines it.

A node is written into a scratch folder and appears by one rename, so a killed process loses
only the node it was on, and two processes on one folder never see each other's halves. A
lock per node (released by the kernel when its holder dies) keeps them off the same work.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

__all__ = ["Node", "Store", "digest"]


def digest(content: Mapping[str, Any]) -> str:
    """Hash (16 hex digits) of JSON-able content; the order of keys does not matter."""
    text = json.dumps(content, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


@dataclass(frozen=True)
class Node:
    """A finished piece of work: its ``folder`` of files and the ``record`` of what it found."""

    key: str
    folder: Path
    record: dict[str, Any]


class Store:
    """The nodes of one results folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._nodes = folder / "nodes"

    def find(self, stage: str, determinants: Mapping[str, Any]) -> Node | None:
        """The node if it is there and whole: every file listed in its record, unchanged."""
        return self.open(f"{stage}-{digest(determinants)}")

    def open(self, key: str) -> Node | None:
        """The node of a known ``key``, if it is there and whole."""
        folder = self._nodes / key
        try:
            document = json.loads((folder / "record.json").read_text(encoding="utf-8"))
            for name, expected in document["files"].items():
                if hashlib.sha256((folder / name).read_bytes()).hexdigest() != expected:
                    return None
            return Node(key, folder, document["record"])
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            return None

    def nodes(self, stage: str) -> list[Node]:
        """All whole nodes of a stage."""
        keys = sorted(path.name for path in self._nodes.glob(f"{stage}-*"))
        return [node for key in keys if (node := self.open(key)) is not None]

    def remove(self, key: str) -> None:
        """Forget a node; one that is not there is no error."""
        shutil.rmtree(self._nodes / key, ignore_errors=True)

    def node(
        self,
        stage: str,
        determinants: Mapping[str, Any],
        make: Callable[[Path], dict[str, Any]],
    ) -> Node:
        """The node, made now if it is not there: ``make(scratch folder)`` writes files and
        returns the record (JSON-able)."""
        key = f"{stage}-{digest(determinants)}"
        if (found := self.find(stage, determinants)) is not None:
            return found
        with self._lock(key):
            if (found := self.find(stage, determinants)) is not None:
                return found  # another process was faster
            scratch = Path(tempfile.mkdtemp(dir=self._nodes, prefix=f".{key}."))
            try:
                record = make(scratch)
                files = {
                    p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in scratch.iterdir()
                }
                document = {"determinants": dict(determinants), "record": record, "files": files}
                (scratch / "record.json").write_text(json.dumps(document, indent=1))
                shutil.rmtree(self._nodes / key, ignore_errors=True)  # a damaged one
                os.replace(scratch, self._nodes / key)
            except BaseException:
                shutil.rmtree(scratch, ignore_errors=True)
                raise
        return Node(key, self._nodes / key, record)

    @contextmanager
    def _lock(self, key: str) -> Iterator[None]:
        self._nodes.mkdir(parents=True, exist_ok=True)
        with (self._nodes / f".{key}.lock").open("w") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield
