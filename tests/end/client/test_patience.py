"""A device on a bad link: it waits, says for what, and gives up only what will never be."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from endedge.data.errors import BadInput
from endedge.edge.server.service import EdgeService, Limits, ServeConfig
from endedge.end.client.client import Capture, Device, DeviceConfig
from endedge.link import messages as m
from endedge.link.connection import Connection
from tests.edge.server.kit import adapt, install


@asynccontextmanager
async def stalled(port: int, seconds: float) -> AsyncIterator[int]:
    """A relay to ``port`` whose first connection holds back, for a while, all the edge says."""
    stalls = iter([seconds])

    async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, s: float) -> None:
        await asyncio.sleep(s)
        with contextlib.suppress(OSError):
            while data := await reader.read(65536):
                writer.write(data)
                await writer.drain()
        writer.close()

    async def relay(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        far_reader, far_writer = await asyncio.open_connection("127.0.0.1", port)
        await asyncio.gather(
            pump(reader, far_writer, 0.0), pump(far_reader, writer, next(stalls, 0.0))
        )

    server = await asyncio.start_server(relay, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()


@pytest.mark.parametrize("patience_s", [5.0, 0.2])
def test_a_link_that_stalls_right_after_connecting(tmp_path: Path, patience_s: float) -> None:
    """For ten heartbeats; the edge waits that long for the greeting, or it does not."""

    async def run() -> None:
        limits = Limits(handshake_s=patience_s, penalty_s=0.05)
        config = ServeConfig(tmp_path / "edge", port=0, limits=limits)
        async with EdgeService(config, adapt) as edge, stalled(edge.port, 1.0) as port:
            mine = DeviceConfig(
                "cam", "127.0.0.1", port, tmp_path / "cam", heartbeat_s=0.1, retry_s=0.05
            )
            async with Device(mine, install) as device:
                round_index = device.submit(Capture(b"frames", 1, 100))
                outcome = await asyncio.wait_for(device.outcome(round_index), 20)
            assert outcome.status == "applied"

    asyncio.run(run())


@asynccontextmanager
async def saying(*answers: m.Message) -> AsyncIterator[tuple[int, list[m.Message]]]:
    """An edge that challenges, then gives one answer a connection, the last one for ever."""
    heard: list[m.Message] = []
    left = list(answers)

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connection = Connection(reader, writer, heartbeat_s=60, idle_timeout_s=5)
        connection.start()
        with contextlib.suppress(ConnectionError):
            connection.post(m.Challenge(bytes(32), bytes(range(32))))
            heard.append(await connection.receive())
            await connection.close(left.pop(0) if len(left) > 1 else left[0])

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1], heard
    finally:
        server.close()


def run_device(tmp_path: Path, *answers: m.Message) -> list[m.Message]:
    async def run() -> list[m.Message]:
        async with saying(*answers) as (port, heard):
            mine = DeviceConfig("cam", "127.0.0.1", port, tmp_path / "cam", retry_s=0.01)
            async with Device(mine, install) as device:
                await asyncio.wait_for(device.outcome(1), 10)
        return heard

    return asyncio.run(run())


def test_a_refusal_for_now_is_waited_for_and_one_for_good_is_the_end(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "endedge.device")
    with pytest.raises(BadInput, match="refuses this device: wrong token"):
        run_device(tmp_path, m.Deferred(0.3, "disk is full"), m.Refused("wrong token"))
    lines = [record.getMessage() for record in caplog.records]
    (waiting,) = [line for line in lines if "disk is full" in line]
    assert "next try in 0.3 s" in waiting


@pytest.mark.parametrize("retry_s", [float("nan"), float("-inf"), -1.0])
def test_times_that_mean_nothing_are_no_hurry_and_no_crash(tmp_path: Path, retry_s: float) -> None:
    with pytest.raises(BadInput):
        run_device(tmp_path, m.Deferred(retry_s, "x"), m.Refused("y"))


def test_escape_sequences_of_an_edge_reach_no_terminal(tmp_path: Path) -> None:
    with pytest.raises(BadInput) as caught:
        run_device(tmp_path, m.Refused("\x1b[2Jgone\u202e"))
    assert str(caught.value).isprintable()


def test_nobody_there_is_said_at_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async def run() -> None:
        mine = DeviceConfig("cam", "127.0.0.1", 9, tmp_path / "cam", retry_s=0.01)
        async with Device(mine, install), asyncio.timeout(10):
            while "next try in" not in caplog.text:
                await asyncio.sleep(0.01)

    with caplog.at_level("WARNING", "endedge.device"):
        asyncio.run(run())
    assert "cannot reach the edge at 127.0.0.1:9" in caplog.text


@pytest.mark.parametrize(
    ("name", "spoil"),
    [
        ("device.key", lambda path: path.write_text("zz")),
        ("device.key", lambda path: path.write_text("00")),
        ("edge.key", lambda path: path.write_text("")),
        ("spool/last_round", lambda path: path.write_text("x")),
    ],
)
def test_a_damaged_file_of_the_device_is_named(tmp_path: Path, name: str, spoil: Any) -> None:
    config = DeviceConfig("cam", "127.0.0.1", 9, tmp_path)

    async def start() -> None:
        Device(config, install)

    asyncio.run(start())
    spoil(tmp_path / name)
    with pytest.raises(BadInput, match="is damaged"):
        asyncio.run(start())


def test_strays_in_the_spool_are_left_alone(tmp_path: Path) -> None:
    async def start() -> Device:
        return Device(DeviceConfig("cam", "127.0.0.1", 9, tmp_path), install)

    asyncio.run(start())
    (tmp_path / "spool" / "1 copy.batch").write_text("x")
    (tmp_path / "models" / "incoming" / "a b.part").write_text("x")
    assert asyncio.run(start()).spool.first() is None
