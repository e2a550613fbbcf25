"""Peers that have proved nothing: refused, noted, and nobody else notices."""

from __future__ import annotations

import asyncio
import contextlib
import json
import struct
from dataclasses import replace
from pathlib import Path

import pytest

from endedge.data.errors import BadInput
from endedge.edge.server.keys import issue_bundle
from endedge.edge.server.service import EdgeService
from endedge.end.client.client import Device, DeviceConfig
from endedge.link import messages as m
from tests.edge.server.kit import (
    KEY,
    LIMITS,
    Peer,
    drained,
    edge_on,
    events,
    honest_round,
    install,
)

GARBAGE = [
    b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
    bytes(1000),
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc" + bytes(500),  # a TLS hello
    struct.pack("!2sBBI", b"EE", 1, 64, 2**32 - 1) + bytes(100_000),  # 4 GiB announced
    struct.pack("!2sBBI", b"EE", 1, 33, 70) + b"\xff\xff" + bytes(68),  # a text of 65,535 bytes
    struct.pack("!2sBBI", b"EE", 9, 33, 0),
    struct.pack("!2sBBI", b"EE", 1, 36, 48) + bytes(48),  # a result before any greeting
]


@pytest.mark.parametrize("secure", [False, True])
def test_garbage_and_oversized_lengths(tmp_path: Path, secure: bool) -> None:
    async def throw(edge: EdgeService, garbage: bytes) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", edge.port)
        with contextlib.suppress(ConnectionError):
            writer.write(garbage)
            await writer.drain()
            await drained(reader)  # the edge must end it
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()

    async def run() -> None:
        async with edge_on(tmp_path, secure=secure) as edge:
            for garbage in GARBAGE:
                await throw(edge, garbage)
            await honest_round(tmp_path, edge, secure)
            assert [row.device_id for row in edge.rows()] == ["honest"]

    asyncio.run(run())
    seen = events(tmp_path)
    assert seen.count("refused") + seen.count("disconnected") >= len(GARBAGE)


def test_authenticated_slow_loris_and_silence_are_dropped(tmp_path: Path) -> None:
    async def run() -> None:
        async with edge_on(tmp_path) as edge, Peer.open(edge) as peer:
            frame = m.encode(m.Offer(1, 10, bytes(32), 1, 1))
            with contextlib.suppress(OSError):
                for k in range(len(frame)):  # 0.1 s a byte: never whole within the second
                    peer.raw.write(frame[k : k + 1])
                    await asyncio.sleep(0.1)
                    if not edge.rows()[0].connected:
                        break
            assert not edge.rows()[0].connected

    asyncio.run(run())


def test_wrong_token_and_unknown_device(tmp_path: Path) -> None:
    async def run() -> None:
        async with edge_on(tmp_path, secure=True) as edge:
            bundle = issue_bundle(edge.keys, "cam")
            stolen = json.loads(bundle.read_text()) | {"token": "x" * 43}
            (tmp_path / "stolen.json").write_text(json.dumps(stolen))
            config = DeviceConfig(
                "cam", "127.0.0.1", edge.port, tmp_path / "thief", bundle=tmp_path / "stolen.json"
            )
            async with Device(config, install) as thief:
                with pytest.raises(BadInput, match="wrong or used token"):
                    await asyncio.wait_for(thief.outcome(1), 5)
            plain = DeviceConfig(
                "cam", "127.0.0.1", edge.port, tmp_path / "plain", idle_timeout_s=6
            )
            async with Device(plain, install) as other:  # no TLS at all: never gets in
                with pytest.raises(TimeoutError):
                    await asyncio.wait_for(other.outcome(1), 0.3)
            assert edge.rows() == []
            await honest_round(tmp_path, edge, secure=True)

    asyncio.run(run())
    assert "refused" in events(tmp_path)


def test_replayed_hello_is_refused(tmp_path: Path) -> None:
    async def run() -> None:
        async with edge_on(tmp_path) as edge:
            async with Peer.open(edge):
                pass
            replayed = None
            for attempt in range(2):
                async with Peer.knock(edge) as peer:
                    challenge = await peer.hear(m.Challenge)
                    if replayed is None:
                        statement = m.hello_statement(challenge.nonce, challenge.edge_key, "peer")
                        replayed = m.Hello("peer", KEY.sign(statement))
                    peer.say(replayed)
                    if attempt == 0:
                        await peer.hear(m.Welcome)
                    else:
                        assert "prove" in (await peer.hear(m.Refused)).reason

    asyncio.run(run())


def test_metrics_endpoint_takes_nothing_but_its_question(tmp_path: Path) -> None:
    async def ask(port: int, request: bytes) -> bytes:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        answer = b""
        with contextlib.suppress(ConnectionError):
            writer.write(request)
            writer.write_eof()
            answer = await asyncio.wait_for(reader.read(), 5)
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()
        return answer

    async def run() -> None:
        async with edge_on(tmp_path) as edge, Peer.open(edge):
            good = await ask(edge.metrics_port, b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n")
            assert good.startswith(b"HTTP/1.1 200")
            assert b'endedge_connected{device="peer"} 1\n' in good
            assert b'endedge_events_total{event="enrolled"} 1\n' in good
            assert b" 404 " in await ask(edge.metrics_port, b"GET / HTTP/1.1\r\n\r\n")
            for bad in (b"", b"x" * 100_000, b"GET /metrics HTTP/1.1\r\n"):
                assert b"endedge" not in await ask(edge.metrics_port, bad)

    asyncio.run(run())


async def hold(port: int, stop: asyncio.Event, made: list[int]) -> None:
    """Connect, say nothing, and come back as soon as one is dropped (at most 2000 times)."""
    for _ in range(2000):
        if stop.is_set():
            return
        try:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
        except OSError:
            await asyncio.sleep(0.01)
            continue
        made[0] += 1
        ended = asyncio.create_task(drained(reader))
        stopped = asyncio.create_task(stop.wait())
        await asyncio.wait({ended, stopped}, return_when=asyncio.FIRST_COMPLETED)
        for task in (ended, stopped):
            task.cancel()
        await asyncio.wait({ended, stopped})
        writer.transport.abort()


@pytest.mark.parametrize("places", [40, 8])
def test_idle_peers_that_come_back_keep_nobody_out(tmp_path: Path, places: int) -> None:
    """64 of them against the default limits, and against fewer places than they are."""

    async def run() -> None:
        limits = replace(LIMITS, handshakes=places, handshake_s=20.0)
        async with edge_on(tmp_path, limits=limits) as edge:
            stop, made = asyncio.Event(), [0]
            holders = [asyncio.create_task(hold(edge.port, stop, made)) for _ in range(24)]
            while made[0] < 8:
                await asyncio.sleep(0.01)
            for k in range(3):
                async with asyncio.timeout(15), Peer.open(edge, f"new-{k}"):
                    pass
            stop.set()
            await asyncio.gather(*holders)

    asyncio.run(run())
    assert ("gave_way" in events(tmp_path)) == (places == 8)


def test_an_address_that_holds_most_gives_way_first(tmp_path: Path) -> None:
    """Loopback has many addresses: a crowd at one of them costs the others nothing."""

    async def run() -> None:
        limits = replace(LIMITS, handshakes=40, handshakes_per_address=6, handshake_s=20.0)
        async with edge_on(tmp_path, limits=limits) as edge:
            quiet = await asyncio.open_connection(
                "127.0.0.1", edge.port, local_addr=("127.0.0.2", 0)
            )
            crowd = [await asyncio.open_connection("127.0.0.1", edge.port) for _ in range(10)]
            async with asyncio.timeout(10):
                for reader, _ in crowd[:4]:  # its oldest had to go,
                    await drained(reader)
            assert not quiet[0].at_eof()  # not one who was there before them
            for _, writer in (quiet, *crowd):
                writer.transport.abort()

    asyncio.run(run())
    assert events(tmp_path).count("gave_way") == 4


def test_plain_and_tls_are_named_on_both_sides(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def run(secure: bool, bundle: Path | None, edge: EdgeService) -> str:
        config = DeviceConfig(
            "cam", "127.0.0.1", edge.port, tmp_path / f"cam-{secure}", bundle=bundle, retry_s=0.01
        )
        caplog.clear()
        async with Device(config, install):
            async with asyncio.timeout(10):
                while "next try in" not in caplog.text:
                    await asyncio.sleep(0.01)
        return caplog.text

    async def both() -> None:
        async with edge_on(tmp_path, secure=True) as edge:
            bundle = issue_bundle(edge.keys, "cam")
            assert "no TLS was tried" in await run(True, None, edge)
        async with edge_on(tmp_path / "plain") as edge:
            assert "is the edge started with --secure?" in await run(False, bundle, edge)

    with caplog.at_level("INFO", "endedge.device"):
        asyncio.run(both())
    assert "cannot reach the edge at 127.0.0.1" in caplog.text
    log = (tmp_path / "edge" / "audit.jsonl").read_text()
    assert "no TLS within" in log
    assert "peer speaks TLS" in (tmp_path / "plain" / "edge" / "audit.jsonl").read_text()
