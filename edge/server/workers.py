"""Where adaptation jobs run: threads of this process, or a process of their own with limits.

A job decodes and trains on what a device sent, so it is the part of the edge that a device can
make large, slow or dead. :class:`JobProcess` gives it bounded memory and time: what goes beyond
ends that process, which costs the round it worked on; the server starts another. The process
answers in bytes that are not unpickled: the server believes nothing that comes out of it.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import resource
import signal
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from pathlib import Path

from endedge.data.errors import BadInput
from endedge.link.messages import printable

__all__ = ["Adapt", "Job", "JobError", "JobLimits", "JobProcess", "Ticket"]

_START_S = 300.0  # a process imports PyTorch and loads its models
_WHY_BYTES = 2000
_NICE = 5  # training leaves the processor to the sockets when both want it


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


@dataclass(frozen=True)
class Ticket:
    """A job whose batch is still on disk."""

    device_id: str
    round_index: int
    base_round: int
    path: Path
    budget_bytes: int

    def job(self) -> Job:
        """The job; reads the batch."""
        return Job(
            self.device_id,
            self.round_index,
            self.base_round,
            self.path.read_bytes(),
            self.budget_bytes,
        )


class JobError(RuntimeError):
    """A job gave no package; the message says why, in one line."""


@dataclass(frozen=True)
class JobLimits:
    """Limits of the process that runs jobs: ``memory_bytes`` of data (None: half of what the
    machine has; enforced by the kernel, on Linux), ``seconds`` for one job."""

    memory_bytes: int | None = None
    seconds: float = 3600.0

    def __post_init__(self) -> None:
        if not (self.seconds > 0 and (self.memory_bytes is None or self.memory_bytes > 0)):
            raise BadInput("a job's process needs memory_bytes and seconds above 0")

    @property
    def data_bytes(self) -> int:
        """The bound in bytes."""
        if self.memory_bytes is not None:
            return self.memory_bytes
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2


class JobProcess:
    """A process that calls ``make()`` once, then the :data:`Adapt` it returned for each job.

    ``make`` must be picklable. One thread at a time may call it.
    """

    def __init__(self, make: Callable[[], Adapt], limits: JobLimits) -> None:
        self._make, self._limits = make, limits
        self._process: multiprocessing.process.BaseProcess | None = None
        self._pipe: Connection | None = None
        self._closed = False

    @property
    def pid(self) -> int | None:
        """Id of the process that runs just now."""
        return self._process.pid if self._process is not None else None

    def start(self) -> None:
        """Start it and wait until it is ready. Raises :class:`BadInput` with what ``make()``
        found wrong."""
        context = multiprocessing.get_context("spawn")  # a fork would copy threads' locks
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(
            target=_work, args=(theirs, self._make, self._limits.data_bytes), daemon=True
        )
        self._process.start()
        theirs.close()
        try:
            kind, what = self._hear(_START_S, _WHY_BYTES)
        except JobError as error:
            raise BadInput(f"the process for adaptation jobs did not start: {error}") from None
        if kind != b"R":
            self._stop()
            raise BadInput(what.decode(errors="replace"))

    def __call__(self, ticket: Ticket) -> bytes:
        """Run one job and return its package. Raises :class:`JobError`."""
        if self._process is None or not self._process.is_alive():
            self._renew()
        assert self._pipe is not None
        try:
            self._pipe.send(ticket)
            kind, what = self._hear(
                self._limits.seconds, max(ticket.budget_bytes + 1, _WHY_BYTES) + 1
            )
        except (JobError, OSError) as error:
            self._renew()  # now: the time it takes counts as this device's
            raise JobError(str(error)) from None
        if kind == b"F":
            self._renew()
        if kind != b"P":
            raise JobError(printable(what.decode(errors="replace")))
        return what

    def close(self) -> None:
        """End it now, with whatever it does."""
        self._closed = True
        self._stop()

    def _renew(self) -> None:
        self._stop()
        if not self._closed:
            try:
                self.start()
            except BadInput as error:
                raise JobError(str(error)) from None

    def _hear(self, seconds: float, most_bytes: int) -> tuple[bytes, bytes]:
        assert self._pipe is not None
        assert self._process is not None
        began_s = time.monotonic()
        try:
            if not self._pipe.poll(seconds):
                self._stop()
                raise JobError(f"the job took more than {seconds:g} s and was stopped")
            answer = self._pipe.recv_bytes(most_bytes)
        except (EOFError, OSError):
            self._stop()
            code = self._process.exitcode
            spent = time.monotonic() - began_s
            raise JobError(
                f"the process of the job died after {spent:.0f} s ({_said(code)}); it may have "
                f"needed more memory than its {self._limits.data_bytes / 2**20:.0f} MiB"
            ) from None
        return answer[:1], answer[1:]

    def _stop(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.join(10)
        if self._pipe is not None:
            self._pipe.close()


def _said(code: int | None) -> str:
    if code is not None and code < 0:
        with contextlib.suppress(ValueError):
            return f"signal {signal.Signals(-code).name}"
    return f"exit status {code}"


def _work(pipe: Connection, make: Callable[[], Adapt], data_bytes: int) -> None:
    """The life of the process."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the server, which ends us
    threading.Thread(target=_end_with_parent, daemon=True).start()
    with contextlib.suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_DATA, (data_bytes, data_bytes))
    with contextlib.suppress(OSError):
        os.nice(_NICE)
    with contextlib.suppress(OSError):  # if memory runs out all the same, the kernel takes us
        Path("/proc/self/oom_score_adj").write_text("500")
    try:
        adapt = make()
    except BadInput as error:
        pipe.send_bytes(b"E" + _why(str(error)))
        return
    pipe.send_bytes(b"R")
    while True:
        try:
            ticket: Ticket = pipe.recv()
        except EOFError:
            return
        try:
            answer = b"P" + adapt(ticket.job())
        except Exception as error:  # whatever a job raises costs its round and nothing else
            full = isinstance(error, MemoryError) or "allocate memory" in str(error)
            said = "it needs more memory than a job may have" if full else str(error)
            if not isinstance(error, BadInput):  # that is a sentence for people
                said = f"{type(error).__name__}: {said}"
            answer = (b"F" if full else b"E") + _why(said)
        if answer[:1] == b"P" and len(answer) - 1 > ticket.budget_bytes:
            answer = b"E" + _why(
                f"package of {len(answer) - 1} bytes for a budget of {ticket.budget_bytes}"
            )
        pipe.send_bytes(answer)
        if answer[:1] == b"F":
            return  # what is left of the memory is in pieces


def _why(text: str) -> bytes:
    return " ".join(text.splitlines()[:1]).encode()[: _WHY_BYTES - 1]


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    wait([parent.sentinel])
    os._exit(1)  # a killed server must not leave a job that writes beside its successor's
