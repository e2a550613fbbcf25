"""A connection holds little, whatever its peer does or does not do."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import socket
import ssl
import struct
import weakref
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from endedge.data.errors import BadInput
from endedge.edge.server.keys import create_keys
from endedge.link.connection import READ_LIMIT_BYTES, Connection, file_chunks, is_loopback
from endedge.link.messages import (
    CHUNK_BYTES,
    HEADER_BYTES,
    Data,
    Message,
    Ping,
    Stored,
    encode,
)


@asynccontextmanager
async def pair(
    *, heartbeat_s: float = 60.0, idle_timeout_s: float = 5.0
) -> AsyncIterator[tuple[Connection, Connection]]:
    ends: asyncio.Queue[Connection] = asyncio.Queue()

    def made(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> Connection:
        return Connection(reader, writer, heartbeat_s=heartbeat_s, idle_timeout_s=idle_timeout_s)

    async def accepted(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await ends.put(made(reader, writer))

    server = await asyncio.start_server(accepted, "127.0.0.1", 0, limit=READ_LIMIT_BYTES)
    port = server.sockets[0].getsockname()[1]
    one = made(*await asyncio.open_connection("127.0.0.1", port, limit=READ_LIMIT_BYTES))
    other = await ends.get()
    try:
        yield one, other
    finally:
        await one.close()
        await other.close()
        server.close()


def test_bulk_is_read_only_as_the_peer_takes_it_and_small_messages_pass_it() -> None:
    produced = 0

    def endless() -> Iterator[Data]:
        nonlocal produced
        while True:
            produced += CHUNK_BYTES
            yield Data(1, produced - CHUNK_BYTES, bytes(CHUNK_BYTES))

    async def run() -> None:
        async with pair() as (one, other):
            one.start()
            one.stream(endless())
            held = -1
            while held != produced:  # until both kernels' buffers are full
                held = produced
                await asyncio.sleep(0.3)
            assert held < 16 * 2**20  # what two kernels hold, not the endless file
            one.post(Stored(7))
            seen = 0
            while not isinstance(await other.receive(), Stored):
                seen += CHUNK_BYTES
            assert seen <= held  # nothing that was not on its way overtook it
            one.stream(None)

    asyncio.run(run())


def test_peer_that_does_not_read_its_answers_is_cut() -> None:
    async def run() -> None:
        async with pair() as (one, _):
            for k in range(64):
                one.post(Stored(k))
            with pytest.raises(ConnectionError, match="does not read"):
                one.post(Stored(64))

    asyncio.run(run())


def test_stalled_peer_and_silent_peer_are_dropped() -> None:
    def endless() -> Iterator[Data]:
        while True:
            yield Data(1, 0, bytes(CHUNK_BYTES))

    async def run() -> None:
        async with pair(idle_timeout_s=0.2) as (one, _):
            one.start()
            one.stream(endless())  # the other never reads
            with pytest.raises((TimeoutError, ConnectionError)):
                await one.receive()
            await asyncio.sleep(0.3)
            with pytest.raises(ConnectionError):
                await one.receive()

    asyncio.run(run())


def test_heartbeats_keep_a_quiet_connection() -> None:
    async def run() -> None:
        async with pair(heartbeat_s=0.05, idle_timeout_s=0.5) as (one, other):
            one.start()
            for _ in range(3):
                assert isinstance(await other.receive(), Ping)

    asyncio.run(run())


def test_bad_messages_and_lost_peers_are_told_apart() -> None:
    async def run() -> None:
        async with pair() as (one, other):
            one._writer.write(b"nonsense" * 4)
            with pytest.raises(BadInput):
                await other.receive()
        async with pair() as (one, other):
            one._writer.write(b"EE\x01")
            await one.close()
            with pytest.raises(ConnectionError, match="lost"):
                await other.receive()

    asyncio.run(run())


def test_both_ends_count_every_byte_that_crossed() -> None:
    """Headers too: what was written is what was read."""
    said: list[Message] = [Stored(7), Data(1, 0, b"abc"), Ping()]

    async def run() -> None:
        async with pair() as (one, other):
            one.start()
            for message in said:
                one.post(message)
                assert await other.receive() == message
            wrote = sum(len(encode(message)) for message in said)
            assert wrote > len(said) * HEADER_BYTES + 3
            assert (one.sent_bytes, other.received_bytes) == (wrote, wrote)

    asyncio.run(run())


def test_file_chunks_from_anywhere(tmp_path: Path) -> None:
    path = tmp_path / "file"
    data = bytes(range(256)) * 200
    path.write_bytes(data)
    for offset in (0, 1, CHUNK_BYTES, len(data) - 1, len(data)):
        chunks = list(file_chunks(path, 3, offset))
        assert b"".join(chunk.payload for chunk in chunks) == data[offset:]
        assert not chunks or chunks[0].offset == offset


def test_loopback_is_nothing_else() -> None:
    assert all(map(is_loopback, ("localhost", "127.0.0.1", "127.8.9.1", "::1")))
    assert not any(
        map(is_loopback, ("0.0.0.0", "::", "10.0.0.1", "example.org", "", "localhost.x"))
    )


def test_a_lost_connection_is_freed_without_the_collector(tmp_path: Path) -> None:
    """Else a server whose peers are cut often keeps 256 KiB of TLS buffers for each of them."""
    keys = create_keys(tmp_path / "keys")
    trust = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    trust.load_verify_locations(keys.folder / "tls.pem")
    lost: list[weakref.ref[Connection]] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connection = Connection(reader, writer, heartbeat_s=0.01, idle_timeout_s=5)
        connection.start()
        with contextlib.suppress(ConnectionError):
            while True:
                await connection.receive()
        await connection.close()
        lost.append(weakref.ref(connection))

    async def run() -> None:
        server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=keys.tls())
        port = server.sockets[0].getsockname()[1]
        for _ in range(3):
            _, writer = await asyncio.open_connection("127.0.0.1", port, ssl=trust)
            await asyncio.sleep(0.05)
            raw = writer.get_extra_info("socket")
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            writer.transport.abort()  # a reset, as of a lost radio link
        while len(lost) < 3:
            await asyncio.sleep(0.01)
        await asyncio.sleep(0.05)
        server.close()
        assert [ref() for ref in lost] == [None] * 3

    gc.disable()
    try:
        asyncio.run(run())
    finally:
        gc.enable()
