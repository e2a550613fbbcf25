"""Cuts, restarts and full disks between edge and device: afterwards nothing shows of them."""

from __future__ import annotations

import asyncio
import errno
import random
import threading
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest

from endedge.edge.server.journal import DeviceRounds
from endedge.edge.server.service import EdgeService, Job
from endedge.end.client.client import Capture, Device
from endedge.link.channel import Capacity, Channel, DuplexLink
from endedge.link.connection import file_chunks
from endedge.link.messages import Data
from endedge.link.shaper import Direction
from tests.edge.server.rounds import (
    adapt,
    audit,
    batch,
    device_config,
    expected_model,
    finish,
    install,
    proxied,
    serve_config,
)


@pytest.mark.parametrize("secure", [False, True])
def test_cut_at_any_byte(tmp_path: Path, secure: bool) -> None:
    """Cut points over the whole dialogue, both ways; afterwards nothing shows of them."""
    dice = random.Random(11 + secure)
    cuts: list[tuple[Direction, int]] = [("up", 0), ("up", 1), ("down", 0), ("down", 1)]
    cuts += [("up", dice.randrange(0, 62_000)) for _ in range(6)]
    cuts += [("down", dice.randrange(0, 42_000)) for _ in range(4)]

    async def run() -> None:
        async with proxied(tmp_path, secure=secure) as (edge, proxy, config):
            async with Device(config, install) as device:
                for k, (direction, n_bytes) in enumerate(cuts, start=1):
                    proxy.cut_after(direction, n_bytes)
                    (outcome,) = await asyncio.wait_for(finish(device, k), 20)
                    assert outcome.status == "applied", (direction, n_bytes, outcome)
                assert device.store.model is not None
                assert device.store.model.read_bytes() == expected_model("cam", len(cuts), 40_000)
            (row,) = edge.rows()
            assert (row.batches, row.frames) == (len(cuts), 5 * len(cuts))
            assert row.upload_bytes == 60_000 * len(cuts)
            assert row.missed == 0

    asyncio.run(run())
    assert any(entry["event"] == "resumed" for entry in audit(tmp_path))


def test_chunks_that_change_places_at_the_end_are_asked_for_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second of two chunks comes first and is dropped, and nothing comes after that would
    show the gap: found by the fault campaign, where both sides waited for ever."""

    def swapped(times: Iterator[int], path: Path, round_index: int, offset: int) -> Iterator[Data]:
        chunks = list(file_chunks(path, round_index, offset))
        if next(times, None) is not None:
            chunks[-2:] = reversed(chunks[-2:])
        yield from chunks

    up, down = iter(range(1)), iter(range(1))
    monkeypatch.setattr("endedge.end.client.client.file_chunks", partial(swapped, up))
    monkeypatch.setattr("endedge.edge.server.session.file_chunks", partial(swapped, down))

    async def run() -> None:
        async with EdgeService(serve_config(tmp_path, heartbeat_s=0.05), adapt) as edge:
            config = device_config(tmp_path, edge.port, heartbeat_s=0.05)
            async with Device(config, install) as device:
                round_index = device.submit(Capture(batch(1, 30_000), 5, 30_000))
                outcome = await asyncio.wait_for(device.outcome(round_index), 10)
            assert outcome.status == "applied"
            (row,) = edge.rows()
            assert (row.batches, row.upload_bytes) == (1, 30_000)

    asyncio.run(run())
    assert [*up, *down] == []  # both directions were swapped


def test_server_restarted_mid_upload_and_mid_training(tmp_path: Path) -> None:
    started, go_on = threading.Event(), threading.Event()

    def slow_adapt(job: Job) -> bytes:
        started.set()
        go_on.wait(10)
        return adapt(job)

    slow = DuplexLink(Channel(Capacity.constant(4e6)), Channel(Capacity.constant(400e6)))

    async def run() -> None:
        async with EdgeService(serve_config(tmp_path), slow_adapt) as edge:
            port = edge.port
            device = Device(device_config(tmp_path, port, link=slow), install)
            await device.__aenter__()
            round_index = device.submit(Capture(batch(1), 5, 40_000))
            part = tmp_path / "edge" / "devices" / "cam" / "upload.part"
            while not (part.is_file() and part.stat().st_size > 20_000):
                await asyncio.sleep(0.005)
        async with EdgeService(serve_config(tmp_path, port), slow_adapt):
            while not started.is_set():
                await asyncio.sleep(0.005)
        go_on.set()
        async with EdgeService(serve_config(tmp_path, port), adapt) as edge:
            outcome = await asyncio.wait_for(device.outcome(round_index), 20)
            await device.settled()
            assert outcome.status == "applied"
            assert device.store.model is not None
            assert device.store.model.read_bytes() == expected_model("cam", 1, 40_000)
            assert edge.rows()[0].upload_bytes == 60_000
            await device.__aexit__()

    asyncio.run(run())
    resumed = [entry for entry in audit(tmp_path) if entry["event"] == "resumed"]
    assert resumed
    assert int(str(resumed[0]["offset"])) > 0


def test_a_batch_that_kills_the_server_is_given_up(tmp_path: Path) -> None:
    async def run() -> None:
        never = threading.Event()
        deaths, port = 0, 0
        async with EdgeService(serve_config(tmp_path), lambda job: bytes(never.wait(0.1))) as edge:
            port = edge.port
        async with Device(device_config(tmp_path, port), install) as device:
            round_index = device.submit(Capture(batch(1), 5, 100))
            for _ in range(3):  # each life ends while the job runs
                running = threading.Event()

                def hang(job: Job, running: threading.Event = running) -> bytes:
                    running.set()
                    never.wait(0.5)
                    return b""

                async with EdgeService(serve_config(tmp_path, port), hang):
                    while not running.is_set():
                        await asyncio.sleep(0.005)
                    deaths += 1
            async with EdgeService(serve_config(tmp_path, port), adapt):
                outcome = await asyncio.wait_for(device.outcome(round_index), 10)
            assert deaths == 3
            assert outcome.status == "missed"

    asyncio.run(run())


def test_full_disk_on_either_side_delays_and_loses_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    full = {"append": 2, "finish": 1, "count_attempt": 1, "save_package": 2, "apply": 2}
    asked: list[int] = []

    def adapt_once(job: Job) -> bytes:
        asked.append(job.round_index)
        return adapt(job)

    def failing(real: Callable[..., object], name: str) -> Callable[..., object]:
        def step(*args: object) -> object:
            if full[name] > 0:
                full[name] -= 1
                raise OSError(errno.ENOSPC, "No space left on device")
            return real(*args)

        return step

    for module in ("session", "service"):
        monkeypatch.setattr(f"endedge.edge.server.{module}.RETRY_S", 0.05)
    for name in ("append", "finish", "count_attempt", "save_package"):
        monkeypatch.setattr(DeviceRounds, name, failing(getattr(DeviceRounds, name), name))

    async def run() -> None:
        async with (
            EdgeService(serve_config(tmp_path), adapt_once) as edge,
            Device(device_config(tmp_path, edge.port), install) as device,
        ):
            monkeypatch.setattr(device.store, "apply", failing(device.store.apply, "apply"))
            (outcome,) = await asyncio.wait_for(finish(device, 1), 20)
            assert outcome.status == "applied"
            assert edge.rows()[0].upload_bytes == 60_000
            assert device.store.model is not None
            assert device.store.model.read_bytes() == expected_model("cam", 1, 40_000)

    asyncio.run(run())
    assert not any(full.values())
    assert asked == [1]  # a package that the disk did not take is kept, not made again
    assert [entry["event"] for entry in audit(tmp_path)].count("disk_error") == 6
