"""What one device, one address and all of them together may ask of the edge."""

from __future__ import annotations

import math
import os
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from endedge.data.errors import BadInput

__all__ = ["RETRY_S", "DiskQuota", "Limits", "TokenBucket"]

RETRY_S = 2.0
_LOOK_EVERY_S = 2.0
_FREE_SHARE = 0.9  # of what is free at the start, where no quota is given


@dataclass(frozen=True)
class Limits:
    """What one device may ask of the edge, how many peers may knock at once, and the disk."""

    upload_bytes: int = 256 * 2**20  # one batch
    upload_bytes_per_s: float = math.inf  # averaged; beyond it the device is read more slowly
    frames: int = 100_000  # one batch
    update_bytes: int = 256 * 2**20  # one package
    pending_rounds: int = 2  # stored and not yet ended
    devices: int = 1000
    handshakes: int = 256  # peers that have not proved who they are,
    handshakes_per_address: int = 128  # and those of one address (IPv6: one /64)
    handshake_s: float = 10.0
    penalty_s: float = 1.0  # how long a refused peer still counts among them
    messages_per_s: float = 100.0  # of one device; whole chunks of a batch do not count
    greetings_per_s: float = 1.0  # connections of one device, averaged
    disk_bytes: int | None = None  # of the whole folder; None: 90 % of what is free at the start

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if value is not None and not value >= (0 if name == "penalty_s" else 1e-9):
                raise BadInput(f"limit {name} is {value}; give a number above 0")


class TokenBucket:
    """A token bucket of ``burst``, refilled with ``per_s`` tokens a second."""

    def __init__(
        self, per_s: float, burst: float, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._per_s, self._burst, self._clock = per_s, burst, clock
        self._level, self._seen_s = burst, clock()

    def _refill(self) -> None:
        now_s = self._clock()
        self._level = min(self._burst, self._level + (now_s - self._seen_s) * self._per_s)
        self._seen_s = now_s

    def spend(self, cost: float) -> float:
        """Take ``cost`` tokens, in debt if need be; returns the seconds until that is paid."""
        self._refill()
        self._level -= cost
        return max(0.0, -self._level / self._per_s)

    def wait_s(self, cost: float) -> float:
        """0 and ``cost`` tokens are taken, or the seconds until there are so many; none taken."""
        self._refill()
        if self._level < cost:
            return (cost - self._level) / self._per_s
        self._level -= cost
        return 0.0

    @property
    def full(self) -> bool:
        """Whether nothing was asked lately."""
        self._refill()
        return self._level >= self._burst


class DiskQuota:
    """The bytes under ``folder``, counted at most every two seconds, against a bound.

    What has been promised and is not on the disk yet is the caller's to add.
    """

    def __init__(self, folder: Path, limit_bytes: int | None) -> None:
        self._folder = folder
        self._used_bytes = _bytes_under(folder)
        self._looked_s = time.monotonic()
        free_bytes = shutil.disk_usage(folder).free
        self.limit_bytes = (
            limit_bytes if limit_bytes is not None else self._used_bytes + _FREE_SHARE * free_bytes
        )

    def has_room(self, n_bytes: float) -> bool:
        """Whether ``n_bytes`` more would stay within the bound. Walks the folder: for a thread."""
        if time.monotonic() - self._looked_s >= _LOOK_EVERY_S:
            self._used_bytes, self._looked_s = _bytes_under(self._folder), time.monotonic()
        return self._used_bytes + n_bytes <= self.limit_bytes


def _bytes_under(folder: Path) -> int:
    total = 0
    for place, _, names in os.walk(folder):
        for name in names:
            try:
                total += os.lstat(os.path.join(place, name)).st_size
            except OSError:  # it has just been removed
                continue
    return total
