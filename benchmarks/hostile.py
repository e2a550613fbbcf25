"""Company for a campaign: two hostile enrolled devices, a hundred idle sockets, and a clock.

    python -m benchmarks.hostile FOLDER PORT SECONDS company|probe

Runs beside ``faults.py --hostile`` and ``soak.py --hostile``, on loopback only. ``flood`` sends
offers, duplicates and heartbeats as fast as the edge reads them; ``bomb`` uploads batches of WebP
frames that decode to gigabytes, and batches whose job kills its process or never ends. A hundred
sockets say nothing and come back when they are dropped. ``probe`` is a device in good order that
greets every two seconds, from its own process: the time from its first packet to its welcome is
what is reported, beside how late that process itself was woken (what a busy machine does to any).
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import io
import json
import os
import random
import signal
import statistics
import subprocess
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from functools import partial
from pathlib import Path
from typing import TypeVar

import numpy as np
from PIL import Image

from endedge.data.codec import EncodedFrame, RefusedFrame, decode_batch, pack_batch
from endedge.edge.server.service import Adapt, Job
from endedge.edge.server.workers import JobLimits, JobProcess
from endedge.end.client.identity import Identity
from endedge.link import messages as m
from endedge.link.connection import READ_LIMIT_BYTES, Connection

T = TypeVar("T", bound=m.Message)
NAMES = ("flood", "bomb", "probe")
LIMITS = JobLimits(memory_bytes=700 * 2**20, seconds=8.0)
IDLE, PROBE_EVERY_S = 100, 2.0
_MOST_TRIES, _MOST_OF_ONE = 200_000, 500  # each loop here ends


def processes(adapt: Adapt, n: int) -> list[JobProcess]:
    """Processes for jobs that do what ``bomb`` uploads, and else what ``adapt`` does."""
    return [JobProcess(partial(_make, adapt), LIMITS) for _ in range(n)]


def _make(adapt: Adapt) -> Adapt:
    return partial(_job, adapt)


def _job(adapt: Adapt, job: Job) -> bytes:
    if job.device_id != "bomb":
        return adapt(job)
    if job.batch == b"die":
        os.kill(os.getpid(), signal.SIGKILL)
    if job.batch == b"hang":
        time.sleep(3600)
    kept = [item for item in decode_batch(job.batch) if not isinstance(item, RefusedFrame)]
    return np.concatenate([picture.ravel() for _, picture in kept]).tobytes()[:100]


def bombs() -> bytes:
    """40 frames, 2 kB, 2 GB when decoded."""
    out = io.BytesIO()
    Image.new("RGB", (4096, 4096)).save(out, "WEBP", lossless=True, quality=0, method=0)
    return pack_batch([EncodedFrame(k, out.getvalue()) for k in range(40)])


class Peer:
    """A device made of bare messages."""

    def __init__(self, folder: Path, port: int, name: str) -> None:
        bundle = folder / "edge" / "keys" / "bundles" / f"{name}.json"
        (folder / name).mkdir(exist_ok=True)
        self._identity = Identity(name, folder / name, bundle)
        self._port = port

    @contextlib.asynccontextmanager
    async def met(self) -> AsyncIterator[tuple[Connection, m.Welcome]]:
        reader, writer = await asyncio.open_connection(
            "127.0.0.1", self._port, ssl=self._identity.tls, limit=READ_LIMIT_BYTES
        )
        connection = Connection(reader, writer, heartbeat_s=60, idle_timeout_s=20)
        try:
            connection.start()
            challenge = await hear(connection, m.Challenge)
            connection.post(self._identity.answer(challenge))
            welcome = await hear(connection, m.Welcome)
            self._identity.welcomed(challenge)
            yield connection, welcome
        finally:
            await connection.close()


async def hear(connection: Connection, *kinds: type[T]) -> T:
    for _ in range(_MOST_TRIES):
        message = await connection.receive()
        if isinstance(message, kinds):
            return message
        if isinstance(message, m.Deferred):
            await asyncio.sleep(min(message.retry_s, 2.0))
            raise ConnectionError(message.reason)
    raise ConnectionError("nothing of use")


async def flood(peer: Peer, until_s: float, counts: Counter[str]) -> None:
    """Offers of other batches, one byte again and again, heartbeats: as fast as they are read."""
    dice = random.Random(1)
    while time.monotonic() < until_s:
        with contextlib.suppress(OSError, TimeoutError):
            async with peer.met() as (connection, welcome):
                k, deaf = welcome.stored_round + 1, asyncio.create_task(listen(connection))
                raw = connection._writer
                try:
                    for _ in range(_MOST_OF_ONE):
                        if time.monotonic() > until_s or deaf.done() or raw.is_closing():
                            break
                        offer = m.Offer(k, 1000, dice.randbytes(32), 1, 1000)
                        for said in (offer, *[m.Data(k, 0, b"x")] * 20, m.Ping(), m.Fetch(k, 0)):
                            raw.write(m.encode(said))
                            counts["messages of flood"] += 1
                        await raw.drain()
                        await asyncio.sleep(0)  # draining need not wait
                finally:
                    deaf.cancel()
        await asyncio.sleep(0.2)


async def listen(connection: Connection) -> None:
    with contextlib.suppress(OSError, TimeoutError):
        while True:
            await connection.receive()


async def bomb(peer: Peer, until_s: float, counts: Counter[str]) -> None:
    """One bad batch after the other."""
    kinds, turn = {"bombs": bombs(), "die": b"die", "hang": b"hang"}, 0
    while time.monotonic() < until_s:
        with contextlib.suppress(OSError, TimeoutError):
            async with peer.met() as (connection, welcome):
                k = max(welcome.stored_round, welcome.resolved_round) + 1
                name = ("bombs", "die", "bombs", "hang")[turn % 4]
                batch, turn = kinds[name], turn + 1
                digest = hashlib.sha256(batch).digest()
                connection.post(m.Offer(k, len(batch), digest, 40, 1000))
                await hear(connection, m.Accept)
                connection.post(m.Data(k, 0, batch))
                await hear(connection, m.Stored)
                counts[f"batches of {name}"] += 1
                await hear(connection, m.Missed)
        await asyncio.sleep(0.5)


async def idle(port: int, until_s: float, counts: Counter[str]) -> None:
    """Say nothing, and come back when dropped."""
    for _ in range(_MOST_TRIES):
        if time.monotonic() > until_s:
            return
        try:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
        except OSError:
            await asyncio.sleep(0.05)
            continue
        counts["idle sockets"] += 1
        with contextlib.suppress(OSError, TimeoutError):
            async with asyncio.timeout(max(0.0, until_s - time.monotonic())):
                while await reader.read(65536):
                    pass
        writer.transport.abort()
        await asyncio.sleep(0.01)


async def probe(folder: Path, port: int, until_s: float, result: dict[str, object]) -> None:
    """How long a greeting takes."""
    peer, seconds, late, counts = Peer(folder, port, "probe"), [], [], Counter[str]()
    try:
        while time.monotonic() < until_s - PROBE_EVERY_S:
            began_s = time.perf_counter()
            try:
                async with peer.met():
                    seconds.append(time.perf_counter() - began_s)
            except ConnectionRefusedError:  # the edge has been killed: nothing to be measured
                counts["probes without an edge"] += 1
            except (OSError, TimeoutError):
                counts["probes that were cut"] += 1
            began_s = time.perf_counter()
            await asyncio.sleep(PROBE_EVERY_S)
            late.append(time.perf_counter() - began_s - PROBE_EVERY_S)
    finally:
        result |= counts
        result["handshakes"] = len(seconds)
        for what, values in (("handshake", seconds), ("machine late by", late)):
            ordered = sorted(values) or [float("nan")]
            result[f"{what} ms: median"] = 1e3 * statistics.median(ordered)
            result[f"{what} ms: 95 %"] = 1e3 * ordered[int(0.95 * (len(ordered) - 1))]
            result[f"{what} ms: worst"] = 1e3 * ordered[-1]


async def company(folder: Path, port: int, until_s: float, result: dict[str, object]) -> None:
    """The hostile ones and the idle ones."""
    counts = Counter[str]()
    try:
        await asyncio.gather(
            flood(Peer(folder, port, "flood"), until_s, counts),
            bomb(Peer(folder, port, "bomb"), until_s, counts),
            *(idle(port, until_s, counts) for _ in range(IDLE)),
        )
    finally:
        result |= counts


async def role(folder: Path, port: int, seconds: float, name: str) -> None:
    result: dict[str, object] = {}
    until_s = time.monotonic() + seconds
    work = asyncio.ensure_future(
        (probe if name == "probe" else company)(folder, port, until_s, result)
    )
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, work.cancel)
    with contextlib.suppress(asyncio.CancelledError):
        await work
    (folder / f"{name}.json").write_text(json.dumps(result, indent=1))


class Company:
    """The roles as processes; ``with Company(...)``, then :meth:`results`."""

    def __init__(self, folder: Path, port: int, seconds: float, roles: Sequence[str]) -> None:
        self._folder, self._roles = folder, roles
        script = [sys.executable, __file__, str(folder), str(port), str(seconds)]
        self._processes = [subprocess.Popen([*script, name]) for name in roles]

    def results(self) -> dict[str, object]:
        """End them, and what they counted."""
        found: dict[str, object] = {}
        for process in self._processes:
            process.terminate()
        for process, name in zip(self._processes, self._roles, strict=True):
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(20)
            process.kill()
            found |= json.loads((self._folder / f"{name}.json").read_text())
        return found

    def __enter__(self) -> Company:
        return self

    def __exit__(self, *_: object) -> None:
        for process in self._processes:
            process.kill()


if __name__ == "__main__":
    asyncio.run(role(Path(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3]), sys.argv[4]))
