"""Edge and device over real sockets: whole rounds, failed jobs, limits."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from endedge.data.errors import BadInput
from endedge.edge.server.keys import create_keys, issue_bundle
from endedge.edge.server.service import EdgeService, Job, Limits, ServeConfig
from endedge.end.client.client import Capture, Device, DeviceConfig, Outcome
from endedge.end.client.main import device_main
from tests.edge.server.rounds import (
    FAST,
    adapt,
    audit,
    batch,
    device_config,
    expected_model,
    finish,
    install,
    serve_config,
)


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
