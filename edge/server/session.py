"""The edge's side of the dialogue with one device: offers, chunks, packages, results.

What a device says is compared with its limits and with its ledger on disk before anything
happens; what it may not say ends the connection with :class:`BadInput`. It reaches nothing
but its own rounds. Every message has a price, so a device that talks for nothing is read more
slowly; every touch of the disk happens in a thread, one at a time for each device.
``docs/protocol.md`` describes the dialogue.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import ParamSpec, TypeVar

from endedge.data.errors import BadInput
from endedge.edge.server.audit import Audit
from endedge.edge.server.journal import DeviceRounds
from endedge.edge.server.keys import EdgeKeys
from endedge.edge.server.limits import RETRY_S, DiskQuota, Limits, TokenBucket
from endedge.edge.server.monitor import DeviceRow
from endedge.link.connection import Connection, file_chunks
from endedge.link.messages import (
    CHUNK_BYTES,
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

__all__ = ["EnrolledDevice", "House"]

P = ParamSpec("P")
T = TypeVar("T")
_MAX_CORRUPT = 3
_BURST_S = 2.0  # of messages that may come at once
_GREETINGS = 30.0  # connections that may come at once: a bad link cuts often
# What a message costs: an offer writes two files and waits for the disk, a heartbeat nothing.
_PRICE: dict[type[Message], float] = {Offer: 10.0, Fetch: 5.0, Applied: 5.0, Failed: 5.0}


@dataclass(frozen=True)
class House:
    """What all devices share: limits, keys, the log, threads for the disk; ``schedule`` is called
    when a job may start, ``promised_bytes()`` is what all devices may still add to the disk."""

    limits: Limits
    keys: EdgeKeys
    audit: Audit
    threads: Executor
    schedule: Callable[[EnrolledDevice], Awaitable[None]]
    quota: DiskQuota
    promised_bytes: Callable[[], int]


class EnrolledDevice:
    """One known device while the server runs."""

    def __init__(self, device_id: str, rounds: DeviceRounds, house: House) -> None:
        self.device_id = device_id
        self.rounds = rounds
        self._house = house
        self._limits, self._audit = house.limits, house.audit
        self._lock = asyncio.Lock()
        self._pace = TokenBucket(
            self._limits.messages_per_s, _BURST_S * self._limits.messages_per_s
        )
        self.greetings = TokenBucket(self._limits.greetings_per_s, _GREETINGS)
        self.promised_bytes = rounds.promised_bytes()
        self.connection: Connection | None = None
        self.link_state = "away"
        self.job_state = ""
        self.compute_s = 0.0
        self._received_bytes = self._sent_bytes = 0  # of connections that have ended
        self._paced_until_s = 0.0
        self._upload_open = False  # Data is expected
        self._asked_offset = -1
        self._corrupt = 0

    async def on_disk(self, step: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """``step(...)`` in a thread, alone with this device's files. Once begun it ends, also
        when the caller is cancelled."""

        def run() -> T:
            try:
                return step(*args, **kwargs)
            finally:
                with contextlib.suppress(OSError, BadInput):
                    self.promised_bytes = self.rounds.promised_bytes()

        return await self._alone(run)

    async def _alone(self, step: Callable[[], T]) -> T:
        async with self._lock:
            work = asyncio.get_running_loop().run_in_executor(self._house.threads, step)
            try:
                return await asyncio.shield(work)
            except asyncio.CancelledError:
                await asyncio.wait([work])
                raise

    def post(self, message: Message) -> None:
        """Say something if the device is connected."""
        if self.connection is not None:
            with contextlib.suppress(ConnectionError):  # its own reader will notice
                self.connection.post(message)

    async def converse(self, connection: Connection) -> None:
        """Serve an authenticated connection until it ends, by an exception or by a newer one."""
        if self.connection is not None:
            self.connection.abort()  # the one before was cut and nobody has noticed
        self.connection, self._upload_open, self.link_state = connection, False, "connected"
        state, limits = self.rounds.state, self._limits
        why = ""
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
            await self.announce()
            while self.connection is connection:
                await self._handle(await connection.receive())
        except BadInput as error:
            why = f" (refused: {error})"
            raise
        except (OSError, TimeoutError) as error:
            why = f" ({error or 'silent for too long'})"
            raise
        finally:
            self._received_bytes += connection.received_bytes
            self._sent_bytes += connection.sent_bytes
            if self.connection is connection:
                self.connection, self.link_state = None, f"away{why}"

    async def announce(self) -> None:
        """Tell the device of the package that waits for it, if there is one."""

        def ready() -> Ready | None:
            round_index = self.rounds.ready_round()
            if round_index is None:
                return None
            size, digest = self.rounds.package(round_index)
            signature = self._house.keys.sign_update(self.device_id, round_index, size, digest)
            return Ready(round_index, size, digest, signature)

        if self.connection is not None and (update := await self.on_disk(ready)) is not None:
            self.post(update)

    def row(self) -> DeviceRow:
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
            jobs=int(bool(self.job_state)),
            compute_s=self.compute_s,
            applied_round=state.applied_round,
            missed=state.missed,
            map50_95=state.map50_95,
            doing=f"{self.link_state}{'; ' if self.job_state else ''}{self.job_state}",
        )

    async def _handle(self, message: Message) -> None:
        price = _PRICE.get(type(message), 1.0)
        match message:
            case Data():
                if await self._on_data(message):  # new bytes pay for themselves: they are a batch
                    price -= len(message.payload) / CHUNK_BYTES
            case Offer():
                await self._on_offer(message)
            case Fetch():
                await self._on_fetch(message)
            case Applied() | Failed():
                await self._on_result(message)
            case Ping():
                await self._ask_again()
            case _:
                raise BadInput(f"unexpected {type(message).__name__}")
        if (wait_s := self._pace.spend(price)) > 0:
            self._audit("slowed_down", self.device_id, message=type(message).__name__)
            await asyncio.sleep(wait_s)

    async def _on_offer(self, offer: Offer) -> None:
        limits, rounds = self._limits, self.rounds
        for name, value, most in (
            ("batch bytes", offer.size, limits.upload_bytes),
            ("frames", offer.frames, limits.frames),
            ("update bytes", offer.budget_bytes, limits.update_bytes),
        ):
            if not 1 <= value <= most:
                raise BadInput(f"offer of {value} {name}; this edge takes 1 to {most}")
        if not self._house.keys.enrolled(self.device_id):
            raise BadInput("this device is not enrolled any more")
        self._upload_open = False
        more, promised = offer.size + offer.budget_bytes, self._house.promised_bytes()

        def begin() -> Message | int:
            """What to answer, or the byte to go on from."""
            if offer.round_index <= rounds.state.stored_round:
                return Stored(offer.round_index)
            if len(rounds.pending()) >= limits.pending_rounds:
                return Busy(offer.round_index, RETRY_S, "earlier rounds are still waiting")
            if offer != rounds.offer and not self._house.quota.has_room(promised + more):
                return Busy(offer.round_index, RETRY_S, "the edge's disk quota is full")
            return rounds.begin(offer)

        try:
            answer = await self.on_disk(begin)
        except OSError as error:
            self._disk_error(offer.round_index, error)
            return
        if isinstance(answer, Message):
            if isinstance(answer, Stored):
                self._audit("duplicate_offer", self.device_id, round=offer.round_index)
            elif isinstance(answer, Busy):
                self._audit("busy", self.device_id, round=offer.round_index, why=answer.reason)
            self.post(answer)
            return
        if answer:
            self._audit("resumed", self.device_id, round=offer.round_index, offset=answer)
        self._upload_open, self._asked_offset = True, answer
        self.link_state = f"uploading round {offer.round_index}"
        if answer == offer.size:
            await self._finish_upload(offer)
        else:
            self.post(Accept(offer.round_index, answer))

    async def _on_data(self, data: Data) -> bool:
        """Keep a chunk; whether it brought new bytes."""
        rounds, offer = self.rounds, self.rounds.offer
        if not self._upload_open or offer is None or data.round_index != offer.round_index:
            if data.round_index > rounds.state.stored_round and offer is None:
                raise BadInput("data of a batch that was not offered")
            return False  # sent before it heard that the upload is over or has to wait

        def keep() -> tuple[int, int]:
            if rounds.offer != offer:
                return 0, offer.size  # a newer connection has been faster
            return rounds.append(data.offset, data.payload), rounds.received_bytes()

        try:
            fresh, have = await self._alone(keep)
        except OSError as error:
            self._disk_error(offer.round_index, error)
            return False
        self.promised_bytes -= fresh
        if not fresh:
            self._audit("duplicate_data" if data.offset < have else "gap", self.device_id)
            if data.offset > have != self._asked_offset:  # ask once for each gap
                self._asked_offset = have
                self.post(Accept(offer.round_index, have))
        elif have == offer.size:
            await self._finish_upload(offer)
        await self._pace_bytes(len(data.payload))
        return fresh > 0

    async def _ask_again(self) -> None:
        """A device with nothing to say has sent all it was asked for: what an upload still
        lacks came out of order and was dropped."""
        offer = self.rounds.offer
        if self._upload_open and offer is not None:
            self._asked_offset = await self.on_disk(self.rounds.received_bytes)
            self.post(Accept(offer.round_index, self._asked_offset))

    async def _pace_bytes(self, n_bytes: int) -> None:
        now_s = time.monotonic()
        rate = self._limits.upload_bytes_per_s
        self._paced_until_s = max(self._paced_until_s, now_s) + n_bytes / rate
        if self._paced_until_s > now_s:
            await asyncio.sleep(self._paced_until_s - now_s)

    async def _finish_upload(self, offer: Offer) -> None:
        def finish() -> bool | None:
            if self.rounds.offer != offer:
                return None  # a newer connection has been faster
            return self.rounds.finish(self.rounds.digest())

        try:
            whole = await self.on_disk(finish)
        except OSError as error:
            self._disk_error(offer.round_index, error)
            return
        if whole is None:
            return
        self.link_state = "connected"
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
            await self._house.schedule(self)
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

    async def _on_fetch(self, fetch: Fetch) -> None:
        path = self.rounds.package_path(fetch.round_index)

        def size() -> int | None:
            return path.stat().st_size if fetch.round_index == self.rounds.ready_round() else None

        have = await self.on_disk(size)
        if have is None:
            self.post(Missed(fetch.round_index, "there is no such package any more"))
            return
        if fetch.offset > have:
            raise BadInput(f"fetch from byte {fetch.offset} of a shorter package")
        self.link_state = f"downloading round {fetch.round_index}"
        if self.connection is not None:
            self.connection.stream(file_chunks(path, fetch.round_index, fetch.offset))

    async def _on_result(self, message: Applied | Failed) -> None:
        rounds, round_index = self.rounds, message.round_index
        value = message.map50_95 if isinstance(message, Applied) else math.nan
        if not (math.isnan(value) or 0 <= value <= 1):
            raise BadInput(f"mAP {value} is not in [0, 1]")
        measured = None if math.isnan(value) else value

        def note() -> bool:
            if round_index <= rounds.state.resolved_round:
                return False  # said again: it could not know it was heard
            if round_index != rounds.ready_round():
                raise BadInput(f"result of round {round_index}, which has no package")
            rounds.resolve(round_index, measured, applied=isinstance(message, Applied))
            return True

        if await self.on_disk(note):
            self.link_state = "connected"
            if isinstance(message, Applied):
                self._audit(
                    "applied",
                    self.device_id,
                    round=round_index,
                    map50_95=measured,
                    model=message.model_sha256.hex(),
                )
            else:
                self._audit("missed", self.device_id, round=round_index, why=message.reason)
            await self._house.schedule(self)
        self.post(Noted(round_index))
