"""What an operator sees: an audit line per event, Prometheus metrics, one live table."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import logging.handlers
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.table import Table

__all__ = ["Audit", "DeviceRow", "metrics_text", "serve_metrics", "table"]

_log = logging.getLogger("endedge.edge")
_AUDIT_BYTES, _AUDIT_FILES = 16 * 2**20, 4  # a hostile peer cannot fill the disk with refusals


class Audit:
    """Appends one JSON line per event to a file that rotates; also counts the events."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = logging.handlers.RotatingFileHandler(
            path, maxBytes=_AUDIT_BYTES, backupCount=_AUDIT_FILES - 1, encoding="utf-8"
        )
        self.counts: dict[str, int] = {}

    def __call__(self, event: str, device_id: str = "", **fields: object) -> None:
        """Note ``event``; fields must be numbers or texts. A full disk is not an error here."""
        self.counts[event] = self.counts.get(event, 0) + 1
        entry = {"time": round(time.time(), 3), "event": event, "device": device_id} | fields
        line = json.dumps(entry, default=str)
        record = logging.LogRecord("endedge.edge", logging.INFO, "", 0, line, None, None)
        with contextlib.suppress(OSError):
            self._file.acquire()
            try:
                if self._file.shouldRollover(record):
                    self._file.doRollover()
                if self._file.stream is not None:
                    self._file.stream.write(line + "\n")
                    self._file.stream.flush()
            finally:
                self._file.release()
        _log.info(line)

    def close(self) -> None:
        self._file.close()


@dataclass(frozen=True)
class DeviceRow:
    """One device as the operator sees it now."""

    device_id: str
    connected: bool
    received_bytes: int  # on the wire by messages, repeats included, since the start
    sent_bytes: int
    batches: int
    frames: int
    upload_bytes: int  # stored, each byte once
    jobs: int  # queued or running
    compute_s: float
    applied_round: int
    missed: int
    map50_95: float | None
    doing: str


_METRICS: tuple[tuple[str, str, str, Callable[[DeviceRow], float | None]], ...] = (
    ("connected", "gauge", "1 while the device is connected", lambda row: row.connected),
    ("received_bytes_total", "counter", "message bytes received", lambda row: row.received_bytes),
    ("sent_bytes_total", "counter", "message bytes sent", lambda row: row.sent_bytes),
    ("batches_total", "counter", "batches stored", lambda row: row.batches),
    ("frames_total", "counter", "frames stored", lambda row: row.frames),
    ("upload_bytes_total", "counter", "bytes stored, each once", lambda row: row.upload_bytes),
    ("jobs", "gauge", "adaptation jobs queued or running", lambda row: row.jobs),
    ("compute_seconds_total", "counter", "seconds of adaptation", lambda row: row.compute_s),
    ("applied_round", "gauge", "last round in use on the device", lambda row: row.applied_round),
    ("missed_rounds_total", "counter", "rounds without an update", lambda row: row.missed),
    ("map50_95", "gauge", "last mAP50-95 the device reported", lambda row: row.map50_95),
)


def metrics_text(rows: Sequence[DeviceRow], events: dict[str, int]) -> str:
    """The Prometheus text exposition (format 0.0.4)."""
    lines = []
    for name, kind, text, value_of in _METRICS:
        lines += [f"# HELP endedge_{name} {text}", f"# TYPE endedge_{name} {kind}"]
        for row in rows:
            value = value_of(row)
            if value is not None:
                lines.append(f'endedge_{name}{{device="{row.device_id}"}} {float(value):g}')
    lines += ["# HELP endedge_events_total audit events", "# TYPE endedge_events_total counter"]
    lines += [f'endedge_events_total{{event="{k}"}} {n}' for k, n in sorted(events.items())]
    return "\n".join(lines) + "\n"


async def serve_metrics(port: int, text: Callable[[], str]) -> asyncio.Server:
    """``GET /metrics`` over HTTP on 127.0.0.1 (port 0: any free one)."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, EOFError, asyncio.LimitOverrunError):
            async with asyncio.timeout(5):
                request = (await reader.readuntil(b"\r\n")).split()
                while await reader.readuntil(b"\r\n") != b"\r\n":
                    pass
                found = request[:2] == [b"GET", b"/metrics"]
                body = text().encode() if found else b"see /metrics\n"
                status = "200 OK" if found else "404 Not Found"
                head = (
                    f"HTTP/1.1 {status}\r\nContent-Type: text/plain; version=0.0.4\r\n"
                    f"Content-Length: {len(body)}\r\nConnection: close\r\n\r\n"
                )
                writer.write(head.encode() + body)
                await writer.drain()
        writer.close()

    return await asyncio.start_server(answer, "127.0.0.1", port, limit=8192)


def table(rows: Sequence[DeviceRow], title: str) -> Table:
    """The live table of ``endedge serve``."""
    grid = Table(title=title)
    for heading in (
        "device",
        "link",
        "up MB",
        "down MB",
        "frames",
        "jobs",
        "compute s",
        "round",
        "missed",
        "mAP",
        "doing",
    ):
        grid.add_column(heading, justify="left" if heading in ("device", "doing") else "right")
    for row in rows:
        grid.add_row(
            row.device_id,
            "up" if row.connected else "-",
            f"{row.received_bytes / 1e6:.2f}",
            f"{row.sent_bytes / 1e6:.2f}",
            str(row.frames),
            str(row.jobs),
            f"{row.compute_s:.1f}",
            str(row.applied_round),
            str(row.missed),
            "-" if row.map50_95 is None else f"{row.map50_95:.3f}",
            row.doing,
        )
    return grid
