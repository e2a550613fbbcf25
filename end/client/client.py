"""The device process: batches up, updates down, over whatever connection there is just now.

A device captures a batch, spools it, and stays connected as well as the link allows; after
every cut both directions go on from the last byte that arrived. The update is verified,
decoded and switched to by :mod:`endedge.end.client.apply`. Rounds are numbered, never timed by a
wall clock, so a wrong clock on either side changes nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import random
import ssl
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from endedge.data.errors import BadInput
from endedge.data.storage import append, private_folder
from endedge.end.client.apply import Install, ModelStore
from endedge.end.client.config import DeviceConfig
from endedge.end.client.identity import Identity
from endedge.end.client.outcomes import Outcome, Outcomes
from endedge.end.client.spool import Spool
from endedge.link.connection import READ_LIMIT_BYTES, Connection, file_chunks
from endedge.link.messages import (
    Accept,
    Applied,
    Busy,
    Challenge,
    Data,
    Deferred,
    Failed,
    Fetch,
    Message,
    Missed,
    Noted,
    Ping,
    Ready,
    Refused,
    Stored,
    Welcome,
)
from endedge.link.shaper import LinkProxy

__all__ = ["Capture", "Device", "DeviceConfig", "Evaluate", "Outcome"]

_log = logging.getLogger("endedge.device")
_LATEST_S = 60.0  # whatever an edge says: it is asked again after this
Evaluate = Callable[[Path], float]


@dataclass(frozen=True)
class Capture:
    """What a device sends in one round: encoded frames, and the budget of the update."""

    batch: bytes
    frames: int
    budget_bytes: int


class _LaterError(ConnectionError):
    """The edge asks to come back."""

    def __init__(self, said: Deferred) -> None:
        super().__init__(said.reason)
        self.retry_s = min(max(said.retry_s, 0.0), _LATEST_S) if said.retry_s == said.retry_s else 0


class Device:
    """``async with Device(config, install) as device``: submit batches, await outcomes.

    ``install`` decodes packages (:data:`endedge.end.client.apply.Install`);
    ``evaluate(model file)`` returns the mAP50-95 that is reported to the edge. Both run in a
    thread.
    """

    def __init__(
        self, config: DeviceConfig, install: Install, evaluate: Evaluate | None = None
    ) -> None:
        self.config = config
        self._install = install
        self._evaluate = evaluate
        private_folder(config.folder)  # frames that wait, and the device's key
        self.spool = Spool(config.folder / "spool", config.spool_bytes)
        self.store = ModelStore(config.folder / "models", keep_bytes=config.models_bytes)
        self.identity = Identity(config.device_id, config.folder, config.bundle)
        self._map = (0, math.nan)  # round, mAP
        self._outcomes = Outcomes()
        self._connection: Connection | None = None
        self._ready: Ready | None = None
        self._asked_offset = -1
        self._welcome: Welcome | None = None
        self._offered_round = 0
        self._noted = asyncio.Event()  # the edge knows how the last round ended
        self._failures = 0  # tries in a row that did not end in a greeting
        self._challenged = False  # by the edge, on the present connection

    async def __aenter__(self) -> Device:
        self._proxy: LinkProxy | None = None
        self._address = (self.config.edge_host, self.config.edge_port)
        if self.config.link is not None:
            self._proxy = LinkProxy(self.config.link, self._address)
            self._address = ("127.0.0.1", self._proxy.port)
        self._staying = asyncio.create_task(self._stay_connected())
        return self

    async def __aexit__(self, *_: object) -> None:
        self._staying.cancel()
        await asyncio.wait([self._staying])
        if not self._staying.cancelled():
            self._staying.exception()
        if self._proxy is not None:
            await asyncio.to_thread(self._proxy.close)

    def submit(self, capture: Capture) -> int:
        """Spool a batch and return its round; it is safe on disk when this returns.

        Raises :class:`BadInput` if the spool is full.
        """
        round_index = self.spool.add(capture.batch, capture.frames, capture.budget_bytes)
        self._outcomes.submitted(round_index)
        self._offer()
        return round_index

    async def outcome(self, round_index: int) -> Outcome:
        """Wait until a round is applied or missed. Raises :class:`BadInput` if the edge refuses
        this device for good (not enrolled, wrong token, another edge); whatever may pass is waited
        for."""
        future = self._outcomes.future(round_index)
        if round_index == self.store.round_index:
            self._outcomes.end(round_index, "applied")
        elif round_index <= max(self.store.round_index, self._outcomes.ended_round):
            self._outcomes.end(round_index, "missed", "ended while this device was away")
        await self._while_staying(future)
        return future.result()

    async def settled(self) -> None:
        """Wait until the edge has noted how the last round ended."""
        noted = asyncio.ensure_future(self._noted.wait())
        try:
            await self._while_staying(noted)
        finally:
            noted.cancel()

    async def _while_staying(self, future: asyncio.Future[Any]) -> None:
        waiting: set[asyncio.Future[Any]] = {future, self._staying}
        await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        if not future.done():
            self._staying.result()  # raises what ended it

    # Connection ------------------------------------------------------------------------------

    async def _stay_connected(self) -> None:
        dice = random.Random(self.config.device_id)  # devices must not come back in step
        edge = f"{self.config.edge_host}:{self.config.edge_port}"
        while True:
            _log.info("connecting to the edge at %s", edge)
            self._challenged, least_s = False, 0.0
            try:
                await self._session()
            except _LaterError as error:
                why, least_s = str(error), error.retry_s
            except (OSError, TimeoutError) as error:  # cut, not there yet, disk full
                why = self._explained(error)
            wait_s = self.config.retry_s * 2 ** min(self._failures, 6) * dice.uniform(0.5, 1.0)
            wait_s = max(wait_s, least_s)
            self._failures += 1
            said = "connection ended to" if self._challenged else "cannot reach"
            _log.warning("%s the edge at %s (%s); next try in %.1f s", said, edge, why, wait_s)
            await asyncio.sleep(wait_s)

    def _explained(self, error: Exception) -> str:
        """What may lie behind an error on the way to a greeting."""
        why = str(error) or "no answer in time"
        if self._challenged:
            return why
        if isinstance(error, ssl.SSLError):
            return f"{why}; TLS was tried: is the edge started with --secure?"
        if self.identity.tls is None and not isinstance(error, ConnectionRefusedError):
            return f"{why}; no TLS was tried: does the edge ask for it (then give a bundle)?"
        return why

    async def _session(self) -> None:
        host, port = self._address
        async with asyncio.timeout(self.config.idle_timeout_s):
            try:
                reader, writer = await asyncio.open_connection(
                    host, port, ssl=self.identity.tls, limit=READ_LIMIT_BYTES
                )
            except ssl.SSLCertVerificationError:
                raise BadInput("the edge does not have the certificate of the bundle") from None
        connection = Connection(
            reader,
            writer,
            heartbeat_s=self.config.heartbeat_s,
            idle_timeout_s=self.config.idle_timeout_s,
        )
        try:
            connection.heartbeats = False  # the edge does not know yet who would say them
            connection.start()
            await self._handshake(connection)
            self._connection, self._ready, self._offered_round = connection, None, 0
            self._offer()
            while True:
                try:
                    message = await connection.receive()
                    await self._handle(message)
                except BadInput as error:  # what the edge says now may be better another time
                    raise ConnectionError(f"edge: {error}") from None
        finally:
            self._connection = None
            await connection.close()

    async def _handshake(self, connection: Connection) -> None:
        challenge = await connection.receive()
        if isinstance(challenge, Deferred):
            raise _LaterError(challenge)
        if not isinstance(challenge, Challenge):
            raise BadInput(f"the edge began with {type(challenge).__name__}")
        self._challenged = True
        connection.post(self.identity.answer(challenge))
        connection.heartbeats = True
        welcome = await connection.receive()
        while isinstance(welcome, Ping):
            welcome = await connection.receive()
        if isinstance(welcome, Deferred):
            raise _LaterError(welcome)
        if isinstance(welcome, Refused):
            raise BadInput(f"the edge refuses this device: {welcome.reason}")
        if not isinstance(welcome, Welcome):
            raise BadInput(f"the edge answered with {type(welcome).__name__}")
        if welcome.stored_round > self.spool.last_round:
            raise BadInput(
                f"the edge holds round {welcome.stored_round} of this device, whose folder ends at "
                f"{self.spool.last_round}: enrol it anew with a fresh token"
            )
        self.identity.welcomed(challenge)
        self._welcome, self._failures = welcome, 0
        _log.info("the edge knows this device; round %d was stored last", welcome.stored_round)
        self.spool.remove(welcome.stored_round)
        self._outcomes.missed_up_to(welcome.resolved_round, "ended while this device was away")
        if welcome.resolved_round >= self.store.round_index:
            self._noted.set()

    # Messages --------------------------------------------------------------------------------

    def _offer(self) -> None:
        """Offer the oldest batch, once a connection unless the edge was busy."""
        if self._connection is None or self._welcome is None:
            return
        while (offer := self.spool.first()) is not None:
            limits = self._welcome
            wanted = (offer.size, offer.frames, offer.budget_bytes)
            most = (limits.max_upload_bytes, limits.max_frames, limits.max_update_bytes)
            if all(1 <= value <= bound for value, bound in zip(wanted, most, strict=True)):
                break
            why = f"batch bytes, frames, update bytes {wanted}; the edge takes 1 to {most}"
            self.spool.remove(offer.round_index)
            self._outcomes.end(offer.round_index, "missed", why)
        if offer is not None and offer.round_index != self._offered_round:
            self._offered_round = offer.round_index
            with contextlib.suppress(ConnectionError):  # the reader will notice
                self._connection.post(offer)

    async def _handle(self, message: Message) -> None:
        connection = self._connection
        assert connection is not None
        match message:
            case Accept():
                path = self.spool.path(message.round_index)
                if path.is_file():
                    _log.info(
                        "round %d: sending, from byte %d of %d",
                        message.round_index,
                        message.offset,
                        path.stat().st_size,
                    )
                    connection.stream(file_chunks(path, message.round_index, message.offset))
            case Stored():
                connection.stream(None)
                _log.info("round %d: the edge has it; waiting for its update", message.round_index)
                self.spool.remove(message.round_index)
                self._offer()
            case Busy():
                connection.stream(None)
                self._offered_round = 0
                retry_s = min(max(message.retry_s, 0.05), _LATEST_S)
                _log.info(
                    "round %d: the edge is busy (%s); offered again in %.1f s",
                    message.round_index,
                    message.reason,
                    retry_s,
                )
                asyncio.get_running_loop().call_later(retry_s, self._offer)
            case Ready():
                await self._on_ready(connection, message)
            case Data():
                await self._on_data(connection, message)
            case Missed():
                self._outcomes.missed_up_to(message.round_index, message.reason)
            case Noted():
                if message.round_index >= max(self.store.round_index, self._outcomes.ended_round):
                    self._noted.set()
            case Ping():
                self._ask_again(connection)
            case Deferred():
                raise _LaterError(message)
            case _:
                why = f"{type(message).__name__} {getattr(message, 'reason', '')}"
                raise BadInput(why)

    async def _on_ready(self, connection: Connection, ready: Ready) -> None:
        if ready.round_index == self.store.round_index:  # it did not hear that it is applied
            await self._report(connection)
            return
        assert self.identity.edge_key is not None
        try:
            self.store.check(
                ready, self.config.device_id, self.identity.edge_key, self.config.update_bytes
            )
        except BadInput as error:
            self._fail(connection, ready.round_index, str(error))
            return
        self._ready = ready
        part = self.store.incoming(ready)
        have = part.stat().st_size if part.is_file() else 0
        self._asked_offset = have
        if have >= ready.size:
            await self._apply(connection, ready)
        else:
            _log.info("round %d: fetching %d bytes", ready.round_index, ready.size - have)
            connection.post(Fetch(ready.round_index, have))

    async def _on_data(self, connection: Connection, data: Data) -> None:
        ready = self._ready
        if ready is None or data.round_index != ready.round_index:
            return  # of a package that has been dealt with
        if data.offset + len(data.payload) > ready.size:
            raise BadInput("data beyond the end of the package")
        part = self.store.incoming(ready)
        have = part.stat().st_size if part.is_file() else 0
        if data.offset > have:
            if have != self._asked_offset:  # ask once for each gap
                self._asked_offset = have
                connection.post(Fetch(ready.round_index, have))
            return
        fresh = data.payload[have - data.offset :]
        append(part, have, fresh)
        if have + len(fresh) == ready.size:
            await self._apply(connection, ready)

    def _ask_again(self, connection: Connection) -> None:
        """An edge with nothing to say has sent all it was asked for: what a package still lacks
        came out of order and was dropped."""
        if (ready := self._ready) is not None:
            part = self.store.incoming(ready)
            self._asked_offset = part.stat().st_size if part.is_file() else 0
            connection.post(Fetch(ready.round_index, self._asked_offset))

    async def _apply(self, connection: Connection, ready: Ready) -> None:
        self._ready = None
        _log.info("round %d: applying the update", ready.round_index)
        try:
            await asyncio.to_thread(self.store.apply, ready, self._install)
        except BadInput as error:
            self._fail(connection, ready.round_index, str(error))
            return
        await self._report(connection)

    async def _report(self, connection: Connection) -> None:
        round_index, model = self.store.round_index, self.store.model
        if self._map[0] != round_index and self._evaluate is not None and model is not None:
            self._map = (round_index, await asyncio.to_thread(self._evaluate, model))
        value = self._map[1] if self._map[0] == round_index else math.nan
        self._outcomes.missed_up_to(round_index - 1, "overtaken")
        self._outcomes.end(round_index, "applied", "", value)
        self._noted.clear()
        connection.post(Applied(round_index, self.store.model_sha256, value))

    # Outcomes --------------------------------------------------------------------------------

    def _fail(self, connection: Connection, round_index: int, why: str) -> None:
        _log.warning("update of round %d refused: %s", round_index, why)
        self._noted.clear()
        connection.post(Failed(round_index, why.encode()[:200].decode(errors="ignore")))
        if round_index > self.store.round_index:
            self._outcomes.end(round_index, "missed", why)
