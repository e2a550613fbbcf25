"""What the tests of the server share: a service on loopback, and a peer that may say anything."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TypeVar

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from endedge.edge.server.keys import issue_bundle
from endedge.edge.server.service import Adapt, EdgeService, Job, Limits, ServeConfig
from endedge.end.client.client import Capture, Device, DeviceConfig
from endedge.link import messages as m
from endedge.link.connection import Connection

__all__ = [
    "KEY",
    "LIMITS",
    "Peer",
    "adapt",
    "drained",
    "edge_on",
    "events",
    "honest_round",
    "install",
    "offer_of",
    "trace",
    "whole_upload",
]

LIMITS = Limits(
    upload_bytes=100_000,
    frames=10,
    update_bytes=50_000,
    handshakes=8,
    handshake_s=0.4,
    penalty_s=0.05,
)
T = TypeVar("T", bound=m.Message)
KEY = Ed25519PrivateKey.generate()


def adapt(job: Job) -> bytes:
    return hashlib.sha256(job.batch).digest()


def install(package: bytes, base: Path | None, target: Path) -> None:
    target.write_bytes(package)


@asynccontextmanager
async def edge_on(
    folder: Path, *, secure: bool = False, limits: Limits = LIMITS, jobs: Adapt = adapt
) -> AsyncIterator[EdgeService]:
    config = ServeConfig(
        folder / "edge",
        port=0,
        metrics_port=0,
        secure=secure,
        limits=limits,
        heartbeat_s=0.2,
        idle_timeout_s=1.0,
    )
    async with EdgeService(config, jobs) as edge:
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

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter):
        self.raw = writer
        self.connection = Connection(reader, writer, heartbeat_s=60, idle_timeout_s=10)

    @classmethod
    @asynccontextmanager
    async def knock(cls, edge: EdgeService) -> AsyncIterator[Peer]:
        """A peer that is connected and has said nothing."""
        reader, writer = await asyncio.open_connection("127.0.0.1", edge.port)
        peer = cls(reader, writer)
        peer.connection.start()
        try:
            yield peer
        finally:
            await peer.connection.close()

    @classmethod
    @asynccontextmanager
    async def open(cls, edge: EdgeService, name: str = "peer") -> AsyncIterator[Peer]:
        """An enrolled and welcomed peer."""
        async with cls.knock(edge) as peer:
            await peer.enrol(name)
            await peer.hear(m.Welcome)
            yield peer

    async def enrol(self, name: str) -> None:
        challenge = await self.hear(m.Challenge)
        signature = KEY.sign(m.hello_statement(challenge.nonce, challenge.edge_key, name))
        self.say(m.Enrol(name, "", KEY.public_key().public_bytes_raw(), signature))

    def say(self, *messages: m.Message) -> None:
        for message in messages:
            self.connection.post(message)

    async def hear(self, kind: type[T]) -> T:
        while True:
            message = await self.connection.receive()
            if isinstance(message, kind):
                return message
            assert isinstance(message, m.Ping), message

    async def told_to_go(self) -> str:
        """Why it may not stay now, and that it may come back."""
        deferred = await self.hear(m.Deferred)
        assert deferred.retry_s > 0
        return deferred.reason


def offer_of(batch: bytes, round_index: int = 1) -> m.Offer:
    return m.Offer(round_index, len(batch), hashlib.sha256(batch).digest(), 3, 100)


async def whole_upload(peer: Peer, batch: bytes = b"x" * 10, round_index: int = 1) -> None:
    peer.say(offer_of(batch, round_index))
    await peer.hear(m.Accept)

    def chunks() -> Iterator[m.Data]:
        for k in range(0, len(batch), m.CHUNK_BYTES):
            yield m.Data(round_index, k, batch[k : k + m.CHUNK_BYTES])

    peer.connection.stream(chunks())
    await peer.hear(m.Stored)


def trace(folder: Path) -> list[dict[str, object]]:
    """The log of events."""
    text = (folder / "edge" / "audit.jsonl").read_text()
    return [json.loads(line) for line in text.splitlines()]


def events(folder: Path) -> list[str]:
    return [str(entry["event"]) for entry in trace(folder)]


async def drained(reader: asyncio.StreamReader) -> None:
    """Read until the other side ends it."""
    with contextlib.suppress(ConnectionError):
        while await asyncio.wait_for(reader.read(65536), 10):
            pass
