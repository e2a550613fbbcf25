"""What the edge keeps of one device on disk, so that it can be killed at any moment.

The folder of a device holds ``state.json`` (replaced atomically), the upload in progress
(``upload.json`` + ``upload.part``), whole batches ``ROUND.batch`` waiting for their job, and
the newest package ``ROUND.eeu``. A file is named only when it is whole; at the start the
names are compared with the state, so a crash between two steps is repaired, and nothing is
counted twice. Files of other names are nobody's business here; files of these names that cannot
be read are :class:`Damaged`, and :mod:`endedge.edge.server.registry` keeps that device apart.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from endedge.data.errors import BadInput
from endedge.data.storage import append, private_folder, publish, sha256_of, sweep, write_atomic
from endedge.link.messages import Offer, encode

__all__ = ["Damaged", "DeviceRounds", "State"]

_NAME = re.compile(r"([0-9]{8,20})\.(batch|eeu|json)")


class Damaged(BadInput):
    """A file of a device's folder cannot be read; the message names it."""


@dataclass(frozen=True)
class State:
    """Rounds count from 1 and never go back; totals hold what was stored, each byte once."""

    stored_round: int = 0
    resolved_round: int = 0
    applied_round: int = 0
    map50_95: float | None = None
    batches: int = 0
    frames: int = 0
    upload_bytes: int = 0
    missed: int = 0
    attempt_round: int = 0
    attempts: int = 0

    def __post_init__(self) -> None:
        counts = {k: v for k, v in asdict(self).items() if k != "map50_95"}
        for name, value in counts.items():
            if type(value) is not int or value < 0:
                raise ValueError(f"{name} is {value!r}; give a number from 0 on")
        if self.map50_95 is not None and not 0 <= float(self.map50_95) <= 1:
            raise ValueError(f"map50_95 is {self.map50_95!r}; give null or 0 to 1")


class DeviceRounds:
    """The ledger of one device. OSError (a full disk) leaves it as it was.

    Raises :class:`Damaged` for a folder whose files cannot be read. Not thread-safe: whoever
    shares one holds a lock.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        private_folder(folder)  # what a camera saw is for its owner
        sweep(folder)
        self._part = folder / "upload.part"
        self._state_path = folder / "state.json"
        self.offer: Offer | None = None
        self.state = State()
        self._digests: dict[int, tuple[int, bytes]] = {}
        if self._state_path.is_file():
            try:
                self.state = State(**json.loads(self._state_path.read_text()))
            except (ValueError, TypeError, OSError) as error:
                raise Damaged(f"{self._state_path} is damaged: {error}") from None
        self._recover()
        for round_index in self.pending():
            self.budget_bytes(round_index)

    # Upload ----------------------------------------------------------------------------------

    def begin(self, offer: Offer) -> int:
        """Start or resume an upload; returns the byte to go on from (its size: all is there)."""
        self._recover()  # a full disk may have stopped the last one between two steps
        if offer.round_index <= self.state.stored_round:
            return offer.size
        if offer != self.offer:
            with contextlib.suppress(FileNotFoundError):
                self._part.unlink()
            write_atomic(self._folder / "upload.json", _to_json(offer))
            self.offer = offer
        return self.received_bytes()

    def received_bytes(self) -> int:
        """Bytes of the upload in progress that are on disk."""
        return self._part.stat().st_size if self._part.is_file() else 0

    def append(self, offset: int, data: bytes) -> int:
        """Add bytes at their place; returns how many were new.

        What is there already is dropped (a duplicate); a gap adds nothing. Raises
        :class:`BadInput` for bytes beyond the offered size, OSError for a full disk.
        """
        assert self.offer is not None
        have = self.received_bytes()
        if offset + len(data) > self.offer.size:
            raise BadInput(f"data beyond the offered {self.offer.size} bytes")
        if offset > have or offset + len(data) <= have:
            return 0
        fresh = memoryview(data)[have - offset :]
        append(self._part, have, fresh)
        return len(fresh)

    def digest(self) -> bytes:
        """SHA-256 of the upload in progress; reads it all, changes nothing."""
        return sha256_of(self._part)

    def finish(self, digest: bytes) -> bool:
        """Keep a whole upload as a batch if its hash is right; else forget it, False."""
        assert self.offer is not None
        if digest != self.offer.sha256:
            self._part.unlink()
            return False
        publish(self._part, self.batch_path(self.offer.round_index))
        self._recover()
        return True

    def batch_path(self, round_index: int) -> Path:
        return self._folder / f"{round_index:08d}.batch"

    # Jobs and packages -----------------------------------------------------------------------

    def pending(self) -> list[int]:
        """Stored rounds that have not ended, oldest first; the first may have its package."""
        return self._rounds("batch")

    def next_job(self) -> int | None:
        """The round to adapt next. None while a package waits for its device: the next model
        starts from what the device then runs, so a delta always meets its base."""
        pending = self.pending()
        return pending[0] if pending and self.ready_round() is None else None

    def ready_round(self) -> int | None:
        """The round whose package waits to be fetched and applied."""
        return max(self._rounds("eeu"), default=None)

    def budget_bytes(self, round_index: int) -> int:
        """The byte budget that came with a stored batch."""
        return _from_json(self._folder / f"{round_index:08d}.json").budget_bytes

    def promised_bytes(self) -> int:
        """What this device may still add to the disk: the rest of the upload in progress, and the
        packages of the batches that wait."""
        ready = self.ready_round()
        asked = [self.budget_bytes(k) for k in self.pending() if k != ready]
        if self.offer is not None:
            asked += [self.offer.size - self.received_bytes(), self.offer.budget_bytes]
        return sum(asked)

    def count_attempt(self, round_index: int) -> int:
        """Note on disk that a job starts; returns how often it was started, this one included."""
        before = self.state.attempts if self.state.attempt_round == round_index else 0
        self._save(attempt_round=round_index, attempts=before + 1)
        return before + 1

    def package_path(self, round_index: int) -> Path:
        return self._folder / f"{round_index:08d}.eeu"

    def save_package(self, round_index: int, package: bytes) -> None:
        """Keep a package to be fetched."""
        self._digests.pop(round_index, None)
        write_atomic(self.package_path(round_index), package)

    def package(self, round_index: int) -> tuple[int, bytes]:
        """Size and SHA-256 of a package; read once, since a device may ask at each greeting."""
        if round_index not in self._digests:
            path = self.package_path(round_index)
            self._digests = {round_index: (path.stat().st_size, sha256_of(path))}
        return self._digests[round_index]

    def resolve(
        self, round_index: int, map50_95: float | None = None, *, applied: bool = False
    ) -> None:
        """Note that a round has ended, applied or missed, and forget its files."""
        changes: dict[str, Any] = {"resolved_round": round_index}
        if applied:
            changes |= {"applied_round": round_index, "map50_95": map50_95}
        else:
            changes |= {"missed": self.state.missed + 1}
        self._save(**changes)
        self._forget()

    # Disk ------------------------------------------------------------------------------------

    def _recover(self) -> None:
        """Bring state and files together after a stop between two steps."""
        path = self._folder / "upload.json"
        self.offer = _from_json(path) if path.is_file() else None
        if self.offer is not None and self.batch_path(self.offer.round_index).is_file():
            if self.offer.round_index > self.state.stored_round:
                size = self.offer.size
                self._save(
                    stored_round=self.offer.round_index,
                    batches=self.state.batches + 1,
                    frames=self.state.frames + self.offer.frames,
                    upload_bytes=self.state.upload_bytes + size,
                )
            os.replace(path, self._folder / f"{self.offer.round_index:08d}.json")
            self.offer = None
        self._forget()

    def _forget(self) -> None:
        for round_index, _, path in self._files():
            if round_index <= self.state.resolved_round:
                path.unlink(missing_ok=True)

    def _rounds(self, kind: str) -> list[int]:
        return sorted(round_index for round_index, held, _ in self._files() if held == kind)

    def _files(self) -> Iterator[tuple[int, str, Path]]:
        """Our own files, by their exact names: a stray "1 copy.batch" is not one."""
        for name in os.listdir(self._folder):
            match = _NAME.fullmatch(name)
            if match is not None:
                yield int(match[1]), match[2], self._folder / name

    def _save(self, **changes: Any) -> None:
        state = replace(self.state, **changes)
        write_atomic(self._state_path, json.dumps(asdict(state)).encode())
        self.state = state


def _to_json(offer: Offer) -> bytes:
    return json.dumps(asdict(offer) | {"sha256": offer.sha256.hex()}).encode()


def _from_json(path: Path) -> Offer:
    try:
        fields = json.loads(path.read_text())
        offer = Offer(**(fields | {"sha256": bytes.fromhex(fields["sha256"])}))
        encode(offer)  # each field within its bound
    except (ValueError, TypeError, KeyError, OSError) as error:
        raise Damaged(f"{path} is damaged: {type(error).__name__}: {error}") from None
    return offer
