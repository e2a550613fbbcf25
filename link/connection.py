"""One connection between end and edge: messages in and out with bounded memory.

Both sides use it. Reading and writing never wait for each other: small messages go into a
bounded outbox, bulk bytes come from one iterator that is asked for its next chunk only when
the socket has room (back-pressure reaches the file, nothing is buffered whole), and one
writer task sends both, small ones first. When nothing else is said, it says :class:`Ping`.

A peer that is silent, or takes longer than ``idle_timeout_s`` for one message (slow-loris),
or does not drain what it asked for, is dropped.
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import socket
from collections import deque
from collections.abc import Iterator
from pathlib import Path

from endedge.link.messages import (
    CHUNK_BYTES,
    HEADER_BYTES,
    Data,
    Message,
    Ping,
    decode_body,
    decode_header,
    encode,
)

__all__ = ["READ_LIMIT_BYTES", "Connection", "file_chunks", "is_loopback"]

READ_LIMIT_BYTES = 64 * 1024
_WRITE_BUFFER_BYTES = 32 * 1024  # in the process,
_SEND_BUFFER_BYTES = 64 * 1024  # and in the kernel: heartbeats queue behind no more than this
_OUTBOX_MESSAGES = 64
_GOODBYE_S = 1.0


class Connection:
    """Messages over an open stream. Call :meth:`start` once the handshake may be answered."""

    def __init__(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        *,
        heartbeat_s: float,
        idle_timeout_s: float,
    ) -> None:
        self._reader = reader
        self._writer = writer
        self._heartbeat_s = heartbeat_s
        self._idle_timeout_s = idle_timeout_s
        self._outbox: deque[Message] = deque()
        self._bulk: Iterator[Data] | None = None
        self._wake = asyncio.Event()
        self._writing: asyncio.Task[None] | None = None
        self.heartbeats = True  # off until the other side knows who speaks
        self.sent_bytes = 0
        self.received_bytes = 0
        writer.transport.set_write_buffer_limits(high=_WRITE_BUFFER_BYTES)
        raw = writer.get_extra_info("socket")
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SEND_BUFFER_BYTES)
        raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def start(self) -> None:
        """Begin writing: the outbox, bulk bytes, heartbeats."""
        self._writing = asyncio.create_task(self._write())

    def post(self, message: Message) -> None:
        """Queue a small message. A peer that makes us queue too many is cut off."""
        if len(self._outbox) >= _OUTBOX_MESSAGES:
            self.abort()
            raise ConnectionError("peer does not read its answers")
        self._outbox.append(message)
        self._wake.set()

    def stream(self, chunks: Iterator[Data] | None) -> None:
        """Send ``chunks`` in the background, in place of what was being sent."""
        self._bulk = chunks
        self._wake.set()

    async def receive(self) -> Message:
        """The next message.

        Raises :class:`~endedge.data.errors.BadInput` for what is not one, ``TimeoutError``
        when it takes too long, ``ConnectionError`` when the peer has gone.
        """
        async with asyncio.timeout(self._idle_timeout_s):
            try:
                cls, length = decode_header(await self._reader.readexactly(HEADER_BYTES))
                body = await self._reader.readexactly(length)
            except (asyncio.IncompleteReadError, OSError) as error:
                raise ConnectionError(f"connection lost: {error}") from None
        self.received_bytes += HEADER_BYTES + length
        return decode_body(cls, body)

    async def _write(self) -> None:
        try:
            while not (self._writer.transport.is_closing() or self._reader.at_eof()):
                message = self._next()
                if message is None:
                    self._wake.clear()
                    try:
                        async with asyncio.timeout(self._heartbeat_s):
                            await self._wake.wait()
                        continue
                    except TimeoutError:
                        if not self.heartbeats:
                            continue
                        message = Ping()
                frame = encode(message)
                self._writer.write(frame)
                self.sent_bytes += len(frame)
                async with asyncio.timeout(self._idle_timeout_s):
                    await self._writer.drain()
                await asyncio.sleep(0)  # drain need not wait: let others run, and a loss show
        except (OSError, TimeoutError):  # a bulk file that vanished, or the peer
            self.abort()

    def _next(self) -> Message | None:
        if self._outbox:
            return self._outbox.popleft()
        if self._bulk is not None:
            chunk = next(self._bulk, None)
            if chunk is not None:
                return chunk
            self._bulk = None
        return None

    def abort(self) -> None:
        """Drop the connection now; a pending :meth:`receive` ends with ConnectionError."""
        self._writer.transport.abort()

    async def close(self, last: Message | None = None) -> None:
        """Stop writing, say ``last`` if the socket still takes it, and close."""
        try:
            if self._writing is not None:
                self._writing.cancel()
                await asyncio.wait([self._writing])
                self._writing = None
            with contextlib.suppress(OSError, TimeoutError):
                async with asyncio.timeout(_GOODBYE_S):
                    if last is not None:
                        self._writer.write(encode(last))
                        await self._writer.drain()
                    self._writer.close()
                    await self._writer.wait_closed()
        finally:  # also when cancelled meanwhile
            self._writer.transport.abort()
            # The error that the reader remembers leads to frames that lead back here: a cycle
            # that would hold 256 KiB of TLS buffers until the collector happens to come by.
            lost = self._reader.exception()
            if lost is not None:
                lost.__traceback__ = lost.__context__ = None


def file_chunks(path: Path, round_index: int, offset: int) -> Iterator[Data]:
    """The bytes of a file from ``offset`` on, read as they are asked for."""
    with path.open("rb") as file:
        file.seek(offset)
        while payload := file.read(CHUNK_BYTES):
            yield Data(round_index, offset, payload)
            offset += len(payload)


def is_loopback(host: str) -> bool:
    """Whether a host name or address can only mean this machine."""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
