"""The edge's side of the dialogue with one device: offers, chunks, packages, results.

What a device says is compared with its limits and with its ledger on disk before anything
happens; what it may not say ends the connection with :class:`BadInput`. It reaches nothing
but its own rounds. ``docs/protocol.md`` describes the dialogue.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import time
from collections.abc import Callable
from dataclasses import dataclass

from endedge.data.errors import BadInput
from endedge.edge.server.journal import DeviceRounds
from endedge.edge.server.keys import EdgeKeys
from endedge.edge.server.monitor import Audit, DeviceRow
from endedge.link.connection import Connection, file_chunks
from endedge.link.messages import (
    Accept,
    Applied,
    Busy,
    Data,
    Failed,
    Fetch,
    Message,
    Missed,
    Noted,
    Offer,
    Ping,
    Ready,
    Stored,
    Welcome,
)

__all__ = ["RETRY_S", "Device", "Limits"]

RETRY_S = 2.0
_MAX_CORRUPT = 3


@dataclass(frozen=True)
class Limits:
    """What one device may ask of the edge, and how many peers may knock at once."""

    upload_bytes: int = 256 * 2**20  # one batch
    upload_bytes_per_s: float = math.inf  # averaged; beyond it the device is read more slowly
    frames: int = 100_000  # one batch
    update_bytes: int = 256 * 2**20  # one package
    pending_rounds: int = 2  # stored and not yet ended
    devices: int = 1000
    handshakes: int = 64  # peers that have not proved who they are
    handshake_s: float = 10.0


class Device:
    """One known device while the server runs; ``schedule`` is called when a job may start."""

    def __init__(
        self,
        device_id: str,
        rounds: DeviceRounds,
        limits: Limits,
        keys: EdgeKeys,
        audit: Audit,
        schedule: Callable[[Device], None],
    ) -> None:
        self.device_id = device_id
        self.rounds = rounds
        self._limits = limits
        self._keys = keys
        self._audit = audit
        self._schedule = schedule
        self.connection: Connection | None = None
        self.doing = "away"
        self.compute_s = 0.0
        self._received_bytes = self._sent_bytes = 0  # of connections that have ended
        self._paced_until_s = 0.0
        self._upload_open = False  # Data is expected
        self._asked_offset = -1
        self._corrupt = 0

    def post(self, message: Message) -> None:
        """Say something if the device is connected."""
        if self.connection is not None:
            with contextlib.suppress(ConnectionError):  # its own reader will notice
                self.connection.post(message)

    async def converse(self, connection: Connection) -> None:
        """Serve an authenticated connection until it ends, by an exception or by a newer one."""
        if self.connection is not None:
            self.connection.abort()  # the one before was cut and nobody has noticed
        self.connection, self._upload_open, self.doing = connection, False, "connected"
        state, limits = self.rounds.state, self._limits
        try:
            self.post(
                Welcome(
                    state.stored_round,
                    state.resolved_round,
                    limits.upload_bytes,
                    limits.frames,
                    limits.update_bytes,
                )
            )
            self.announce()
            while self.connection is connection:
                await self._handle(await connection.receive())
        finally:
            self._received_bytes += connection.received_bytes
            self._sent_bytes += connection.sent_bytes
            if self.connection is connection:
                self.connection, self.doing = None, "away"

    def announce(self) -> None:
        """Tell the device of the package that waits for it, if there is one."""
        round_index = self.rounds.ready_round()
        if round_index is not None and self.connection is not None:
            size, digest = self.rounds.package(round_index)
            signature = self._keys.sign_update(self.device_id, round_index, size, digest)
            self.post(Ready(round_index, size, digest, signature))

    def row(self, queued: bool) -> DeviceRow:
        """What the operator sees."""
        state, link = self.rounds.state, self.connection
        return DeviceRow(
            device_id=self.device_id,
            connected=link is not None,
            received_bytes=self._received_bytes + (link.received_bytes if link else 0),
            sent_bytes=self._sent_bytes + (link.sent_bytes if link else 0),
            batches=state.batches,
            frames=state.frames,
            upload_bytes=state.upload_bytes,
            jobs=int(queued),
            compute_s=self.compute_s,
            applied_round=state.applied_round,
            missed=state.missed,
            map50_95=state.map50_95,
            doing=self.doing,
        )

    async def _handle(self, message: Message) -> None:
        match message:
            case Data():
                await self._on_data(message)
            case Offer():
                await self._on_offer(message)
            case Fetch():
                self._on_fetch(message)
            case Applied() | Failed():
                self._on_result(message)
            case Ping():
                self._ask_again()
            case _:
                raise BadInput(f"unexpected {type(message).__name__}")

    async def _on_offer(self, offer: Offer) -> None:
        limits, rounds = self._limits, self.rounds
        for name, value, most in (
            ("batch bytes", offer.size, limits.upload_bytes),
            ("frames", offer.frames, limits.frames),
            ("update bytes", offer.budget_bytes, limits.update_bytes),
        ):
            if not 1 <= value <= most:
                raise BadInput(f"offer of {value} {name}; this edge takes 1 to {most}")
        self._upload_open = False
        if offer.round_index <= rounds.state.stored_round:
            self._audit("duplicate_offer", self.device_id, round=offer.round_index)
            self.post(Stored(offer.round_index))
        elif len(rounds.pending()) >= limits.pending_rounds:
            self.post(Busy(offer.round_index, RETRY_S, "earlier rounds are still waiting"))
        else:
            try:
                offset = rounds.begin(offer)
            except OSError as error:
                self._disk_error(offer.round_index, error)
                return
            if offset:
                self._audit("resumed", self.device_id, round=offer.round_index, offset=offset)
            self._upload_open, self._asked_offset = True, offset
            self.doing = f"uploading round {offer.round_index}"
            if offset == offer.size:
                await self._finish_upload(offer)
            else:
                self.post(Accept(offer.round_index, offset))

    async def _on_data(self, data: Data) -> None:
        offer = self.rounds.offer
        if not self._upload_open or offer is None or data.round_index != offer.round_index:
            if data.round_index > self.rounds.state.stored_round and offer is None:
                raise BadInput("data of a batch that was not offered")
            return  # sent before it heard that the upload is over or has to wait
        try:
            fresh = self.rounds.append(data.offset, data.payload)
        except OSError as error:
            self._disk_error(offer.round_index, error)
            return
        have = self.rounds.received_bytes()
        if not fresh:
            self._audit("duplicate_data" if data.offset < have else "gap", self.device_id)
            if data.offset > have != self._asked_offset:  # ask once for each gap
                self._asked_offset = have
                self.post(Accept(offer.round_index, have))
        elif have == offer.size:
            await self._finish_upload(offer)
        await self._pace(len(data.payload))

    def _ask_again(self) -> None:
        """A device with nothing to say has sent all it was asked for: what an upload still
        lacks came out of order and was dropped."""
        offer = self.rounds.offer
        if self._upload_open and offer is not None:
            self._asked_offset = self.rounds.received_bytes()
            self.post(Accept(offer.round_index, self._asked_offset))

    async def _pace(self, n_bytes: int) -> None:
        now_s = time.monotonic()
        rate = self._limits.upload_bytes_per_s
        self._paced_until_s = max(self._paced_until_s, now_s) + n_bytes / rate
        if self._paced_until_s > now_s:
            await asyncio.sleep(self._paced_until_s - now_s)

    async def _finish_upload(self, offer: Offer) -> None:
        digest = await asyncio.to_thread(self.rounds.digest)
        try:
            whole = self.rounds.finish(digest)
        except OSError as error:
            self._disk_error(offer.round_index, error)
            return
        self.doing = "connected"
        if whole:
            self._upload_open, self._corrupt = False, 0
            self._audit(
                "stored",
                self.device_id,
                round=offer.round_index,
                bytes=offer.size,
                frames=offer.frames,
            )
            self.post(Stored(offer.round_index))
            self._schedule(self)
        else:
            self._corrupt += 1
            self._audit("corrupt_upload", self.device_id, round=offer.round_index)
            if self._corrupt >= _MAX_CORRUPT:
                self._corrupt = 0
                raise BadInput(
                    f"batch does not have the hash it was offered with, {_MAX_CORRUPT} times"
                )
            self.post(Accept(offer.round_index, 0))

    def _disk_error(self, round_index: int, error: OSError) -> None:
        self._audit("disk_error", self.device_id, round=round_index, why=str(error))
        self._upload_open = False
        self.post(Busy(round_index, RETRY_S, "the edge cannot write to its disk"))

    def _on_fetch(self, fetch: Fetch) -> None:
        if fetch.round_index != self.rounds.ready_round():
            self.post(Missed(fetch.round_index, "there is no such package any more"))
            return
        path = self.rounds.package_path(fetch.round_index)
        if fetch.offset > path.stat().st_size:
            raise BadInput(f"fetch from byte {fetch.offset} of a shorter package")
        self.doing = f"downloading round {fetch.round_index}"
        assert self.connection is not None
        self.connection.stream(file_chunks(path, fetch.round_index, fetch.offset))

    def _on_result(self, message: Applied | Failed) -> None:
        rounds = self.rounds
        if message.round_index <= rounds.state.resolved_round:
            self.post(Noted(message.round_index))  # said again: it could not know it was heard
            return
        if message.round_index != rounds.ready_round():
            raise BadInput(f"result of round {message.round_index}, which has no package")
        self.doing = "connected"
        if isinstance(message, Applied):
            value = message.map50_95
            if not (math.isnan(value) or 0 <= value <= 1):
                raise BadInput(f"mAP {value} is not in [0, 1]")
            known = None if math.isnan(value) else value
            rounds.resolve(message.round_index, known, applied=True)
            self._audit(
                "applied",
                self.device_id,
                round=message.round_index,
                map50_95=known,
                model=message.model_sha256.hex(),
            )
        else:
            rounds.resolve(message.round_index)
            self._audit("missed", self.device_id, round=message.round_index, why=message.reason)
        self.post(Noted(message.round_index))
        self._schedule(self)
