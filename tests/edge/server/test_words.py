"""What an enrolled device may say, and what ends its connection."""

from __future__ import annotations

import asyncio
import hashlib
import math
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path

import pytest

from endedge.edge.server.service import EdgeService, ServeConfig
from endedge.link import messages as m
from tests.edge.server.kit import LIMITS, Peer, adapt, edge_on, events, offer_of, whole_upload

Talk = Callable[[Peer], Awaitable[None]]


async def _too_large(peer: Peer) -> None:
    peer.say(replace(offer_of(b"x"), size=100_001))


async def _too_many_frames(peer: Peer) -> None:
    peer.say(replace(offer_of(b"x"), frames=11))


async def _too_large_update(peer: Peer) -> None:
    peer.say(replace(offer_of(b"x"), budget_bytes=50_001))


async def _nothing(peer: Peer) -> None:
    peer.say(replace(offer_of(b"x"), size=0))


async def _unoffered(peer: Peer) -> None:
    peer.say(m.Data(1, 0, b"x"))


async def _beyond(peer: Peer) -> None:
    peer.say(offer_of(b"x" * 10))
    await peer.hear(m.Accept)
    peer.say(m.Data(1, 5, b"x" * 10))


async def _lying_hash(peer: Peer) -> None:
    peer.say(replace(offer_of(b"x" * 10), sha256=bytes(32)))
    for _ in range(3):
        assert (await peer.hear(m.Accept)).offset == 0
        peer.say(m.Data(1, 0, b"x" * 10))


async def _result_without_package(peer: Peer) -> None:
    peer.say(m.Applied(1, bytes(32), 0.5))


async def _impossible_map(peer: Peer) -> None:
    await whole_upload(peer)
    await peer.hear(m.Ready)
    peer.say(m.Applied(1, bytes(32), math.inf))


async def _fetch_beyond(peer: Peer) -> None:
    await whole_upload(peer)
    await peer.hear(m.Ready)
    peer.say(m.Fetch(1, 33))


async def _edges_words(peer: Peer) -> None:
    peer.say(m.Welcome(1, 1, 1, 1, 1))


@pytest.mark.parametrize(
    ("talk", "why"),
    [
        (_too_large, "100001 batch bytes"),
        (_too_many_frames, "11 frames"),
        (_too_large_update, "50001 update bytes"),
        (_nothing, "0 batch bytes"),
        (_unoffered, "not offered"),
        (_beyond, "beyond"),
        (_lying_hash, "3 times"),
        (_result_without_package, "no package"),
        (_impossible_map, "mAP inf"),
        (_fetch_beyond, "shorter package"),
        (_edges_words, "unexpected Welcome"),
    ],
)
def test_an_enrolled_device_keeps_to_its_part(tmp_path: Path, talk: Talk, why: str) -> None:
    async def run() -> None:
        async with edge_on(tmp_path) as edge, Peer.open(edge) as peer:
            await talk(peer)
            assert why in await peer.told_to_go()

    asyncio.run(run())


def test_duplicates_and_reordering_count_once(tmp_path: Path) -> None:
    batch = bytes(range(200)) * 100
    pieces = [m.Data(1, k, batch[k : k + 4000]) for k in range(0, len(batch), 4000)]

    async def run() -> None:
        async with edge_on(tmp_path) as edge, Peer.open(edge) as peer:
            peer.say(offer_of(batch), offer_of(batch))
            await peer.hear(m.Accept)
            await peer.hear(m.Accept)
            peer.say(pieces[0], pieces[0], pieces[2])  # twice, then a gap
            assert (await peer.hear(m.Accept)).offset == 4000
            peer.say(pieces[3], pieces[1], pieces[0], *pieces[2:], pieces[4])
            await peer.hear(m.Stored)
            ready = await peer.hear(m.Ready)
            peer.say(offer_of(batch))  # the whole batch once more
            await peer.hear(m.Stored)
            peer.say(m.Fetch(1, 0), m.Fetch(1, 0))
            data = await peer.hear(m.Data)
            assert hashlib.sha256(data.payload).digest() == ready.sha256
            peer.say(m.Applied(1, bytes(32), 0.5), m.Applied(1, bytes(32), 0.5))
            noted = 0
            while noted < 2:
                said = await peer.connection.receive()
                assert isinstance(said, m.Data | m.Noted)
                noted += isinstance(said, m.Noted)
            (row,) = edge.rows()
            assert (row.batches, row.frames, row.upload_bytes) == (1, 3, len(batch))
            assert row.applied_round == 1

    asyncio.run(run())
    assert events(tmp_path).count("stored") == events(tmp_path).count("applied") == 1


def test_a_device_reaches_only_its_own_package(tmp_path: Path) -> None:
    async def run() -> None:
        async with edge_on(tmp_path) as edge, Peer.open(edge, "one") as one:
            await whole_upload(one)
            await one.hear(m.Ready)
            async with Peer.open(edge, "two") as two:
                two.say(m.Fetch(1, 0))
                assert "no such package" in (await two.hear(m.Missed)).reason
            one.say(m.Fetch(1, 0))
            assert len((await one.hear(m.Data)).payload) == 32

    asyncio.run(run())


def test_busy_edge_asks_to_wait(tmp_path: Path) -> None:
    async def run() -> None:
        limits = replace(LIMITS, pending_rounds=1)
        config = ServeConfig(tmp_path / "edge", port=0, limits=limits)
        async with EdgeService(config, adapt) as edge, Peer.open(edge) as peer:
            await whole_upload(peer)
            await peer.hear(m.Ready)
            peer.say(offer_of(b"y" * 10, 2))
            assert (await peer.hear(m.Busy)).round_index == 2
            peer.say(m.Failed(1, "no"), offer_of(b"y" * 10, 2))
            await peer.hear(m.Noted)
            assert (await peer.hear(m.Accept)).round_index == 2

    asyncio.run(run())
