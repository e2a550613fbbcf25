"""Lies about link/: bytes and seconds on the wire."""

from __future__ import annotations

from tests.lies.lie import Lie

__all__ = ["LIES"]

LIES = [
    Lie(
        "latency is not waited for",
        "link/channel.py",
        "return leaves_s + self.latency_s",
        "return leaves_s",
        "a byte arrives as it leaves",
        ("tests/link/test_channel.py",),
    ),
    Lie(
        "an outage lets bytes through",
        "link/channel.py",
        "            position_s = end\n        if left",
        "            position_s = begin\n        if left",
        "a link that is down carries bytes",
        ("tests/link/test_channel.py",),
    ),
    Lie(
        "nobody waits in the queue",
        "link/channel.py",
        "start_s = max(ready_s, self.busy_until_s)",
        "start_s = ready_s",
        "two devices use the whole link at once",
        ("tests/link/test_channel.py", "tests/lab/loop/test_columns.py"),
    ),
    Lie(
        "headers are not counted",
        "link/connection.py",
        "self.received_bytes += HEADER_BYTES + length",
        "self.received_bytes += length",
        "the operator sees fewer bytes than crossed",
        ("tests/link/test_connection.py", "tests/edge/server/test_service.py"),
    ),
]
