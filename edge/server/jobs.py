"""Fair shares of edge compute: which device's adaptation job runs next.

Start-time fair queueing (Goyal, Vin, Cheng, SIGCOMM 1996) with equal weights, on compute
seconds really used: the device that has used least goes first, one job of a device at a
time. A device that was away earns no credit for the time it did not ask.
"""

from __future__ import annotations

__all__ = ["FairQueue"]


class FairQueue:
    """Rounds waiting for compute, one a device. Not thread-safe: one event loop owns it."""

    def __init__(self) -> None:
        self._waiting: dict[str, int] = {}
        self._running: set[str] = set()
        self._used_s: dict[str, float] = {}
        self._virtual_s = 0.0

    def __contains__(self, device_id: str) -> bool:
        """Whether a job of this device is queued or running."""
        return device_id in self._waiting or device_id in self._running

    def __len__(self) -> int:
        return len(self._waiting) + len(self._running)

    def add(self, device_id: str, round_index: int) -> None:
        """Queue the job of a device that has none."""
        self._used_s[device_id] = max(self._used_s.get(device_id, 0.0), self._virtual_s)
        self._waiting[device_id] = round_index

    def take(self) -> tuple[str, int] | None:
        """The next job to run, or None; report its end by :meth:`done`."""
        if not self._waiting:
            return None
        self._virtual_s, device_id = min((self._used_s[name], name) for name in self._waiting)
        self._running.add(device_id)
        return device_id, self._waiting.pop(device_id)

    def done(self, device_id: str, seconds: float) -> None:
        """The running job of ``device_id`` ended after ``seconds`` of compute."""
        self._running.discard(device_id)
        self._used_s[device_id] += seconds
