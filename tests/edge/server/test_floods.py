"""Enrolled devices that talk as fast as they can: slowed down, and their traces stay."""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from dataclasses import replace
from pathlib import Path

import pytest

from endedge.edge.server.journal import DeviceRounds
from endedge.edge.server.monitor import line
from endedge.link import messages as m
from tests.edge.server.kit import (
    LIMITS,
    Peer,
    edge_on,
    events,
    honest_round,
    offer_of,
    trace,
    whole_upload,
)

PACED = replace(LIMITS, messages_per_s=20.0)


async def flood(peer: Peer, message: m.Message, n: int) -> None:
    """Say something ``n`` times, as fast as the edge reads it."""
    frame = m.encode(message)
    with contextlib.suppress(OSError):
        for _ in range(n):
            peer.raw.write(frame)
            await peer.raw.drain()


async def deaf(peer: Peer) -> None:
    with contextlib.suppress(OSError, TimeoutError):
        while True:
            await peer.connection.receive()


def test_a_flood_of_offers_is_answered_slowly_and_touches_the_disk_seldom(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun: list[object] = []
    real = DeviceRounds.begin

    def counted(self: DeviceRounds, offer: m.Offer) -> int:
        begun.append(offer)
        return real(self, offer)

    monkeypatch.setattr(DeviceRounds, "begin", counted)

    async def run() -> float:
        async with edge_on(tmp_path, limits=PACED) as edge, Peer.open(edge) as peer:
            loop = asyncio.get_running_loop()
            listening, began_s = asyncio.create_task(deaf(peer)), loop.time()
            offers = [m.Offer(1, 1000, os.urandom(32), 1, 1000) for _ in range(400)]
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(1.5):
                    for offer in offers:
                        await flood(peer, offer, 1)
                    await asyncio.sleep(5)
            seconds = loop.time() - began_s
            await honest_round(tmp_path, edge)
            listening.cancel()
            return seconds

    seconds = asyncio.run(run())
    of_flood = [offer for offer in begun if isinstance(offer, m.Offer) and offer.size == 1000]
    # 40 tokens at once and 20 a second buy an offer each ten; honest rounds take time besides
    assert 1 <= len(of_flood) <= 4 + 2 * (seconds + 30)
    assert len(of_flood) < 400
    assert "slowed_down" in events(tmp_path)


def test_writing_to_the_disk_does_not_hold_the_event_loop(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A disk that takes half a second for each step: everybody else is served meanwhile."""
    inside: list[float] = []
    for name in ("begin", "append", "resolve", "count_attempt"):
        real = getattr(DeviceRounds, name)

        def slow(self: DeviceRounds, *args: object, real: object = real, **named: object) -> object:
            inside.append(time.monotonic())
            time.sleep(0.5)
            return real(self, *args, **named)  # type: ignore[operator]

        monkeypatch.setattr(DeviceRounds, name, slow)

    async def run() -> int:
        async with edge_on(tmp_path) as edge, Peer.open(edge) as peer:
            peer.say(offer_of(b"x" * 10))
            ticks = 0
            accepted = asyncio.create_task(peer.hear(m.Accept))
            while not accepted.done():
                await asyncio.sleep(0.005)
                ticks += 1
            return ticks

    assert asyncio.run(run()) > 5  # on the loop it would be none between the offer and its answer
    assert inside


def test_repeated_data_costs_the_peer_not_the_log(tmp_path: Path) -> None:
    async def run() -> None:
        async with edge_on(tmp_path, limits=replace(LIMITS, messages_per_s=10_000)) as edge:
            async with Peer.open(edge) as peer:
                peer.say(m.Offer(1, 10_000, bytes(32), 1, 1000))
                await peer.hear(m.Accept)
                await flood(peer, m.Data(1, 0, b"x" * 100), 1)
                await flood(peer, m.Data(1, 0, b"x"), 500)
                peer.say(m.Data(1, 9000, b"x"))  # a gap: answered, so all before it was read
                await peer.hear(m.Accept)
            assert edge.audit.counts["duplicate_data"] == 500

    asyncio.run(run())
    entries = trace(tmp_path)
    lines = [entry for entry in entries if entry["event"] == "duplicate_data"]
    (rest,) = [e for e in entries if e.get("of") == "duplicate_data"]
    assert len(lines) == 20
    assert rest["device"] == "peer"
    assert rest["times"] == 480
    assert {"enrolled", "connected"} <= {entry["event"] for entry in entries}  # not pushed out


def test_a_device_that_only_connects_is_told_to_wait(tmp_path: Path) -> None:
    async def run() -> None:
        limits = replace(LIMITS, greetings_per_s=0.01, penalty_s=0.0)
        async with edge_on(tmp_path, limits=limits) as edge:
            for _ in range(30):
                async with Peer.open(edge):
                    pass
            async with Peer.knock(edge) as peer:
                await peer.enrol("peer")
                assert "too many connections" in await peer.told_to_go()
            await honest_round(tmp_path, edge)

    asyncio.run(run())


def test_the_disk_has_a_bound_for_all_together(tmp_path: Path) -> None:
    async def run() -> None:
        limits = replace(LIMITS, disk_bytes=150_000)
        async with (
            edge_on(tmp_path, limits=limits) as edge,
            Peer.open(edge, "one") as one,
            Peer.open(edge, "two") as two,
        ):
            one.say(m.Offer(1, 90_000, bytes(32), 1, 1000))
            await one.hear(m.Accept)
            two.say(m.Offer(1, 90_000, bytes(32), 1, 1000))  # promised is as good as taken
            assert "quota" in (await two.hear(m.Busy)).reason
            one.say(m.Offer(1, 5_000, bytes(32), 1, 1000))  # instead of the first
            await one.hear(m.Accept)
            two.say(m.Offer(1, 90_000, bytes(32), 1, 1000))
            await two.hear(m.Accept)

    asyncio.run(run())


def test_what_peers_write_reaches_no_terminal(tmp_path: Path) -> None:
    evil = "\x1b]0;owned\x07\x1b[2J\u202egnp\nfake line"

    async def run() -> str:
        async with edge_on(tmp_path) as edge, Peer.open(edge) as peer:
            await whole_upload(peer)
            await peer.hear(m.Ready)
            peer.say(m.Failed(1, evil))
            await peer.hear(m.Noted)
            (row,) = edge.rows()
            return line(row)

    assert asyncio.run(run()).isprintable()
    (missed,) = [entry for entry in trace(tmp_path) if entry["event"] == "missed"]
    assert str(missed["why"]).isprintable()
    assert "fake line" in str(missed["why"])
