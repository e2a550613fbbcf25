"""The edge server: many devices, their uploads, fair adaptation jobs, signed packages.

One event loop serves all sockets; adaptation jobs run in threads and are the only thing that
may take long. Everything that must survive a kill is on disk before it is acknowledged
(:mod:`endedge.edge.server.journal`). Memory is bounded whatever peers send: a frame is at most
16 KiB, chunks go straight to disk, and a device that is to wait is simply not read from.
``docs/protocol.md`` describes the dialogue.
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import shutil
import socket
import threading
import time
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from endedge.data.errors import BadInput
from endedge.edge.server.jobs import FairQueue
from endedge.edge.server.journal import DeviceRounds
from endedge.edge.server.keys import EdgeKeys, create_keys, load_keys
from endedge.edge.server.monitor import Audit, DeviceRow, metrics_text, serve_metrics
from endedge.edge.server.session import RETRY_S, Device, Limits
from endedge.link.connection import READ_LIMIT_BYTES, Connection, is_loopback
from endedge.link.messages import Challenge, Enrol, Hello, Missed, Refused

__all__ = ["Adapt", "EdgeService", "Job", "Limits", "ServeConfig"]

T = TypeVar("T")
_MAX_ATTEMPTS = 3  # a batch that kills the server each time is given up


@dataclass(frozen=True)
class ServeConfig:
    """Where the edge listens and keeps its state.

    ``secure`` (TLS 1.3 and enrolment by token) is required unless ``host`` is loopback.
    ``port`` and ``metrics_port`` 0 take any free one; ``metrics_port`` None has no metrics.
    """

    folder: Path
    host: str = "127.0.0.1"
    port: int = 7070
    secure: bool = False
    metrics_port: int | None = None
    workers: int = 1
    heartbeat_s: float = 5.0
    idle_timeout_s: float = 30.0
    limits: Limits = field(default_factory=Limits)

    def __post_init__(self) -> None:
        if not self.secure and not is_loopback(self.host):
            raise BadInput(f"host {self.host} is not loopback: that needs 'secure: true'")
        if not (0 < self.heartbeat_s < self.idle_timeout_s and self.workers >= 1):
            raise BadInput("give 0 < heartbeat_s < idle_timeout_s and at least one worker")


@dataclass(frozen=True)
class Job:
    """One adaptation: make an update for ``device_id`` of at most ``budget_bytes``.

    ``batch`` is what the device uploaded, byte for byte. ``base_round`` is the round whose
    package the device runs now (0: the model it came with). After a crash the same job may
    be run again, so it should depend on nothing but these fields.
    """

    device_id: str
    round_index: int
    base_round: int
    batch: bytes
    budget_bytes: int


Adapt = Callable[[Job], bytes]


class EdgeService:
    """``async with EdgeService(config, adapt) as edge: ...`` listens on ``edge.port``."""

    def __init__(self, config: ServeConfig, adapt: Adapt) -> None:
        self.config = config
        self._adapt = adapt
        self._devices: dict[str, Device] = {}
        self._queue = FairQueue()
        self._work = asyncio.Event()
        self._handshakes = 0
        self._tasks: set[asyncio.Task[None]] = set()
        self.port = 0
        self.metrics_port = 0

    async def __aenter__(self) -> EdgeService:
        config = self.config
        keys = config.folder / "keys"
        self.keys: EdgeKeys = (
            load_keys(keys) if (keys / "signing.key").exists() else create_keys(keys)
        )
        self._tls = self.keys.tls() if config.secure else None
        self.audit = Audit(config.folder / "audit.jsonl")
        for folder in sorted((config.folder / "devices").glob("*/")):
            self._schedule(self._device(folder.name))
        self._metrics: asyncio.Server | None = None
        port = config.port
        try:
            self._listener = socket.create_server((config.host, port), backlog=256)
            self._listener.setblocking(False)
            self.port = self._listener.getsockname()[1]
            if config.metrics_port is not None:
                port = config.metrics_port
                self._metrics = await serve_metrics(port, self.metrics)
                self.metrics_port = self._metrics.sockets[0].getsockname()[1]
        except OSError as error:
            self.audit.close()
            raise BadInput(f"cannot listen on {config.host}, port {port}: {error}") from None
        self._spawn(self._accept())
        for _ in range(config.workers):
            self._spawn(self._worker())
        self.audit("started", port=self.port, secure=config.secure)
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._metrics is not None:
            self._metrics.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.wait(self._tasks)
        self._listener.close()
        self.audit("stopped")
        self.audit.close()

    def rows(self) -> list[DeviceRow]:
        """Every known device, for the live table and the metrics."""
        return [device.row(name in self._queue) for name, device in sorted(self._devices.items())]

    def jobs_running(self) -> int:
        """Adaptation jobs queued or running."""
        return len(self._queue)

    def metrics(self) -> str:
        """Prometheus text."""
        return metrics_text(self.rows(), self.audit.counts)

    # Connections -----------------------------------------------------------------------------

    async def _accept(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            try:
                knocking, peer = await loop.sock_accept(self._listener)
            except OSError as error:  # no descriptors left: those who are in go on
                self.audit("accept_error", why=str(error))
                await asyncio.sleep(RETRY_S)
                continue
            if self._handshakes >= self.config.limits.handshakes:
                knocking.close()
                self.audit("turned_away", peer=str(peer))
            else:
                self._handshakes += 1
                serving = self._spawn(self._serve(knocking, str(peer)))
                # also when the service stops before the task has begun
                serving.add_done_callback(partial(_hang_up, knocking))

    async def _serve(self, knocking: socket.socket, peer: str) -> None:
        connection: Connection | None = None
        name, last = "", None
        try:
            try:
                async with asyncio.timeout(self.config.limits.handshake_s):
                    connection = await self._open(knocking)
                    device = await self._authenticate(connection)
            finally:
                self._handshakes -= 1
            name = device.device_id
            self.audit("connected", name, peer=peer)
            await device.converse(connection)
        except BadInput as error:
            self.audit("refused", name, peer=peer, why=str(error))
            last = Refused(str(error).encode()[:200].decode(errors="ignore"))
        except (OSError, TimeoutError) as error:
            self.audit("disconnected", name, peer=peer, why=str(error) or type(error).__name__)
        finally:
            if connection is not None:
                await connection.close(last)

    async def _open(self, knocking: socket.socket) -> Connection:
        reader = asyncio.StreamReader(limit=READ_LIMIT_BYTES)
        protocol = asyncio.StreamReaderProtocol(reader)
        loop = asyncio.get_running_loop()
        transport, _ = await loop.connect_accepted_socket(lambda: protocol, knocking, ssl=self._tls)
        connection = Connection(
            reader,
            asyncio.StreamWriter(transport, protocol, reader, loop),
            heartbeat_s=self.config.heartbeat_s,
            idle_timeout_s=self.config.idle_timeout_s,
        )
        connection.start()
        return connection

    async def _authenticate(self, connection: Connection) -> Device:
        nonce = secrets.token_bytes(32)
        connection.post(Challenge(nonce, self.keys.public))
        message = await connection.receive()
        if isinstance(message, Enrol):
            name = message.device_id
            if name not in self._devices and len(self._devices) >= self.config.limits.devices:
                raise BadInput(f"this edge takes {self.config.limits.devices} devices")
            token = message.token if self.config.secure else None
            if self.keys.enrol(nonce, name, message.device_key, message.signature, token):
                self.audit("enrolled", name)
                self._forget(name)  # another key: another device, which starts at round 1
        elif isinstance(message, Hello):
            name = message.device_id
            self.keys.check_hello(nonce, name, message.signature)
        else:
            raise BadInput(f"expected Hello or Enrol, got {type(message).__name__}")
        return self._device(name)

    def _device(self, device_id: str) -> Device:
        if device_id not in self._devices:
            rounds = DeviceRounds(self.config.folder / "devices" / device_id)
            self._devices[device_id] = Device(
                device_id, rounds, self.config.limits, self.keys, self.audit, self._schedule
            )
        return self._devices[device_id]

    def _forget(self, device_id: str) -> None:
        old = self._devices.pop(device_id, None)
        if old is not None and old.connection is not None:
            old.connection.abort()
        shutil.rmtree(self.config.folder / "devices" / device_id, ignore_errors=True)

    # Jobs ------------------------------------------------------------------------------------

    def _spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    def _schedule(self, device: Device) -> None:
        round_index = device.rounds.next_job()
        if round_index is not None and device.device_id not in self._queue:
            self._queue.add(device.device_id, round_index)
            self._work.set()

    async def _worker(self) -> None:
        while True:
            taken = self._queue.take()
            if taken is None:
                self._work.clear()
                await self._work.wait()
                continue
            name, round_index = taken
            device = self._device(name)
            if device.rounds.next_job() == round_index:  # not if it enrolled anew meanwhile
                began_s = time.monotonic()
                why = await self._run(device, round_index)
                device.compute_s += time.monotonic() - began_s
                self._queue.done(name, time.monotonic() - began_s)
                if self._devices.get(name) is device:
                    await self._conclude(device, round_index, why)
            else:
                self._queue.done(name, 0.0)
            self._schedule(self._device(name))

    async def _conclude(self, device: Device, round_index: int, why: str | None) -> None:
        if why is None:
            self.audit("adapted", device.device_id, round=round_index)
            device.announce()
        else:
            await self._written(device, round_index, lambda: device.rounds.resolve(round_index))
            self.audit("missed", device.device_id, round=round_index, why=why)
            device.post(Missed(round_index, why[:100]))

    async def _run(self, device: Device, round_index: int) -> str | None:
        """Run one job; None once its package is on disk, else why there will be none."""
        rounds = device.rounds
        attempt = await self._written(
            device, round_index, lambda: rounds.count_attempt(round_index)
        )
        if attempt > _MAX_ATTEMPTS:
            return f"the server died {_MAX_ATTEMPTS} times while adapting to this batch"
        try:
            job = Job(
                device.device_id,
                round_index,
                rounds.state.applied_round,
                rounds.batch_path(round_index).read_bytes(),
                rounds.budget_bytes(round_index),
            )
            self.audit("adapting", device.device_id, round=round_index)
            package = await _in_thread(self._adapt, job)
        except Exception as error:  # the job is the lead's code: whatever it raises, we go on
            return f"{type(error).__name__}: {error}".splitlines()[0]
        if not 0 < len(package) <= job.budget_bytes:
            return f"package of {len(package)} bytes for a budget of {job.budget_bytes}"
        if self._devices.get(device.device_id) is device:  # not if it enrolled anew meanwhile
            await self._written(
                device, round_index, lambda: rounds.save_package(round_index, package)
            )
        return None

    async def _written(self, device: Device, round_index: int, write: Callable[[], T]) -> T:
        """What ``write`` returns; while the disk is full, wait and try again: the work is kept."""
        while True:
            try:
                return write()
            except OSError as error:
                self.audit("disk_error", device.device_id, round=round_index, why=str(error))
                await asyncio.sleep(RETRY_S)


async def _in_thread(adapt: Adapt, job: Job) -> bytes:
    """Run a job in a daemon thread, which a stopping server need not wait for."""
    loop = asyncio.get_running_loop()
    future: asyncio.Future[bytes] = loop.create_future()

    def settle(result: bytes | None, error: Exception | None) -> None:
        if not future.done():
            if error is not None:
                future.set_exception(error)
            else:
                future.set_result(result or b"")

    def run() -> None:
        result, failure = None, None
        try:
            result = adapt(job)
        except Exception as error:
            failure = error
        with contextlib.suppress(RuntimeError):  # the loop has gone
            loop.call_soon_threadsafe(settle, result, failure)

    threading.Thread(target=run, daemon=True, name=f"adapt {job.device_id}").start()
    return await future


def _hang_up(knocking: socket.socket, _: object) -> None:
    knocking.close()
