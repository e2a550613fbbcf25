"""``latency.csv`` of a results folder: what a frame costs in an engine, and what is detected."""

from __future__ import annotations

import platform
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING

from endedge.allocator.csv_files import csv_text, read_rows
from endedge.data.storage import write_atomic

if TYPE_CHECKING:  # what reads the table needs no PyTorch
    from endedge.end.latency import Latency
    from endedge.end.metric import CocoScore

__all__ = ["Row", "add_rows", "read_latencies"]

_FILE = "latency.csv"


@dataclass(frozen=True)
class Row:
    """One model in one engine on one machine. Times in s a frame of ``imgsz`` px, batch 1;
    ``map`` and ``map50`` of the engine's own outputs on ``frames``, nothing where unlabelled."""

    model: str
    runtime: str
    imgsz: int
    threads: int
    latency_s: float
    low_s: float
    high_s: float
    network_s: float
    runs: int
    map: float | None
    map50: float | None
    frames: str
    machine: str

    @classmethod
    def of(
        cls, model: str, imgsz: int, timed: Latency, score: CocoScore | None, frames: str
    ) -> Row:
        """From a timing on this machine and, where frames are labelled, a score."""
        return cls(
            model,
            timed.runtime,
            imgsz,
            timed.threads,
            timed.median_s,
            timed.low_s,
            timed.high_s,
            timed.network_s,
            timed.runs,
            score.map if score else None,
            score.map50 if score else None,
            frames,
            _machine(),
        )

    def __str__(self) -> str:
        said = (
            f"{self.runtime:14} {self.latency_s * 1000:7.1f} ms a frame "
            f"({self.low_s * 1000:.1f} to {self.high_s * 1000:.1f}), {1 / self.latency_s:.1f} "
            f"frames/s, {self.threads} thread{'s' * (self.threads > 1)}, {self.imgsz} px"
        )
        return said if self.map is None else f"{said}; mAP {100 * self.map:.2f} % on {self.frames}"


def add_rows(folder: Path, rows: Sequence[Row]) -> None:
    """Put ``rows`` at the end of the folder's ``latency.csv``; one of the same model, engine,
    size, threads and machine is replaced."""
    key = ("model", "runtime", "imgsz", "threads", "machine")
    named = {tuple(str(getattr(r, k)) for k in key): r for r in [*read_latencies(folder), *rows]}
    names = [f.name for f in fields(Row)]
    text = csv_text(names, ([_shown(getattr(row, n)) for n in names] for row in named.values()))
    write_atomic(folder / _FILE, text.encode())


def read_latencies(folder: Path) -> list[Row]:
    """The rows of ``folder``, none where there is no file. Raises :class:`BadInput`."""
    return read_rows(Row, folder / _FILE, "latency")


def _shown(value: object) -> object:
    return f"{value:.6g}" if isinstance(value, float) else "" if value is None else value


def _machine() -> str:
    """The processor's name, as Linux tells it."""
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()
