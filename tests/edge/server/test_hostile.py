"""Peers that mean harm: refused, noted, and nobody else notices."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import math
import socket
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from endedge.data.errors import BadInput
from endedge.edge.server.keys import issue_bundle
from endedge.edge.server.service import EdgeService, Job, Limits, ServeConfig

from endedge.end.client.client import Capture, Device, DeviceConfig
from endedge.link import messages as m
from endedge.link.connection import Connection

LIMITS = Limits(upload_bytes=100_000, frames=10, update_bytes=50_000, handshakes=8, handshake_s=0.4)
T = TypeVar("T", bound=m.Message)
KEY = Ed25519PrivateKey.generate()


def adapt(job: Job) -> bytes:
    return hashlib.sha256(job.batch).digest()


def install(package: bytes, base: Path | None, target: Path) -> None:
    target.write_bytes(package)


@asynccontextmanager
async def edge_on(folder: Path, *, secure: bool = False) -> AsyncIterator[EdgeService]:
    config = ServeConfig(
        folder / "edge",
        port=0,
        metrics_port=0,
        secure=secure,
        limits=LIMITS,
        heartbeat_s=0.2,
        idle_timeout_s=1.0,
    )
    async with EdgeService(config, adapt) as edge:
        yield edge


async def honest_round(folder: Path, edge: EdgeService, secure: bool = False) -> None:
    bundle = issue_bundle(edge.keys, "honest") if secure else None
    config = DeviceConfig(
        "honest", "127.0.0.1", edge.port, folder / "honest", bundle=bundle, retry_s=0.05
    )
    async with Device(config, install) as device:
        for _ in range(2):
            round_index = device.submit(Capture(b"frames" * 1000, 3, 100))
            outcome = await asyncio.wait_for(device.outcome(round_index), 10)
            assert outcome.status == "applied"


class Peer:
    """A device made of bare messages, which may say anything."""

    def __init__(
        self, edge: EdgeService, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ):
        self._edge = edge
        self.raw = writer
        self.connection = Connection(reader, writer, heartbeat_s=60, idle_timeout_s=5)

    @classmethod
    @asynccontextmanager
    async def open(cls, edge: EdgeService, name: str = "peer") -> AsyncIterator[Peer]:
        """An enrolled and welcomed peer."""
        reader, writer = await asyncio.open_connection("127.0.0.1", edge.port)
        peer = cls(edge, reader, writer)
        peer.connection.start()
        try:
            challenge = await peer.hear(m.Challenge)
            signature = KEY.sign(m.hello_statement(challenge.nonce, challenge.edge_key, name))
            public = KEY.public_key().public_bytes_raw()
            peer.say(m.Enrol(name, "", public, signature))
            await peer.hear(m.Welcome)
            yield peer
        finally:
            await peer.connection.close()

    def say(self, *messages: m.Message) -> None:
        for message in messages:
            self.connection.post(message)

    async def hear(self, kind: type[T]) -> T:
        while True:
            message = await self.connection.receive()
            if isinstance(message, kind):
                return message
            assert isinstance(message, m.Ping), message

    async def refused(self) -> str:
        return (await self.hear(m.Refused)).reason


def offer_of(batch: bytes, round_index: int = 1) -> m.Offer:
    return m.Offer(round_index, len(batch), hashlib.sha256(batch).digest(), 3, 100)


def events(folder: Path) -> list[str]:
    text = (folder / "edge" / "audit.jsonl").read_text()
    return [json.loads(line)["event"] for line in text.splitlines()]


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
            while await asyncio.wait_for(reader.read(65536), 5):
                pass  # the edge must end it
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


@pytest.mark.parametrize("secure", [False, True])
def test_slow_loris_is_dropped_and_newcomers_are_limited(tmp_path: Path, secure: bool) -> None:
    async def run() -> None:
        async with edge_on(tmp_path, secure=secure) as edge:
            idle = [socket.create_connection(("127.0.0.1", edge.port)) for _ in range(30)]
            await asyncio.sleep(0.1)
            for one in idle:
                with contextlib.suppress(OSError):
                    one.send(b"E")  # one byte, then silence
            await honest_round(tmp_path, edge, secure)  # after the handshake limit at the latest
            for one in idle:
                one.settimeout(5)
                with contextlib.suppress(ConnectionError):
                    while one.recv(4096):
                        pass
                one.close()

    asyncio.run(run())
    assert events(tmp_path).count("turned_away") >= 22 - 2


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
                reader, writer = await asyncio.open_connection("127.0.0.1", edge.port)
                peer = Peer(edge, reader, writer)
                peer.connection.start()
                challenge = await peer.hear(m.Challenge)
                if replayed is None:
                    statement = m.hello_statement(challenge.nonce, challenge.edge_key, "peer")
                    replayed = m.Hello("peer", KEY.sign(statement))
                peer.say(replayed)
                if attempt == 0:
                    await peer.hear(m.Welcome)
                else:
                    assert "prove" in await peer.refused()
                await peer.connection.close()

    asyncio.run(run())


Talk = Callable[[Peer], Awaitable[None]]


async def _too_large(peer: Peer) -> None:
    peer.say(replace(offer_of(b"x"), size=100_001))


async def _too_many_frames(peer: Peer) -> None:
    peer.say(replace(offer_of(b"x"), frames=11))


async def _too_large_update(peer: Peer) -> None:
    peer.say(replace(offer_of(b"x"), budget_bytes=50_001))


async def _nothing(peer: Peer) -> None:
    peer.say(replace(offer_of(b"x"), size=0))


async def _unoffered(peer: Peer) -> None:
    peer.say(m.Data(1, 0, b"x"))


async def _beyond(peer: Peer) -> None:
    peer.say(offer_of(b"x" * 10))
    await peer.hear(m.Accept)
    peer.say(m.Data(1, 5, b"x" * 10))


async def _lying_hash(peer: Peer) -> None:
    peer.say(replace(offer_of(b"x" * 10), sha256=bytes(32)))
    for _ in range(3):
        assert (await peer.hear(m.Accept)).offset == 0
        peer.say(m.Data(1, 0, b"x" * 10))


async def _result_without_package(peer: Peer) -> None:
    peer.say(m.Applied(1, bytes(32), 0.5))


async def _impossible_map(peer: Peer) -> None:
    await whole_upload(peer)
    await peer.hear(m.Ready)
    peer.say(m.Applied(1, bytes(32), math.inf))


async def _fetch_beyond(peer: Peer) -> None:
    await whole_upload(peer)
    await peer.hear(m.Ready)
    peer.say(m.Fetch(1, 33))


async def _edges_words(peer: Peer) -> None:
    peer.say(m.Welcome(1, 1, 1, 1, 1))


async def whole_upload(peer: Peer) -> None:
    peer.say(offer_of(b"x" * 10))
    await peer.hear(m.Accept)
    peer.say(m.Data(1, 0, b"x" * 10))
    await peer.hear(m.Stored)


@pytest.mark.parametrize(
    ("talk", "why"),
    [
        (_too_large, "100001 batch bytes"),
        (_too_many_frames, "11 frames"),
        (_too_large_update, "50001 update bytes"),
        (_nothing, "0 batch bytes"),
        (_unoffered, "not offered"),
        (_beyond, "beyond"),
        (_lying_hash, "3 times"),
        (_result_without_package, "no package"),
        (_impossible_map, "mAP inf"),
        (_fetch_beyond, "shorter package"),
        (_edges_words, "unexpected Welcome"),
    ],
)
def test_an_enrolled_device_keeps_to_its_part(tmp_path: Path, talk: Talk, why: str) -> None:
    async def run() -> None:
        async with edge_on(tmp_path) as edge, Peer.open(edge) as peer:
            await talk(peer)
            assert why in await peer.refused()

    asyncio.run(run())


def test_duplicates_and_reordering_count_once(tmp_path: Path) -> None:
    batch = bytes(range(200)) * 100
    pieces = [m.Data(1, k, batch[k : k + 4000]) for k in range(0, len(batch), 4000)]

    async def run() -> None:
        async with edge_on(tmp_path) as edge, Peer.open(edge) as peer:
            peer.say(offer_of(batch), offer_of(batch))
            await peer.hear(m.Accept)
            await peer.hear(m.Accept)
            peer.say(pieces[0], pieces[0], pieces[2])  # twice, then a gap
            assert (await peer.hear(m.Accept)).offset == 4000
            peer.say(pieces[3], pieces[1], pieces[0], *pieces[2:], pieces[4])
            await peer.hear(m.Stored)
            ready = await peer.hear(m.Ready)
            peer.say(offer_of(batch))  # the whole batch once more
            await peer.hear(m.Stored)
            peer.say(m.Fetch(1, 0), m.Fetch(1, 0))
            data = await peer.hear(m.Data)
            assert hashlib.sha256(data.payload).digest() == ready.sha256
            peer.say(m.Applied(1, bytes(32), 0.5), m.Applied(1, bytes(32), 0.5))
            with contextlib.suppress(AssertionError):
                await peer.hear(m.Noted)
            (row,) = edge.rows()
            assert (row.batches, row.frames, row.upload_bytes) == (1, 3, len(batch))
            assert row.applied_round == 1

    asyncio.run(run())
    assert events(tmp_path).count("stored") == events(tmp_path).count("applied") == 1


def test_a_device_reaches_only_its_own_package(tmp_path: Path) -> None:
    async def run() -> None:
        async with edge_on(tmp_path) as edge, Peer.open(edge, "one") as one:
            await whole_upload(one)
            await one.hear(m.Ready)
            async with Peer.open(edge, "two") as two:
                two.say(m.Fetch(1, 0))
                assert "no such package" in (await two.hear(m.Missed)).reason
            one.say(m.Fetch(1, 0))
            assert len((await one.hear(m.Data)).payload) == 32

    asyncio.run(run())


def test_busy_edge_asks_to_wait(tmp_path: Path) -> None:
    async def run() -> None:
        limits = replace(LIMITS, pending_rounds=1)
        config = ServeConfig(tmp_path / "edge", port=0, limits=limits)
        async with EdgeService(config, adapt) as edge, Peer.open(edge) as peer:
            await whole_upload(peer)
            await peer.hear(m.Ready)
            peer.say(offer_of(b"y" * 10, 2))
            assert (await peer.hear(m.Busy)).round_index == 2
            peer.say(m.Failed(1, "no"), offer_of(b"y" * 10, 2))
            await peer.hear(m.Noted)
            assert (await peer.hear(m.Accept)).round_index == 2

    asyncio.run(run())


def test_tampering_edge_cannot_touch_the_model(tmp_path: Path) -> None:
    """An impostor who even holds the channel: unsigned, replayed and altered packages."""

    async def run() -> None:
        async with edge_on(tmp_path) as edge:
            await honest_round(tmp_path, edge)
            keys, port = edge.keys, edge.port
        package = b"evil"
        digest = hashlib.sha256(package).digest()
        old = hashlib.sha256(b"frames" * 1000).digest()
        old_digest = hashlib.sha256(old).digest()
        signed = keys.sign_update("honest", 3, 4, digest)
        said: list[m.Message] = [
            m.Ready(3, 4, digest, bytes(64)),
            m.Ready(3, 4, digest, Ed25519PrivateKey.generate().sign(b"x")),
            m.Ready(3, 4, digest, keys.sign_update("other", 3, 4, digest)),
            m.Ready(3, 32, old_digest, keys.sign_update("honest", 1, 32, old_digest)),
            m.Ready(1, 32, old_digest, keys.sign_update("honest", 1, 32, old_digest)),
            m.Ready(3, 4, digest, signed),
        ]
        heard: list[m.Message] = []

        async def impostor(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            connection = Connection(reader, writer, heartbeat_s=60, idle_timeout_s=5)
            connection.start()
            with contextlib.suppress(ConnectionError):
                connection.post(m.Challenge(bytes(32), keys.public))
                await connection.receive()
                connection.post(m.Welcome(2, 2, 10**6, 10, 10**6))
                for message in said:
                    connection.post(message)
                    heard.append(await connection.receive())
                connection.post(m.Data(3, 0, b"EVIL"))  # not the bytes that were signed
                heard.append(await connection.receive())
            await connection.close()

        server = await asyncio.start_server(impostor, "127.0.0.1", port)
        config = DeviceConfig("honest", "127.0.0.1", port, tmp_path / "honest", retry_s=30)
        async with Device(config, install) as device:
            while len(heard) < 7:
                await asyncio.sleep(0.01)
            assert device.store.round_index == 2
            assert device.store.model is not None
            assert device.store.model.read_bytes() == old
        server.close()
        reasons = [getattr(message, "reason", "") for message in heard]
        assert [("signed" in r, "replay" in r) for r in reasons[:5]] == [(True, False)] * 4 + [
            (False, True)
        ]
        assert isinstance(heard[5], m.Fetch)
        assert "hash" in reasons[6]

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
