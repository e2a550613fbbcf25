"""What an operator sees: a line or a table row per device, and Prometheus metrics."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from rich.table import Table
from rich.text import Text

from endedge.link.messages import printable

__all__ = ["DeviceRow", "line", "metrics_text", "serve_metrics", "table"]


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
    doing: str  # link and job, with the reason where there is one
    quarantined: bool = False


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
    ("quarantined", "gauge", "1 while its files are damaged", lambda row: row.quarantined),
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
                asks_metrics = request[:2] == [b"GET", b"/metrics"]
                body = text().encode() if asks_metrics else b"see /metrics\n"
                status = "200 OK" if asks_metrics else "404 Not Found"
                head = (
                    f"HTTP/1.1 {status}\r\nContent-Type: text/plain; version=0.0.4\r\n"
                    f"Content-Length: {len(body)}\r\nConnection: close\r\n\r\n"
                )
                writer.write(head.encode() + body)
                await writer.drain()
        writer.close()

    return await asyncio.start_server(answer, "127.0.0.1", port, limit=8192)


def line(row: DeviceRow) -> str:
    """One device in one line, without what a terminal would obey."""
    score = "-" if row.map50_95 is None else f"{100 * row.map50_95:.1f} %"
    return printable(
        f"{row.device_id}: {row.doing}, round {row.applied_round}, missed {row.missed}, mAP {score}"
    )


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
        "mAP (%)",
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
            "-" if row.map50_95 is None else f"{100 * row.map50_95:.1f}",
            Text(printable(row.doing)),
        )
    return grid
