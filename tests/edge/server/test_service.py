"""Edge and device over real sockets: whole rounds, through cuts, restarts and full disks."""

from __future__ import annotations

import asyncio
import errno
import hashlib
import json
import random
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import pytest

from endedge.data.errors import BadInput
from endedge.edge.server.journal import DeviceRounds
from endedge.edge.server.keys import create_keys, issue_bundle
from endedge.edge.server.service import EdgeService, Job, Limits, ServeConfig
from endedge.end.client.client import Capture, Device, DeviceConfig, Outcome
from endedge.end.client.main import device_main
from endedge.link.channel import Capacity, Channel, DuplexLink
from endedge.link.connection import file_chunks
from endedge.link.messages import Data
from endedge.link.shaper import Direction, LinkProxy

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


@pytest.mark.parametrize("secure", [False, True])
def test_rounds_equal_the_loop_without_a_network(tmp_path: Path, secure: bool) -> None:
    async def run() -> None:
        async with EdgeService(serve_config(tmp_path, secure=secure), adapt) as edge:
            bundle = issue_bundle(edge.keys, "cam") if secure else None
            config = device_config(tmp_path, edge.port, bundle=bundle, link=FAST)
            async with Device(config, install, lambda model: 0.5) as device:
                outcomes = await finish(device, 3)
                assert device.store.model is not None
                assert device.store.model.read_bytes() == expected_model("cam", 3, 40_000)
            assert [(o.status, o.map50_95) for o in outcomes] == [("applied", 0.5)] * 3
            async with Device(config, install) as device:  # a second process life
                await finish(device, 4)
                assert device.store.model is not None
                assert device.store.model.read_bytes() == expected_model("cam", 4, 40_000)
            (row,) = edge.rows()
            assert (row.batches, row.frames, row.upload_bytes) == (4, 20, 240_000)
            assert (row.applied_round, row.missed) == (4, 0)

    asyncio.run(run())
    events = [str(entry["event"]) for entry in audit(tmp_path)]
    assert [events.count(e) for e in ("enrolled", "stored", "adapted", "applied")] == [1, 4, 4, 4]
    left = {path.name for path in (tmp_path / "edge" / "devices" / "cam").iterdir()}
    assert left == {"state.json"}


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


@pytest.mark.parametrize(
    ("broken", "why"),
    [
        (lambda job: 1 // 0, "ZeroDivisionError"),
        (lambda job: bytes(job.budget_bytes + 1), "package of 40001 bytes"),
        (lambda job: b"", "package of 0 bytes"),
    ],
)
def test_failed_job_is_reported_as_missed(
    tmp_path: Path, broken: Callable[[Job], bytes], why: str
) -> None:
    def sometimes(job: Job) -> bytes:
        return broken(job) if job.round_index == 1 else adapt(job)

    async def run() -> None:
        async with (
            EdgeService(serve_config(tmp_path), sometimes) as edge,
            Device(device_config(tmp_path, edge.port), install) as device,
        ):
            first, second = await finish(device, 2)
            assert first.status == "missed"
            assert why in first.reason
            assert second.status == "applied"
            assert edge.rows()[0].missed == 1

    asyncio.run(run())


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


def test_update_that_will_not_apply_is_reported(tmp_path: Path) -> None:
    def picky(package: bytes, base: Path | None, target: Path) -> None:
        if base is None:
            raise BadInput("needs a base")
        install(package, base, target)

    async def run() -> None:
        async with (
            EdgeService(serve_config(tmp_path), adapt) as edge,
            Device(device_config(tmp_path, edge.port), picky) as device,
        ):
            (outcome,) = await finish(device, 1)
            assert outcome.status == "missed"
            assert "needs a base" in outcome.reason
            assert device.store.model is None
            assert edge.rows()[0].missed == 1

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


def test_many_devices_share_compute_and_see_only_their_own(tmp_path: Path) -> None:
    order: list[str] = []

    def noting(job: Job) -> bytes:
        order.append(job.device_id)
        return adapt(job)

    async def one(edge: EdgeService, name: str) -> None:
        async with Device(device_config(tmp_path, edge.port, name), install) as device:
            await finish(device, 3)
            assert device.store.model is not None
            assert device.store.model.read_bytes() == expected_model(name, 3, 40_000)

    async def run() -> None:
        async with EdgeService(serve_config(tmp_path), noting) as edge:
            await asyncio.gather(*(one(edge, f"cam-{k}") for k in range(6)))
            assert [row.applied_round for row in edge.rows()] == [3] * 6

    asyncio.run(run())
    assert len(order) == 18


def test_upload_rate_limit_reads_more_slowly(tmp_path: Path) -> None:
    async def run() -> float:
        limits = Limits(upload_bytes_per_s=200_000)
        async with (
            EdgeService(serve_config(tmp_path, limits=limits), adapt) as edge,
            Device(device_config(tmp_path, edge.port), install) as device,
        ):
            (outcome,) = await finish(device, 1)
            return outcome.seconds

    assert asyncio.run(run()) > 0.2  # 60 kB at 200 kB/s, less the last piece


def test_a_batch_beyond_the_limits_is_missed_and_the_next_one_goes(tmp_path: Path) -> None:
    async def run() -> None:
        limits = Limits(upload_bytes=50_000, frames=5, update_bytes=1000)
        async with (
            EdgeService(serve_config(tmp_path, limits=limits), adapt) as edge,
            Device(device_config(tmp_path, edge.port), install) as device,
        ):
            for capture in (
                Capture(bytes(50_001), 5, 1000),
                Capture(b"x", 6, 1000),
                Capture(b"x", 0, 1000),
                Capture(b"x", 5, 1001),
            ):
                outcome = await asyncio.wait_for(device.outcome(device.submit(capture)), 10)
                assert outcome.status == "missed"
                assert "the edge takes" in outcome.reason
            outcome = await device.outcome(device.submit(Capture(bytes(50_000), 5, 1000)))
            assert outcome.status == "applied"
            with pytest.raises(BadInput, match="cannot listen"):
                async with EdgeService(serve_config(tmp_path / "b", edge.port), adapt):
                    pass

    asyncio.run(run())
    assert not any(entry["event"] == "refused" for entry in audit(tmp_path))


def test_not_loopback_needs_tls_and_tokens(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="secure"):
        ServeConfig(tmp_path, host="0.0.0.0")
    with pytest.raises(BadInput, match="bundle"):
        DeviceConfig("cam", "192.0.2.1", 1, tmp_path)
    assert ServeConfig(tmp_path, host="0.0.0.0", secure=True).secure


def test_edge_that_changed_its_key_is_refused(tmp_path: Path) -> None:
    async def run() -> None:
        async with (
            EdgeService(serve_config(tmp_path), adapt) as edge,
            Device(device_config(tmp_path, edge.port), install) as device,
        ):
            await finish(device, 1)
        async with (
            EdgeService(serve_config(tmp_path / "other"), adapt) as edge,
            Device(device_config(tmp_path, edge.port), install) as device,
        ):
            with pytest.raises(BadInput, match="not the one"):
                await finish(device, 2)
        stranger = create_keys(tmp_path / "stranger")
        bundle = issue_bundle(stranger, "cam9")
        async with (
            EdgeService(serve_config(tmp_path / "third", secure=True), adapt) as edge,
            Device(device_config(tmp_path, edge.port, "cam9", bundle=bundle), install) as device,
        ):
            with pytest.raises(BadInput, match="certificate"):
                await finish(device, 1)

    asyncio.run(run())


def test_device_main_reports_a_missed_deadline_and_goes_on(tmp_path: Path) -> None:
    release = threading.Event()

    def stuck_once(job: Job) -> bytes:
        if job.round_index == 1:
            release.wait(10)
        return adapt(job)

    def capture(round_index: int, model: Path | None) -> Capture | None:
        if round_index == 2:
            release.set()
        return Capture(batch(round_index), 5, 40_000) if round_index <= 2 else None

    async def run() -> list[Outcome]:
        async with EdgeService(serve_config(tmp_path), stuck_once) as edge:
            config = device_config(tmp_path, edge.port)
            return await asyncio.to_thread(device_main, config, capture, install, deadline_s=0.5)

    first, second = asyncio.run(run())
    assert (first.status, first.reason) == ("missed", "no update within 0.5 s")
    assert second.round_index == 2
