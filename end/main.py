"""The device as a process: capture, upload, wait, apply, until there is nothing to capture."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable
from pathlib import Path

from endedge.end.apply import Install
from endedge.end.client import Capture, Device, DeviceConfig, Evaluate, Outcome

__all__ = ["device_main"]

_log = logging.getLogger("endedge.device")
_DISK_RETRY_S = 2.0


def device_main(
    config: DeviceConfig,
    capture: Callable[[int, Path | None], Capture | None],
    install: Install,
    evaluate: Evaluate | None = None,
    *,
    on_outcome: Callable[[Outcome], None] | None = None,
) -> list[Outcome]:
    """Run a device until ``capture(round, model file in use or None)`` returns None.

    One round after the other: capture, upload, wait for the update, apply. A round that was
    under way when the process was killed is finished first. Returns the outcomes in order;
    raises :class:`BadInput` if the edge refuses this device for good.
    """
    outcomes: list[Outcome] = []

    async def run() -> None:
        async with Device(config, install, evaluate) as device:
            round_index = device.spool.last_round
            if round_index > device.store.round_index:
                outcomes.append(await device.outcome(round_index))
                if on_outcome is not None:
                    on_outcome(outcomes[-1])
            while True:
                captured = capture(device.spool.last_round + 1, device.store.model)
                if captured is None:
                    with contextlib.suppress(TimeoutError):
                        await asyncio.wait_for(device.settled(), config.idle_timeout_s)
                    return
                outcomes.append(await device.outcome(await _submit(device, captured)))
                if on_outcome is not None:
                    on_outcome(outcomes[-1])

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
