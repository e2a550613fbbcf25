"""Batches that wait on the device until the edge has them: on disk, so that no frame is lost."""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import asdict
from pathlib import Path

from endedge.data.errors import BadInput
from endedge.data.storage import sweep, write_atomic
from endedge.link.messages import Offer

__all__ = ["Spool"]

_NAME = re.compile(r"([0-9]{8,20})\.(batch|json)")


class Spool:
    """``ROUND.batch`` files with their offers, and the last round number ever used."""

    def __init__(self, folder: Path, max_bytes: int) -> None:
        self._folder = folder
        self._max_bytes = max_bytes
        folder.mkdir(parents=True, exist_ok=True)
        sweep(folder)
        self._last_path = folder / "last_round"
        try:
            self.last_round = int(self._last_path.read_text()) if self._last_path.is_file() else 0
        except (ValueError, OSError) as error:
            raise BadInput(f"{self._last_path} is damaged: {error}") from None
        self.last_round = max([self.last_round, *self.rounds()])  # killed before it was noted
        for path in folder.glob("*.json"):  # written, but its batch never was
            if _NAME.fullmatch(path.name) and not path.with_suffix(".batch").is_file():
                path.unlink()

    def add(self, batch: bytes, frames: int, budget_bytes: int) -> int:
        """Keep a batch under the next round number, which is returned.

        Raises :class:`BadInput` when the spool would grow beyond its bound, OSError when the
        disk is full; the batch is not kept then.
        """
        held = sum(path.stat().st_size for path in self._folder.glob("*.batch"))
        if not batch or held + len(batch) > self._max_bytes:
            raise BadInput(
                f"batch of {len(batch)} bytes beside {held} that wait for the link; this device "
                f"spools 1 to {self._max_bytes}"
            )
        round_index = self.last_round + 1
        digest = hashlib.sha256(batch).digest()
        offer = Offer(round_index, len(batch), digest, frames, budget_bytes)
        described = json.dumps(asdict(offer) | {"sha256": digest.hex()})
        write_atomic(self._folder / f"{round_index:08d}.json", described.encode())
        write_atomic(self.path(round_index), batch)
        try:
            write_atomic(self._last_path, str(round_index).encode())
        except OSError:
            self._unlink(round_index)
            raise
        self.last_round = round_index
        return round_index

    def path(self, round_index: int) -> Path:
        return self._folder / f"{round_index:08d}.batch"

    def rounds(self) -> list[int]:
        """Rounds that wait, oldest first."""
        names = (_NAME.fullmatch(path.name) for path in self._folder.glob("*.batch"))
        return sorted(int(match[1]) for match in names if match)

    def first(self) -> Offer | None:
        """The offer of the oldest batch that waits. Raises :class:`BadInput` if it is damaged."""
        waiting = self.rounds()
        if not waiting:
            return None
        path = self.path(waiting[0]).with_suffix(".json")
        try:
            fields = json.loads(path.read_text())
            return Offer(**(fields | {"sha256": bytes.fromhex(fields["sha256"])}))
        except (ValueError, TypeError, KeyError, OSError) as error:
            raise BadInput(f"{path} is damaged: {error}; remove it and its batch") from None

    def remove(self, up_to_round: int) -> None:
        """Forget batches that the edge holds, or will never take."""
        for round_index in self.rounds():
            if round_index <= up_to_round:
                self._unlink(round_index)

    def _unlink(self, round_index: int) -> None:
        self.path(round_index).unlink()
        self.path(round_index).with_suffix(".json").unlink(missing_ok=True)
