"""The edge server as a process: serve until it is told to stop, showing what its devices do."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import os
import signal
import sys
import time
from collections.abc import Sequence

from rich.console import Console
from rich.live import Live

from endedge.edge.server.monitor import DeviceRow, line, table
from endedge.edge.server.service import Adapt, EdgeService, ServeConfig
from endedge.edge.server.workers import JobProcess

__all__ = ["serve_main"]

_REFRESH_S = 1.0
_M_MMAP_THRESHOLD, _M_ARENA_MAX = -3, -8  # of glibc's <malloc.h>


def serve_main(config: ServeConfig, jobs: Adapt | Sequence[JobProcess]) -> None:
    """Serve until SIGINT or SIGTERM; on a terminal with a live table, else one line a change.

    A job that runs when it is told to stop is abandoned, not waited for: its batch is on disk
    and it runs again after the next start. Raises
    :class:`~endedge.data.errors.BadInput` if the address cannot be listened on, or if a process
    for jobs finds its inputs wrong.
    """
    _return_freed_memory()
    if not callable(jobs):
        for process in jobs:
            process.start()
    try:
        running = asyncio.run(_serve(config, jobs))
    finally:
        if not callable(jobs):
            for process in jobs:
                process.close()
    if running and callable(jobs):
        sys.stdout.flush()
        os._exit(0)  # a daemon thread inside native code must not be unwound


def _return_freed_memory() -> None:
    """Have the buffers of closed connections go back to the system; nothing where the C library
    is another than glibc.

    asyncio reserves 256 KiB for every TLS connection. glibc maps such blocks one by one at
    first, but raises the size from which it does so each time one is freed: after some hours of
    connections that come and go, all of them lie in heaps that only grow."""
    with contextlib.suppress(OSError, AttributeError):
        libc = ctypes.CDLL(None)
        libc.mallopt(_M_MMAP_THRESHOLD, 128 * 1024)
        libc.mallopt(_M_ARENA_MAX, 2)


async def _serve(config: ServeConfig, jobs: Adapt | Sequence[JobProcess]) -> int:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    console = Console()
    async with EdgeService(config, jobs) as edge:
        secured = "TLS, enrolment by token" if config.secure else "no TLS: devices without a bundle"
        title = f"edge on {config.host}:{edge.port} ({secured})" + (
            f", metrics on http://127.0.0.1:{edge.metrics_port}/metrics"
            if edge.metrics_port
            else ""
        )
        if console.is_terminal:
            with Live(table(edge.rows(), title), console=console, auto_refresh=False) as live:
                while not await _within(stop, _REFRESH_S):
                    live.update(table(edge.rows(), title), refresh=True)
        else:
            print(title, flush=True)
            shown: dict[str, str] = {}
            while not await _within(stop, _REFRESH_S):
                for row in edge.rows():
                    if shown.get(row.device_id) != line(row):
                        shown[row.device_id] = line(row)
                        print(_stamped(row), flush=True)
        return edge.jobs_running()


def _stamped(row: DeviceRow) -> str:
    level = "WARNING" if row.quarantined else "INFO"
    return f"{time.strftime('%Y-%m-%d %H:%M:%S')} {level} {line(row)}"


async def _within(event: asyncio.Event, seconds: float) -> bool:
    try:
        await asyncio.wait_for(event.wait(), seconds)
    except TimeoutError:
        return False
    return True
