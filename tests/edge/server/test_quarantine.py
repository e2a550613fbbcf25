"""Damaged files cost the device they are of, and nobody else."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from endedge.data.errors import BadInput
from endedge.edge.server.service import EdgeService, Job
from endedge.link import messages as m
from tests.edge.server.kit import (
    Peer,
    adapt,
    edge_on,
    events,
    honest_round,
    trace,
    whole_upload,
)


@pytest.fixture
def used(tmp_path: Path) -> Path:
    """The folder of a server on which device "evil" has a batch that was stored and a second one
    under way."""

    async def run() -> None:
        async with edge_on(tmp_path) as edge, Peer.open(edge, "evil") as peer:
            await whole_upload(peer)
            await peer.hear(m.Ready)
            peer.say(m.Offer(2, 100, bytes(32), 1, 100))
            await peer.hear(m.Accept)
            peer.say(m.Data(2, 0, b"x"))
            peer.say(m.Data(2, 5, b"x"))
            await peer.hear(m.Accept)

    asyncio.run(run())
    device = tmp_path / "edge" / "devices" / "evil"
    assert {path.name for path in device.iterdir()} == {
        "00000001.batch",
        "00000001.eeu",
        "00000001.json",
        "state.json",
        "upload.json",
        "upload.part",
    }
    return tmp_path


def cut(device: Path) -> None:
    path = device / "state.json"
    path.write_bytes(path.read_bytes()[:20])


DAMAGES: dict[str, Callable[[Path], object]] = {
    "state.json cut": cut,
    "state.json a list": lambda device: (device / "state.json").write_text("[]"),
    "state.json a text": lambda device: (device / "state.json").write_text('{"stored_round":"x"}'),
    "state.json negative": lambda device: (device / "state.json").write_text('{"batches":-1}'),
    "upload.json empty": lambda device: (device / "upload.json").write_text(""),
    "upload.json {}": lambda device: (device / "upload.json").write_text("{}"),
    "batch without its offer": lambda device: (device / "00000001.json").unlink(),
    "offer garbage": lambda device: (device / "00000001.json").write_text("{"),
}


@pytest.mark.parametrize("name", DAMAGES)
def test_a_damaged_device_is_kept_apart_with_its_reason(used: Path, name: str) -> None:
    device = used / "edge" / "devices" / "evil"
    backup = shutil.copytree(device, used / "backup")
    DAMAGES[name](device)

    async def run() -> None:
        async with edge_on(used) as edge:
            (row,) = edge.rows()
            assert row.quarantined
            assert "is damaged" in row.doing
            assert "evil/" in row.doing  # the file is named
            async with Peer.knock(edge) as peer:
                await peer.enrol("evil")
                assert "damaged" in await peer.told_to_go()
            await honest_round(used, edge)
            assert 'endedge_quarantined{device="evil"} 1' in edge.metrics()
            shutil.rmtree(device)
            shutil.copytree(backup, device)  # mended: no restart is needed
            async with Peer.open(edge, "evil") as peer:
                assert (await peer.hear(m.Ready)).round_index == 1
            assert not any(row.quarantined for row in edge.rows())

    asyncio.run(run())
    assert "quarantined" in events(used)


STRAYS: dict[str, Callable[[Path], object]] = {
    "a copied batch": lambda devices: (devices / "evil" / "1 copy.batch").write_text("x"),
    "a note": lambda devices: (devices / "evil" / "7.txt").write_text("x"),
    "lost+found": lambda devices: (devices / "lost+found").mkdir(),
    "a backup": lambda devices: shutil.copytree(devices / "evil", devices / "evil.bak"),
    "a copy": lambda devices: shutil.copytree(devices / "evil", devices / "evil2"),
    "a file": lambda devices: (devices / "readme").write_text("x"),
}


@pytest.mark.parametrize("name", STRAYS)
def test_what_is_not_ours_is_left_alone(used: Path, name: str) -> None:
    STRAYS[name](used / "edge" / "devices")

    async def run() -> None:
        async with edge_on(used) as edge:
            async with Peer.open(edge, "evil") as peer:
                assert (await peer.hear(m.Ready)).round_index == 1
                peer.say(m.Applied(1, bytes(32), 0.5))
                await peer.hear(m.Noted)
            assert [row.device_id for row in edge.rows()] == ["evil"]
            await honest_round(used, edge)

    asyncio.run(run())


@pytest.mark.parametrize(
    ("spoil", "why"),
    [
        (lambda edge: (edge / "keys" / "signing.key").unlink(), "put back"),
        (lambda edge: (edge / "keys" / "signing.key").write_text(""), "put back"),
        (lambda edge: (edge / "keys" / "tls.key").unlink(), "tls.key"),
        (
            lambda edge: (
                (edge / "audit.jsonl").rename(edge / "x") and (edge / "audit.jsonl").mkdir()
            ),
            "audit.jsonl",
        ),
        (
            lambda edge: (
                (edge / "devices").rename(edge / "y") and (edge / "devices").write_text("x")
            ),
            "cannot keep devices",
        ),
    ],
)
def test_the_edge_says_in_one_line_why_it_does_not_start(
    used: Path, spoil: Callable[[Path], object], why: str
) -> None:
    """A lost signing key above all: another one would be another edge to every device."""
    spoil(used / "edge")

    async def run() -> None:
        async with edge_on(used):
            pass

    with pytest.raises(BadInput, match=why) as caught:
        asyncio.run(run())
    assert "\n" not in str(caught.value)


def test_a_device_whose_files_break_while_the_edge_runs(tmp_path: Path) -> None:
    """The worker goes on, and so does the job of the next device."""

    def spoiling(job: Job) -> bytes:
        if job.device_id == "one":
            device = tmp_path / "edge" / "devices" / "one"
            (device / "00000001.json").write_text("{")
            (device / "00000002.batch").write_bytes(b"x")
            (device / "upload.json").write_text("")
        return adapt(job)

    async def run() -> None:
        async with edge_on(tmp_path, jobs=spoiling) as edge:
            async with Peer.open(edge, "one") as one:
                await whole_upload(one)
                await one.hear(m.Ready)
                one.say(m.Applied(1, bytes(32), 0.5))
                with contextlib.suppress(ConnectionError):
                    while True:  # until it is cut off
                        await one.connection.receive()
            await honest_round(tmp_path, edge)
            assert [row.device_id for row in edge.rows() if row.quarantined] == ["one"]

    asyncio.run(run())


def test_a_bug_in_a_worker_costs_one_device(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = EdgeService._run

    async def buggy(self: EdgeService, device: object, *rest: object) -> str | None:
        if getattr(device, "device_id", "") == "one":
            raise RuntimeError("a bug of ours")
        return await real(self, device, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(EdgeService, "_run", buggy)

    async def run() -> None:
        async with edge_on(tmp_path) as edge:
            async with Peer.open(edge, "one") as one:
                await whole_upload(one)
                with pytest.raises(ConnectionError):
                    await one.hear(m.Ready)
            await honest_round(tmp_path, edge)

    asyncio.run(run())
    (entry,) = [e for e in trace(tmp_path) if e["event"] == "quarantined"]
    assert entry["device"] == "one"
    assert "a bug of ours" in str(entry["why"])
