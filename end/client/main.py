"""The device as a process: capture, upload, wait, apply, until there is nothing to capture."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
from collections.abc import Callable
from pathlib import Path

from endedge.end.client.apply import Install
from endedge.end.client.client import Capture, Device, DeviceConfig, Evaluate, Outcome

__all__ = ["device_main"]

_log = logging.getLogger("endedge.device")
_DISK_RETRY_S = 2.0


def device_main(
    config: DeviceConfig,
    capture: Callable[[int, Path | None], Capture | None],
    install: Install,
    evaluate: Evaluate | None = None,
    *,
    deadline_s: float | None = None,
    on_outcome: Callable[[Outcome], None] | None = None,
) -> list[Outcome]:
    """Run a device until ``capture(round, model file in use or None)`` returns None.

    One round after the other: capture, upload, wait for the update, apply. A round that has
    not ended ``deadline_s`` after its submission is reported as missed and the next one begins;
    its update is still applied if it comes before a newer one. A round that was under way when
    the process was killed is finished first. Returns the outcomes in order; raises
    :class:`BadInput` if the edge refuses this device for good.
    """
    outcomes: list[Outcome] = []

    async def end_of(device: Device, round_index: int) -> None:
        try:
            outcome = await asyncio.wait_for(device.outcome(round_index), deadline_s)
        except TimeoutError:
            why = f"no update within {deadline_s} s"
            outcome = Outcome(round_index, "missed", why, float(deadline_s or 0), math.nan)
        outcomes.append(outcome)
        if on_outcome is not None:
            on_outcome(outcome)

    async def run() -> None:
        async with Device(config, install, evaluate) as device:
            if device.spool.last_round > device.store.round_index:
                await end_of(device, device.spool.last_round)
            while True:
                captured = await asyncio.to_thread(
                    capture, device.spool.last_round + 1, device.store.model
                )
                if captured is None:
                    with contextlib.suppress(TimeoutError):
                        await asyncio.wait_for(device.settled(), config.idle_timeout_s)
                    return
                await end_of(device, await _submit(device, captured))

    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(run())
    return outcomes


async def _submit(device: Device, captured: Capture) -> int:
    while True:
        try:
            return device.submit(captured)
        except OSError as error:  # a full disk may be cleared; the frames are still in memory
            _log.warning("cannot spool: %s", error)
            await asyncio.sleep(_DISK_RETRY_S)
