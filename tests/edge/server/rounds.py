"""Rounds whose every byte is known beforehand, for the tests of the service."""

from __future__ import annotations

import asyncio
import hashlib
import json
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from endedge.edge.server.keys import issue_bundle
from endedge.edge.server.service import EdgeService, Job, ServeConfig
from endedge.end.client.client import Capture, Device, DeviceConfig, Outcome
from endedge.link.channel import Capacity, Channel, DuplexLink
from endedge.link.shaper import LinkProxy

FAST = DuplexLink(Channel(Capacity.constant(400e6)), Channel(Capacity.constant(400e6)))


def adapt(job: Job) -> bytes:
    """Deterministic in everything a job says, and as long as the budget allows."""
    seed = f"{job.device_id} {job.round_index} {job.base_round} ".encode() + job.batch
    return random.Random(hashlib.sha256(seed).digest()).randbytes(job.budget_bytes)


def install(package: bytes, base: Path | None, target: Path) -> None:
    before = base.read_bytes() if base else b"base"
    target.write_bytes(hashlib.sha256(before + package).digest())


def batch(round_index: int, size: int = 60_000) -> bytes:
    return random.Random(round_index).randbytes(size)


def expected_model(device_id: str, rounds: int, budget: int) -> bytes:
    """The same loop without a network."""
    model = b"base"
    for k in range(1, rounds + 1):
        package = adapt(Job(device_id, k, k - 1, batch(k), budget))
        model = hashlib.sha256(model + package).digest()
    return model


def serve_config(folder: Path, port: int = 0, **changes: object) -> ServeConfig:
    return ServeConfig(folder / "edge", port=port, **changes)  # type: ignore[arg-type]


def device_config(folder: Path, port: int, name: str = "cam", **changes: object) -> DeviceConfig:
    settings: dict[str, object] = {"retry_s": 0.01, "idle_timeout_s": 10.0} | changes
    return DeviceConfig(name, "127.0.0.1", port, folder / name, **settings)  # type: ignore[arg-type]


def audit(folder: Path) -> list[dict[str, object]]:
    text = (folder / "edge" / "audit.jsonl").read_text()
    return [json.loads(line) for line in text.splitlines()]


async def finish(device: Device, last: int, budget: int = 40_000) -> list[Outcome]:
    """Bring a device to the end of round ``last`` from wherever it is."""
    outcomes = []
    if device.spool.last_round > device.store.round_index:
        outcomes.append(await device.outcome(device.spool.last_round))
    while device.spool.last_round < last:
        k = device.spool.last_round + 1
        outcomes.append(await device.outcome(device.submit(Capture(batch(k), 5, budget))))
    await asyncio.wait_for(device.settled(), 10)
    return outcomes


@asynccontextmanager
async def proxied(
    folder: Path, *, secure: bool = False
) -> AsyncIterator[tuple[EdgeService, LinkProxy, DeviceConfig]]:
    async with EdgeService(serve_config(folder, secure=secure), adapt) as edge:
        bundle = issue_bundle(edge.keys, "cam") if secure else None
        proxy = LinkProxy(FAST, ("127.0.0.1", edge.port))
        try:
            yield edge, proxy, device_config(folder, proxy.port, bundle=bundle)
        finally:
            await asyncio.to_thread(proxy.close)
