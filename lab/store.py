"""Results on disk: every piece of work is a folder named by the hash of all that determines it.

A node is written into a scratch folder and appears by one rename, so a killed process loses
only the node it was on, and two processes on one folder never see each other's halves. A
lock per node (released by the kernel when its holder dies) keeps them off the same work, and
says who is at what: nothing that runs has to be asked, and nothing dead looks alive.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
import socket
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from endedge.data.errors import BadInput
from endedge.data.storage import locked

__all__ = ["Missing", "Node", "NodeBusy", "Peek", "Running", "Store", "digest"]

_LINE = 512  # bytes of a lock's note


def digest(content: Mapping[str, Any]) -> str:
    """Hash (16 hex digits) of JSON-able content; the order of keys does not matter."""
    text = json.dumps(content, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _seal(key: str, document: Mapping[str, Any]) -> str:
    """SHA-256 (hex) of a node's name and its record, as JSON gives it back."""
    text = json.dumps([key, json.loads(json.dumps(document))], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


@dataclass(frozen=True)
class Node:
    """A finished piece of work: its ``folder`` of files, the ``record`` of what it found, and the
    ``seconds`` that it took (0: not known)."""

    key: str
    folder: Path
    record: dict[str, Any]
    seconds: float


@dataclass(frozen=True)
class Running:
    """A node that a living process is making: who, since when (s, Unix time), and its last word."""

    key: str
    host: str
    pid: int
    since: float
    says: str


class NodeBusy(Exception):  # noqa: N818 (an answer, not an error)
    """Another process makes this node now."""


class Store:
    """The nodes of one results folder. Who does not ``wait`` for a node that another process
    makes gets :class:`NodeBusy` and can do something else meanwhile."""

    def __init__(self, folder: Path, *, wait: bool = True) -> None:
        self.folder, self._wait = folder, wait
        self._nodes = folder / "nodes"
        self._whole: dict[Path, tuple[str, int, int, int]] = {}  # files found unchanged
        self._warned = False
        self._held: list[tuple[int, dict[str, Any]]] = []  # locks of this store, inmost last

    def find(self, stage: str, determinants: Mapping[str, Any]) -> Node | None:
        """The node if it is there and whole: every file listed in its record, unchanged."""
        return self.open(f"{stage}-{digest(determinants)}")

    def open(self, key: str) -> Node | None:
        """The node of a known ``key``, if it is there and whole: named by what determined it, the
        record and every file as they were written. A record of a time when records were not
        hashed is taken with a warning, once a store."""
        folder = self._nodes / key
        try:
            text = (folder / "record.json").read_text(encoding="utf-8")
            document = json.loads(text, parse_constant=_not_finite)  # made again
            if key.rpartition("-")[2] != digest(document["determinants"]):
                return None
            sealed = document.pop("sha256", None)
            if sealed is None:
                self._warn_unsealed(folder)
            elif sealed != _seal(key, document):
                return None
            for name, expected in document["files"].items():
                if not self._unchanged(folder / name, expected):
                    return None
            return Node(key, folder, document["record"], float(document.get("seconds", 0.0)))
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            return None

    def nodes(self, stage: str) -> list[Node]:
        """All whole nodes of a stage."""
        keys = sorted(path.name for path in self._nodes.glob(f"{stage}-*"))
        return [node for key in keys if (node := self.open(key)) is not None]

    def remove(self, key: str) -> None:
        """Forget a node; one that is not there is no error."""
        shutil.rmtree(self._nodes / key, ignore_errors=True)

    def _warn_unsealed(self, folder: Path) -> None:
        if not self._warned:
            self._warned = True
            warnings.warn(
                f"{folder / 'record.json'} has no hash (written by an older version): it and "
                "others like it are taken as they stand; remove a node's folder to make it again",
                stacklevel=2,
            )

    def _unchanged(self, path: Path, expected: str) -> bool:
        """Whether the file has the hash ``expected``; read once as long as nobody writes it, for
        every cell of a trunk asks for the same large files."""
        now = path.stat()
        seen = (expected, now.st_ino, now.st_size, now.st_mtime_ns)
        if self._whole.get(path) != seen:
            if hashlib.sha256(path.read_bytes()).hexdigest() != expected:
                return False
            self._whole[path] = seen
        return True

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
            scratch = self._nodes / f".{key}.{os.getpid()}"  # as open to others as the umask says
            scratch.mkdir()
            try:
                began, cpu = time.perf_counter(), sum(os.times()[:4])  # children, too
                record = make(scratch)
                seconds, cpu = time.perf_counter() - began, sum(os.times()[:4]) - cpu
                files = {
                    p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in scratch.iterdir()
                }
                document = {
                    "determinants": dict(determinants),
                    "record": record,
                    "files": files,
                    "seconds": seconds,
                    "cpu_seconds": cpu,
                }
                document["sha256"] = _seal(key, document)
                (scratch / "record.json").write_text(_finite_json(key, document))
                shutil.rmtree(self._nodes / key, ignore_errors=True)  # a damaged one
                os.replace(scratch, self._nodes / key)
            except BaseException:
                shutil.rmtree(scratch, ignore_errors=True)
                raise
        return Node(key, self._nodes / key, record, seconds)

    def say(self, message: str) -> None:
        """What the node that is being made is at, for :meth:`running` of any process."""
        if self._held:
            descriptor, who = self._held[-1]
            text = json.dumps({**who, "says": message[:200]})
            os.pwrite(descriptor, text.ljust(_LINE).encode(), 0)  # one write: never read in halves

    def running(self) -> list[Running]:
        """The nodes that living processes are making now, the oldest first."""
        found = []
        for path in (self.folder / "locks").glob("*.lock"):
            with suppress(OSError, ValueError, KeyError, TypeError), path.open() as file:
                try:
                    fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
                except BlockingIOError:
                    said, _ = json.JSONDecoder().raw_decode(file.read())
                    found.append(
                        Running(path.stem, said["host"], said["pid"], said["since"], said["says"])
                    )
        return sorted(found, key=lambda r: r.since)

    @contextmanager
    def _lock(self, key: str) -> Iterator[None]:
        """Alone on ``key``; raises :class:`NodeBusy` where another is at it and nobody waits."""
        self._nodes.mkdir(parents=True, exist_ok=True)
        with ExitStack() as stack:
            try:
                lock = locked(self.folder / "locks" / f"{key}.lock", wait=self._wait)
                descriptor = stack.enter_context(lock)
            except BlockingIOError:
                raise NodeBusy(key) from None
            for litter in self._nodes.glob(f".{key}.*"):  # of a killed process
                shutil.rmtree(litter, ignore_errors=True)
            who = {"host": socket.gethostname(), "pid": os.getpid(), "since": time.time()}
            self._held.append((descriptor, who))
            try:
                self.say("")
                yield
            finally:
                self._held.pop()


def _finite_json(key: str, document: dict[str, Any]) -> str:
    try:
        return json.dumps(document, indent=1, allow_nan=False)
    except ValueError:
        raise BadInput(
            f"{key}: a result is not a finite number, so nothing is kept; has the training "
            "diverged? Lower its rate"
        ) from None


def _not_finite(name: str) -> Any:
    raise ValueError(name)


class Missing(Exception):  # noqa: N818 (an answer, not an error)
    """The node of ``stage`` is not there."""

    def __init__(self, stage: str) -> None:
        super().__init__(stage)
        self.stage = stage


class Peek(Store):
    """A store that makes nothing: :meth:`node` raises :class:`Missing`. What it found whole once
    it does not read again."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self._seen: dict[str, Node] = {}

    def node(
        self,
        stage: str,
        determinants: Mapping[str, Any],
        make: Callable[[Path], dict[str, Any]],
    ) -> Node:
        """The node if it is there."""
        key = f"{stage}-{digest(determinants)}"
        if key not in self._seen:
            if (found := self.find(stage, determinants)) is None:
                raise Missing(stage)
            self._seen[key] = found
        return self._seen[key]

    @property
    def seen(self) -> list[Node]:
        """All that was found so far."""
        return list(self._seen.values())
