"""The log of events: one JSON line each, in files that rotate.

A peer must not be able to fill the disk with lines, nor to push the traces of what it did out of
the files. So each kind of event of each device (or address) has a budget of lines; what goes
beyond is counted and written as one line, ``{"event": "repeated", "of": …, "times": n}``, once a
minute. Counters see every event.
"""

from __future__ import annotations

import contextlib
import json
import logging
import logging.handlers
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from endedge.data.errors import BadInput
from endedge.edge.server.limits import TokenBucket

__all__ = ["Audit"]

_log = logging.getLogger("endedge.edge")
_FILE_BYTES, _FILES = 16 * 2**20, 16
_REPEATED_S = 60.0
_MOST_KEYS = 4096
# A round writes each of these once; a device that plays rounds is to be followed in full.
_ROUTINE = frozenset({"stored", "adapting", "adapted", "applied", "missed"})
_WARNINGS = frozenset(
    {
        "accept_error",
        "corrupt_upload",
        "disk_error",
        "error",
        "missed",
        "not_a_device",
        "quarantined",
        "quota",
        "refused",
        "repeated",
    }
)


@dataclass
class _Budget:
    pace: TokenBucket
    repeated: int = 0
    since: float = field(default_factory=time.time)


class Audit:
    """Appends one JSON line per event to a file that rotates; also counts the events.

    Lines are written by a thread, in order. Raises :class:`BadInput` if the file cannot be
    opened.
    """

    def __init__(self, path: Path) -> None:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file = logging.handlers.RotatingFileHandler(
                path, maxBytes=_FILE_BYTES, backupCount=_FILES - 1, encoding="utf-8"
            )
        except OSError as error:
            raise BadInput(f"cannot write the log of events {path}: {error}") from None
        self._writer = ThreadPoolExecutor(1, "audit")
        self._budgets: dict[tuple[str, str], _Budget] = {}
        self.counts: dict[str, int] = {}

    def __call__(
        self, event: str, device_id: str = "", *, address: str = "", **fields: object
    ) -> None:
        """Note ``event`` of a device, or of an ``address`` that is not known as one yet; fields
        must be numbers or texts. A full disk is not an error here."""
        self.counts[event] = self.counts.get(event, 0) + 1
        key = (device_id or address, event)
        if key not in self._budgets and len(self._budgets) >= _MOST_KEYS:
            key = ("", event)
        if key not in self._budgets:
            burst, per_s = (200.0, 1.0) if event in _ROUTINE else (20.0, 1 / 60)
            self._budgets[key] = _Budget(TokenBucket(per_s, burst))
        budget = self._budgets[key]
        entry: dict[str, object] = {"time": round(time.time(), 3), "event": event}
        entry |= {"device": device_id, **({"address": address} if address else {}), **fields}
        if budget.pace.wait_s(1.0) == 0.0:
            self._put(entry)
        else:
            budget.repeated += 1
            _log.debug("%s", json.dumps(entry, default=str))

    def tidy(self, *, all_of_it: bool = False) -> None:
        """Write what was repeated for a minute (or ``all_of_it``), forget who went quiet."""
        now = time.time()
        for key, budget in list(self._budgets.items()):
            if budget.repeated and (all_of_it or now - budget.since >= _REPEATED_S):
                who, event = key
                self._put(
                    {
                        "time": round(now, 3),
                        "event": "repeated",
                        "device": who,
                        "of": event,
                        "times": budget.repeated,
                        "since": round(budget.since, 3),
                    }
                )
                budget.repeated, budget.since = 0, now
            elif budget.pace.full:
                del self._budgets[key]

    def close(self) -> None:
        """Write what waits, and close."""
        self.tidy(all_of_it=True)
        self._writer.shutdown()
        self._file.close()

    def _put(self, entry: dict[str, object]) -> None:
        line = json.dumps(entry, default=str)  # ASCII: no escape sequence gets through
        level = logging.WARNING if entry["event"] in _WARNINGS else logging.INFO
        told = {k: v for k, v in entry.items() if k not in ("time", "event", "device")}
        who = entry["device"] or entry.get("address") or "edge"
        said = " ".join(f"{k}={json.dumps(v, default=str)}" for k, v in told.items())
        _log.log(level, "%s: %s %s", who, entry["event"], said)
        with contextlib.suppress(RuntimeError):  # an event after the end
            self._writer.submit(self._write, line)

    def _write(self, line: str) -> None:
        record = logging.LogRecord("endedge.edge", logging.INFO, "", 0, line, None, None)
        with contextlib.suppress(OSError):
            if self._file.shouldRollover(record):
                self._file.doRollover()
            if self._file.stream is not None:
                self._file.stream.write(line + "\n")
                self._file.stream.flush()
