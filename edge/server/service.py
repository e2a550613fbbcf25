"""The edge server: many devices, their uploads, fair adaptation jobs, signed packages.

One event loop serves all sockets; the disk is touched in threads, adaptation jobs run in processes
of their own (or in threads, where the caller trusts what it passes). Everything that must survive
a kill is on disk before it is acknowledged (:mod:`endedge.edge.server.journal`). Memory is bounded
whatever peers send: a frame is at most 16 KiB, chunks go straight to disk, and a device that is to
wait is simply not read from. ``docs/protocol.md`` describes the dialogue, and what a hostile
device can and cannot do.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
import time
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

from endedge.data.errors import BadInput
from endedge.edge.server.audit import Audit
from endedge.edge.server.door import Converse, Door, NotNow
from endedge.edge.server.jobs import FairQueue
from endedge.edge.server.journal import Damaged, DeviceRounds
from endedge.edge.server.keys import EdgeKeys, open_keys
from endedge.edge.server.limits import RETRY_S, DiskQuota, Limits
from endedge.edge.server.monitor import DeviceRow, metrics_text, serve_metrics
from endedge.edge.server.registry import Registry
from endedge.edge.server.session import EnrolledDevice, House
from endedge.edge.server.workers import Adapt, Job, JobError, JobProcess, Ticket
from endedge.link.connection import Connection, is_loopback
from endedge.link.messages import Enrol, Hello, Missed

__all__ = ["Adapt", "EdgeService", "Job", "Limits", "ServeConfig"]

P = ParamSpec("P")
T = TypeVar("T")
_MAX_ATTEMPTS = 3  # a batch that kills the server each time is given up
_THREADS = 8  # for the disk
_TIDY_S = 5.0
_DAMAGED_S = 30.0  # when a quarantined device may ask again


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


class EdgeService:
    """``async with EdgeService(config, jobs) as edge: ...`` listens on ``edge.port``.

    ``jobs`` is a :class:`~endedge.edge.server.workers.JobProcess` for each worker, or one function
    that runs in threads of this process (as trustworthy as what devices upload).
    """

    def __init__(self, config: ServeConfig, jobs: Adapt | Sequence[JobProcess]) -> None:
        self.config = config
        self._runners: list[Callable[[Ticket], bytes]] = (
            [partial(_run_here, jobs)] * config.workers if callable(jobs) else list(jobs)
        )
        self._queue = FairQueue()
        self._work = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()
        self.port = 0
        self.metrics_port = 0

    async def __aenter__(self) -> EdgeService:
        config = self.config
        self.keys: EdgeKeys = open_keys(config.folder / "keys")
        self.audit = Audit(config.folder / "audit.jsonl")
        self._metrics: asyncio.Server | None = None
        self._threads = ThreadPoolExecutor(_THREADS, "disk")
        try:
            self._devices = Registry(
                config.folder / "devices", self.keys, self.audit, self._new_device
            )
            house = House(
                config.limits,
                self.keys,
                self.audit,
                self._threads,
                self._schedule,
                DiskQuota(config.folder, config.limits.disk_bytes),
                self._devices.promised_bytes,
            )
            self._house = house
            for device in self._devices.load():
                await self._schedule(device)
            self._listener = _listen(config.host, config.port)
            self.port = self._listener.getsockname()[1]
            if config.metrics_port is not None:
                try:
                    self._metrics = await serve_metrics(config.metrics_port, self.metrics)
                except OSError as error:
                    self._listener.close()
                    raise BadInput(
                        f"cannot listen on 127.0.0.1, port {config.metrics_port}: {error}"
                    ) from None
                self.metrics_port = self._metrics.sockets[0].getsockname()[1]
        except BaseException:
            self.audit.close()
            self._threads.shutdown()
            raise
        door = Door(
            self._listener,
            self.keys,
            self.audit,
            config.limits,
            secure=config.secure,
            heartbeat_s=config.heartbeat_s,
            idle_timeout_s=config.idle_timeout_s,
            admit=self._admit,
        )
        self._spawn(self._supervised(door.run))
        for runner in self._runners:
            self._spawn(self._supervised(partial(self._worker, runner)))
        self._spawn(self._supervised(self._tidy))
        self.audit("started", port=self.port, secure=config.secure)
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._metrics is not None:
            self._metrics.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.wait(self._tasks)
        self._listener.close()
        for runner in self._runners:
            if isinstance(runner, JobProcess):
                runner.close()
        self._threads.shutdown()
        self.audit("stopped")
        self.audit.close()

    def rows(self) -> list[DeviceRow]:
        """Every known device, for the live table and the metrics."""
        return self._devices.rows()

    def jobs_running(self) -> int:
        """Adaptation jobs queued or running."""
        return len(self._queue)

    def metrics(self) -> str:
        """Prometheus text."""
        return metrics_text(self.rows(), self.audit.counts)

    # Devices ---------------------------------------------------------------------------------

    def _new_device(self, device_id: str, rounds: DeviceRounds) -> EnrolledDevice:
        return EnrolledDevice(device_id, rounds, self._house)

    async def _admit(self, message: Enrol | Hello, nonce: bytes) -> tuple[str, Converse]:
        """Check who it is; its name, and what converses with it."""
        name, most = message.device_id, self.config.limits.devices
        loop = asyncio.get_running_loop()
        if isinstance(message, Enrol):
            if name not in self._devices and len(self._devices) >= most:
                raise NotNow(f"this edge takes {most} devices", _DAMAGED_S)
            token = message.token if self.config.secure else None
            enrol = partial(
                self.keys.enrol, nonce, name, message.device_key, message.signature, token
            )
            if await loop.run_in_executor(self._threads, enrol):
                self.audit("enrolled", name)
                self._devices.forget(name)  # another key: another device, which starts at round 1
        else:
            self.keys.check_hello(nonce, name, message.signature)
        connected, device = self._devices.get(name), self._devices.find(name)
        if device is not None and device is not connected:
            with self._quarantining(device):  # mended by the operator: its batches may wait
                await self._schedule(device)
        if device is None:
            why = "its files on the edge are damaged, which the operator has to mend"
            raise NotNow(why, _DAMAGED_S)
        if (wait_s := device.greetings.wait_s(1.0)) > 0:
            raise NotNow("too many connections of this device", wait_s)
        return name, partial(self._converse, device)

    async def _converse(self, device: EnrolledDevice, connection: Connection) -> None:
        with self._quarantining(device):
            await device.converse(connection)

    @contextlib.contextmanager
    def _quarantining(self, device: EnrolledDevice) -> Any:
        """Whatever goes wrong with a device's files, or in our handling of it, is that device's."""
        try:
            yield
        except OSError:  # a connection that was cut, a disk that is full: it passes
            raise
        except Exception as error:
            if isinstance(error, BadInput) and not isinstance(error, Damaged):
                raise
            named = "" if isinstance(error, Damaged) else f"{type(error).__name__}: "
            if self._devices.get(device.device_id) is device:
                self._devices.quarantine(device.device_id, f"{named}{error}")
            raise NotNow("its files on the edge are damaged", _DAMAGED_S) from None

    # Jobs ------------------------------------------------------------------------------------

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _supervised(self, work: Callable[[], Awaitable[None]]) -> None:
        """Run for ever what the server cannot be without."""
        while True:
            try:
                await work()
            except Exception as error:
                self.audit("error", why=f"{type(error).__name__}: {error}")
                await asyncio.sleep(RETRY_S)

    async def _tidy(self) -> None:
        while True:
            await asyncio.sleep(_TIDY_S)
            self.audit.tidy()

    async def _schedule(self, device: EnrolledDevice) -> None:
        round_index = await device.on_disk(device.rounds.next_job)
        if round_index is not None and device.device_id not in self._queue:
            self._queue.add(device.device_id, round_index)
            device.job_state = f"round {round_index} waits for compute"
            self._work.set()

    async def _worker(self, run: Callable[[Ticket], bytes]) -> None:
        while True:
            taken = self._queue.take()
            if taken is None:
                self._work.clear()
                await self._work.wait()
                continue
            name, round_index = taken
            began_s = time.monotonic()
            device = self._devices.get(name)
            if device is not None:
                await self._guarded(device, self._play(device, round_index, run))
                device.job_state = ""
                device.compute_s += time.monotonic() - began_s
            self._queue.done(name, time.monotonic() - began_s)
            if (now := self._devices.get(name)) is not None:
                await self._guarded(now, self._schedule(now))

    async def _guarded(self, device: EnrolledDevice, work: Coroutine[Any, Any, None]) -> None:
        """What a worker does for one device must not end the worker."""
        try:
            with self._quarantining(device):
                await work
        except NotNow:
            pass  # quarantined, and noted
        except OSError as error:
            self.audit("disk_error", device.device_id, why=str(error))
            await asyncio.sleep(RETRY_S)

    async def _play(
        self, device: EnrolledDevice, round_index: int, run: Callable[[Ticket], bytes]
    ) -> None:
        if await device.on_disk(device.rounds.next_job) != round_index:
            return  # it enrolled anew meanwhile
        why = await self._run(device, round_index, run)
        if self._devices.get(device.device_id) is not device:
            return
        if why is None:
            self.audit("adapted", device.device_id, round=round_index)
            await device.announce()
        else:
            await self._written(device, round_index, device.rounds.resolve, round_index)
            self.audit("missed", device.device_id, round=round_index, why=why)
            device.post(Missed(round_index, why.encode()[:200].decode(errors="ignore")))

    async def _run(
        self, device: EnrolledDevice, round_index: int, run: Callable[[Ticket], bytes]
    ) -> str | None:
        """Run one job; None once its package is on disk, else why there will be none."""
        rounds, name = device.rounds, device.device_id
        attempt = await self._written(device, round_index, rounds.count_attempt, round_index)
        if attempt > _MAX_ATTEMPTS:
            return f"the server died {_MAX_ATTEMPTS} times while adapting to this batch"
        budget = await device.on_disk(rounds.budget_bytes, round_index)
        path = rounds.batch_path(round_index)
        ticket = Ticket(name, round_index, rounds.state.applied_round, path, budget)
        self.audit("adapting", name, round=round_index)
        device.job_state = f"adapting to round {round_index} since {time.strftime('%H:%M:%S')}"
        try:
            package = await _in_thread(run, ticket)
        except Exception as error:  # the job is the lead's code: whatever it raises, we go on
            return f"{error}".splitlines()[0] if str(error) else type(error).__name__
        if not 0 < len(package) <= budget:
            return f"package of {len(package)} bytes for a budget of {budget}"
        if self._devices.get(name) is device:  # not if it enrolled anew meanwhile
            await self._written(device, round_index, rounds.save_package, round_index, package)
        return None

    async def _written(
        self,
        device: EnrolledDevice,
        round_index: int,
        write: Callable[P, T],
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> T:
        """What ``write`` returns; while the disk is full, wait and try again: the work is kept."""
        while True:
            try:
                return await device.on_disk(write, *args, **kwargs)
            except OSError as error:
                self.audit("disk_error", device.device_id, round=round_index, why=str(error))
                await asyncio.sleep(RETRY_S)


def _listen(host: str, port: int) -> socket.socket:
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        listener = socket.create_server((host, port), family=family, backlog=256)
    except OSError as error:
        raise BadInput(f"cannot listen on {host}, port {port}: {error}") from None
    listener.setblocking(False)
    return listener


def _run_here(adapt: Adapt, ticket: Ticket) -> bytes:
    try:
        return adapt(ticket.job())
    except BadInput as error:  # a sentence for people
        raise JobError(str(error)) from error
    except Exception as error:
        raise JobError(f"{type(error).__name__}: {error}") from error


async def _in_thread(run: Callable[[Ticket], bytes], ticket: Ticket) -> bytes:
    """Run a job in a daemon thread, which a stopping server need not wait for."""
    loop = asyncio.get_running_loop()
    future: asyncio.Future[bytes] = loop.create_future()

    def settle(result: bytes | None, error: Exception | None) -> None:
        if not future.done():
            if error is not None:
                future.set_exception(error)
            else:
                future.set_result(result or b"")

    def work() -> None:
        result, failure = None, None
        try:
            result = run(ticket)
        except Exception as error:
            failure = error
        with contextlib.suppress(RuntimeError):  # the loop has gone
            loop.call_soon_threadsafe(settle, result, failure)

    threading.Thread(target=work, daemon=True, name=f"adapt {ticket.device_id}").start()
    return await future
