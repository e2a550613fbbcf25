"""The edge server as a process: serve until it is told to stop, showing one live table."""

from __future__ import annotations

import asyncio
import os
import signal
import sys

from rich.console import Console
from rich.live import Live

from endedge.edge.server.monitor import table
from endedge.edge.server.service import Adapt, EdgeService, ServeConfig

__all__ = ["serve_main"]

_REFRESH_S = 1.0


def serve_main(config: ServeConfig, adapt: Adapt) -> None:
    """Serve until SIGINT or SIGTERM; on a terminal with a live table, else one line a change.

    A job that runs when it is told to stop is abandoned, not waited for: its batch is on disk
    and it runs again after the next start. Raises
    :class:`~endedge.data.errors.BadInput` if the address cannot be listened on.
    """
    running = asyncio.run(_serve(config, adapt))
    if running:
        sys.stdout.flush()
        os._exit(0)  # a daemon thread inside native code must not be unwound


async def _serve(config: ServeConfig, adapt: Adapt) -> int:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    console = Console()
    async with EdgeService(config, adapt) as edge:
        title = f"edge on {config.host}:{edge.port}" + (
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
            shown: list[str] = []
            while not await _within(stop, _REFRESH_S):
                lines = [
                    f"{row.device_id}: {row.doing}, round {row.applied_round}, missed {row.missed} "
                    f"mAP {'-' if row.map50_95 is None else f'{row.map50_95:.3f}'}"
                    for row in edge.rows()
                ]
                for line in lines:
                    if line not in shown:
                        print(line, flush=True)
                shown = lines
        return edge.jobs_running()


async def _within(event: asyncio.Event, seconds: float) -> bool:
    try:
        await asyncio.wait_for(event.wait(), seconds)
    except TimeoutError:
        return False
    return True
