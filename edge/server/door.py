"""Who may come in: accepting sockets, room for newcomers, proof of identity, refusals.

A peer that has not proved who it is holds a place. There are so many places, and so many for one
address; when they are taken, the one that has been there longest gives way, first of all one of
the address that holds most. Nobody is turned away at the door, so peers that are silent and come
back cannot keep others out: a newcomer has the time in which all places change hands, and the door
then opens slowly enough that this is ``_TURNOVER_S`` (of one address alone: its share of that).
"""

from __future__ import annotations

import asyncio
import ipaddress
import secrets
import socket
import ssl
from collections import Counter
from collections.abc import Awaitable, Callable
from functools import partial

from endedge.data.errors import BadInput
from endedge.edge.server.audit import Audit
from endedge.edge.server.keys import EdgeKeys
from endedge.edge.server.limits import RETRY_S, Limits
from endedge.link.connection import READ_LIMIT_BYTES, Connection
from endedge.link.messages import Challenge, Deferred, Enrol, Hello, Ping, Refused

__all__ = ["Converse", "Door", "NotNow"]

_TURNOVER_S = 2.0
_AGAIN_S = 5.0  # after words that a device may not say
Converse = Callable[[Connection], Awaitable[None]]


class NotNow(BadInput):
    """A refusal that will not last: the device may come back after ``retry_s``."""

    def __init__(self, why: str, retry_s: float) -> None:
        super().__init__(why)
        self.retry_s = retry_s


class Door:
    """Takes peers from ``listener`` until cancelled; ``heartbeat_s`` and ``idle_timeout_s`` are of
    the connections it makes.

    ``admit(first message, nonce)`` returns the name of an authenticated device and what converses
    with it, or raises :class:`BadInput` (refused for good) or :class:`NotNow`.
    """

    def __init__(
        self,
        listener: socket.socket,
        keys: EdgeKeys,
        audit: Audit,
        limits: Limits,
        *,
        secure: bool,
        heartbeat_s: float,
        idle_timeout_s: float,
        admit: Callable[[Enrol | Hello, bytes], Awaitable[tuple[str, Converse]]],
    ) -> None:
        self._listener, self._keys, self._audit, self._limits = listener, keys, audit, limits
        self._tls = keys.tls() if secure else None
        self._times = {"heartbeat_s": heartbeat_s, "idle_timeout_s": idle_timeout_s}
        self._admit = admit
        self._unproven: dict[asyncio.Task[None], str] = {}  # in the order of their coming
        self._inside: set[asyncio.Task[None]] = set()

    async def run(self) -> None:
        """Accept until cancelled; then everybody is sent away."""
        loop = asyncio.get_running_loop()
        try:
            while True:
                try:
                    knocking, peer = await loop.sock_accept(self._listener)
                except OSError as error:  # no descriptors left: those who are in go on
                    self._audit("accept_error", why=str(error))
                    await asyncio.sleep(RETRY_S)
                    continue
                address = _network(peer[0])
                crowded = self._make_room(address)
                serving = asyncio.create_task(self._serve(knocking, address))
                self._unproven[serving] = address
                self._inside.add(serving)
                serving.add_done_callback(partial(self._gone, knocking))
                if crowded:
                    await asyncio.sleep(_TURNOVER_S / self._limits.handshakes)
        finally:
            for task in self._inside:
                task.cancel()
            if self._inside:
                await asyncio.wait(self._inside)

    def _make_room(self, address: str) -> bool:
        """Drop the one who must give way for a newcomer from ``address``; whether there was one."""
        held = Counter(self._unproven.values())
        if held[address] >= self._limits.handshakes_per_address:
            loses = address
        elif len(self._unproven) >= self._limits.handshakes:
            loses = held.most_common(1)[0][0]
        else:
            return False
        oldest = next(task for task, whose in self._unproven.items() if whose == loses)
        del self._unproven[oldest]
        oldest.cancel()
        self._audit("gave_way", address=loses)
        return True

    def _gone(self, knocking: socket.socket, task: asyncio.Task[None]) -> None:
        self._unproven.pop(task, None)
        self._inside.discard(task)
        knocking.close()  # also when the task was cancelled before it had begun
        if not task.cancelled() and (error := task.exception()) is not None:
            self._audit("error", why=f"{type(error).__name__}: {error}")

    async def _serve(self, knocking: socket.socket, address: str) -> None:
        connection: Connection | None = None
        name, last = "", None
        me = asyncio.current_task()
        assert me is not None
        try:
            try:
                async with asyncio.timeout(self._limits.handshake_s):
                    connection = await self._open(knocking)
                    connection.start()
                    name, converse = await self._greet(connection)
            except TimeoutError:
                said = "no proof of who it is" if connection or not self._tls else "no TLS"
                raise NotNow(f"{said} within {self._limits.handshake_s:g} s", 0.0) from None
            self._unproven.pop(me, None)
            self._audit("connected", name, address=address)
            await converse(connection)
        except BadInput as error:
            if name and not isinstance(error, NotNow):
                error = NotNow(str(error), _AGAIN_S)
            told = {"retry_s": error.retry_s} if isinstance(error, NotNow) else {}
            self._audit("refused", name, address=address, why=str(error), **told)
            short = str(error).encode()[:200].decode(errors="ignore")
            last = Deferred(error.retry_s, short) if isinstance(error, NotNow) else Refused(short)
        except ssl.SSLError as error:
            why = f"no TLS, and this edge listens with --secure ({error.reason or error})"
            self._audit("refused", name, address=address, why=why)
        except (OSError, TimeoutError) as error:
            why = str(error) or type(error).__name__
            self._audit("disconnected", name, address=address, why=why)
        finally:
            if connection is not None:
                await connection.close(last)
        if me in self._unproven:  # it may be back at once: until then it keeps its place
            await asyncio.sleep(self._limits.penalty_s)

    async def _open(self, knocking: socket.socket) -> Connection:
        reader = asyncio.StreamReader(limit=READ_LIMIT_BYTES)
        protocol = asyncio.StreamReaderProtocol(reader)
        loop = asyncio.get_running_loop()
        transport, _ = await loop.connect_accepted_socket(lambda: protocol, knocking, ssl=self._tls)
        writer = asyncio.StreamWriter(transport, protocol, reader, loop)
        return Connection(reader, writer, **self._times)

    async def _greet(self, connection: Connection) -> tuple[str, Converse]:
        nonce = secrets.token_bytes(32)
        connection.post(Challenge(nonce, self._keys.public))
        message = await connection.receive()
        while isinstance(message, Ping):  # its link stalled before it had heard us
            message = await connection.receive()
        if not isinstance(message, Enrol | Hello):
            raise BadInput(f"expected Hello or Enrol, got {type(message).__name__}")
        return await self._admit(message, nonce)


def _network(host: str) -> str:
    """Whom we count as one: an IPv4 address, or the /64 that one IPv6 subscriber has."""
    try:
        address = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return host
    if address.version == 4:
        return str(address)
    if address.ipv4_mapped is not None:
        return str(address.ipv4_mapped)
    return str(ipaddress.ip_network((address, 64), strict=False))
