"""A process for jobs: what one job does to it costs that job."""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import signal
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest

from endedge.data.errors import BadInput
from endedge.edge.server.service import EdgeService, Job, ServeConfig
from endedge.edge.server.workers import JobError, JobLimits, JobProcess, Ticket
from endedge.link import messages as m
from tests.edge.server.kit import LIMITS, Peer, adapt, offer_of

MIB = 2**20


def misbehave(job: Job) -> bytes:
    """A job that does what its batch says, as a decoder with a hole would."""
    word = job.batch.decode()
    if word == "die":
        os.kill(os.getpid(), signal.SIGKILL)
    if word == "sleep":
        time.sleep(60)
    if word == "grow":
        hoard = [bytearray(16 * MIB) for _ in range(100)]
        return bytes(len(hoard))
    if word == "long":
        return bytes(job.budget_bytes + 1)
    if word == "raise":
        raise ValueError("no \x1b[31m such frame\nsecond line")
    return adapt(job)


def make() -> Callable[[Job], bytes]:
    return misbehave


def make_nothing() -> Callable[[Job], bytes]:
    raise BadInput("weights not found: student.pt")


@pytest.fixture(scope="module")
def process() -> Iterator[JobProcess]:
    made = JobProcess(make, JobLimits(memory_bytes=400 * MIB, seconds=3.0))
    made.start()
    yield made
    made.close()


def ticket(folder: Path, word: str, device_id: str = "cam") -> Ticket:
    path = folder / "1.batch"
    path.write_text(word)
    return Ticket(device_id, 1, 0, path, 100)


@pytest.mark.parametrize(
    ("word", "why", "same"),
    [
        ("die", "SIGKILL", False),
        ("sleep", "took more than 3 s", False),
        ("grow", "more memory than a job may have", False),
        ("long", "package of 101 bytes", True),
        ("raise", "no \\?\\[31m such frame$", True),
    ],
)
def test_a_bad_job_costs_itself(
    tmp_path: Path, process: JobProcess, word: str, why: str, same: bool
) -> None:
    before = process.pid
    with pytest.raises(JobError, match=why):
        process(ticket(tmp_path, word))
    assert process(ticket(tmp_path, "good")) == adapt(Job("cam", 1, 0, b"good", 100))
    assert (process.pid == before) is same


def test_what_is_wrong_with_its_inputs_is_said_before_anybody_is_served() -> None:
    process = JobProcess(make_nothing, JobLimits())
    with pytest.raises(BadInput, match="weights not found"):
        process.start()
    process.close()
    with pytest.raises(BadInput, match="above 0"):
        JobLimits(seconds=0)
    assert JobLimits().data_bytes > 2**28


def test_the_service_goes_on_beside_dying_jobs(tmp_path: Path) -> None:
    process = JobProcess(make, JobLimits(memory_bytes=400 * MIB, seconds=3.0))
    process.start()  # its own: the service closes it

    async def upload(peer: Peer, word: bytes) -> None:
        peer.say(offer_of(word))
        await peer.hear(m.Accept)
        peer.say(m.Data(1, 0, word))
        await peer.hear(m.Stored)

    async def run() -> None:
        config = ServeConfig(tmp_path / "edge", port=0, limits=LIMITS)
        async with EdgeService(config, [process]) as edge:
            async with Peer.open(edge, "evil") as evil, Peer.open(edge, "good") as good:
                await upload(evil, b"die")
                await upload(good, b"good")
                assert "died" in (await evil.hear(m.Missed)).reason
                assert (await good.hear(m.Ready)).size == 32
            rows = {row.device_id: row.missed for row in edge.rows()}
            assert rows == {"evil": 1, "good": 0}

    asyncio.run(run())


def test_it_ends_with_a_killed_server(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    server = context.Process(target=partial(_serve_until_killed, theirs))
    server.start()
    child = ours.recv()
    server.kill()
    server.join(10)
    deadline_s = time.monotonic() + 20
    while Path(f"/proc/{child}").exists() and time.monotonic() < deadline_s:
        if Path(f"/proc/{child}/stat").read_text().split()[2] == "Z":
            break  # it has ended; nobody has taken note yet
        time.sleep(0.05)
    else:
        assert not Path(f"/proc/{child}").exists()


def _serve_until_killed(pipe: object) -> None:
    process = JobProcess(make, JobLimits())
    process.start()
    pipe.send(process.pid)  # type: ignore[attr-defined]
    time.sleep(60)
