"""What a page shows of a running edge server: its Prometheus metrics, and how they moved."""

from __future__ import annotations

import math
import re
import time
import urllib.error
import urllib.request
from collections import deque
from typing import Any
from urllib.parse import urlsplit

from endedge.data.errors import BadInput

__all__ = ["EdgeView", "read_metrics"]

_LINE = re.compile(r'endedge_(\w+)\{(device|event)="([^"]*)"\} (\S+)')
_MAX_BYTES = 8 * 2**20
_TIMEOUT_S = 5.0
_KEPT = 2000  # samples of each device
_FIELDS = {
    "connected": "connected",
    "received_bytes_total": "received_bytes",
    "sent_bytes_total": "sent_bytes",
    "frames_total": "frames",
    "jobs": "jobs",
    "compute_seconds_total": "compute_s",
    "applied_round": "applied_round",
    "missed_rounds_total": "missed",
    "quarantined": "quarantined",
    "map50_95": "map",
}


def read_metrics(text: str) -> tuple[dict[str, dict[str, float]], dict[str, float]]:
    """Devices by name with their values, and how often each event happened."""
    devices: dict[str, dict[str, float]] = {}
    events: dict[str, float] = {}
    for line in text.splitlines():
        found = _LINE.fullmatch(line)
        if not found:
            continue
        metric, label, name, value = found.groups()
        try:
            number = float(value)
        except ValueError:
            continue
        if not math.isfinite(number):
            continue  # JSON has no word for it
        if label == "event":
            events[name] = number
        elif metric in _FIELDS:
            devices.setdefault(name, {})[_FIELDS[metric]] = number
    return devices, events


class EdgeView:
    """The server whose metrics are at ``url`` (``http://127.0.0.1:9100``).

    Raises :class:`BadInput` for an address that is none, or where nobody answers with metrics.
    """

    kind = "edge"

    def __init__(self, url: str) -> None:
        try:
            parts = urlsplit(url)
            known = parts.scheme in ("http", "https") and bool(parts.hostname)
            _ = parts.port
        except ValueError:
            known = False
        if not known:
            raise BadInput(f"{url!r} is no address; give e.g. http://127.0.0.1:9100")
        self.name = url if parts.path.strip("/") else f"{url.rstrip('/')}/metrics"
        self._maps: dict[str, deque[tuple[float, float]]] = {}
        self._bytes: dict[str, deque[tuple[float, float, float]]] = {}
        self.look()

    def look(self) -> dict[str, Any]:
        """What there is now, as JSON has it; raises :class:`BadInput` where nobody answers."""
        try:
            with urllib.request.urlopen(self.name, timeout=_TIMEOUT_S) as answer:
                text = answer.read(_MAX_BYTES).decode("utf-8", "replace")
        except (OSError, ValueError) as error:
            why = error.reason if isinstance(error, urllib.error.URLError) else error
            raise BadInput(
                f"{self.name} does not answer ({why}); start 'endedge serve … --metrics-port 9100'"
            ) from None
        if "endedge_events_total" not in text:
            raise BadInput(f"{self.name} answers, but not with the metrics of 'endedge serve'")
        devices, events = read_metrics(text)
        now = time.time()
        for name, seen in devices.items():
            if "map" in seen:
                maps = self._maps.setdefault(name, deque(maxlen=_KEPT))
                if not maps or maps[-1][1] != seen["map"]:
                    maps.append((now, seen["map"]))
            moved = self._bytes.setdefault(name, deque(maxlen=_KEPT))
            moved.append((now, seen.get("received_bytes", 0.0), seen.get("sent_bytes", 0.0)))
        return {
            "name": self.name,
            "devices": [
                {
                    "device": name,
                    **seen,
                    "maps": [list(sample) for sample in self._maps.get(name, ())],
                    "bytes": [list(sample) for sample in self._bytes[name]],
                }
                for name, seen in sorted(devices.items())
            ],
            "events": events,
        }
