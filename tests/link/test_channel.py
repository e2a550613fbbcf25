"""The link model against a brute-force oracle, and against itself on chunks."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from endedge.data.errors import BadInput
from endedge.link.channel import Bottleneck, Capacity, Channel, read_channel, read_link

RATES = st.floats(1e4, 1e9)
STARTS = st.floats(0, 1000)


@st.composite
def traces(draw: st.DrawFn) -> list[int]:
    gaps = draw(st.lists(st.integers(0, 30), min_size=1, max_size=40))
    times = [sum(gaps[: k + 1]) for k in range(len(gaps))]
    return [*times, times[-1] + 1]


@st.composite
def channels(draw: st.DrawFn) -> Channel:
    capacity = (
        Capacity.constant(draw(RATES)) if draw(st.booleans()) else Capacity.mahimahi(draw(traces()))
    )
    edges = sorted(draw(st.lists(st.floats(0, 20), max_size=6, unique=True)))
    outages = tuple(zip(edges[0::2], edges[1::2], strict=False))
    jitter = draw(st.sampled_from([0.0, 0.03, 0.5]))
    return Channel(capacity, draw(st.floats(0, 1)), jitter, outages, draw(st.integers(0, 9)))


@given(st.integers(0, 10**9), RATES, STARTS)
def test_constant_is_bytes_over_capacity(n_bytes: int, rate: float, start_s: float) -> None:
    channel = Channel(Capacity.constant(rate), latency_s=0.25)
    expected = 8 * n_bytes / rate + 0.25
    assert channel.transfer_time_s(n_bytes, start_s) == pytest.approx(expected, rel=1e-9, abs=1e-9)


@given(traces(), st.integers(1, 200_000), st.floats(0, 3))
def test_trace_against_packet_by_packet_delivery(
    trace: list[int], n_bytes: int, start_s: float
) -> None:
    """Mahimahi's own rule, played forward: within 1 ms, and never later."""
    start_ms, left, now_ms = start_s * 1000, n_bytes, 0
    ends = None
    for period in range(10**6):
        for time_ms in trace:
            now_ms = period * trace[-1] + max(time_ms, 1)
            if now_ms > start_ms:
                passed = min(1.0, now_ms - start_ms) * 1500  # the millisecond it starts in
                left -= passed  # type: ignore[assignment]
                if left <= 1e-6:
                    ends = now_ms / 1000
                    break
        if ends is not None:
            break
    assert ends is not None
    got = start_s + Channel(Capacity.mahimahi(trace)).transfer_time_s(n_bytes, start_s)
    assert ends - 0.001 - 1e-6 <= got <= ends + 1e-6


@given(channels(), st.integers(0, 3_000_000), st.floats(0, 30))
def test_bytes_by_is_the_inverse(channel: Channel, n_bytes: int, start_s: float) -> None:
    took = channel.transfer_time_s(n_bytes, start_s)
    assert math.isfinite(took)
    assert took >= channel.latency_s - 1e-9
    fits = channel.bytes_by(start_s + took, start_s)
    assert fits >= n_bytes
    assert channel.transfer_time_s(fits, start_s) <= took + 1e-8
    assert channel.transfer_time_s(fits + 2, start_s) > took - 1e-8


@given(channels(), st.lists(st.integers(1, 100_000), min_size=1, max_size=20), st.floats(0, 20))
def test_chunks_back_to_back_arrive_like_one_transfer(
    channel: Channel, chunks: list[int], start_s: float
) -> None:
    bottleneck = Bottleneck(channel)
    arrivals = [bottleneck.reserve(n, start_s) for n in chunks]
    assert arrivals == sorted(arrivals)
    whole = start_s + channel.transfer_time_s(sum(chunks), start_s)
    assert arrivals[-1] == pytest.approx(whole, rel=1e-9, abs=1e-6)


@given(channels(), st.floats(0, 20))
def test_nothing_passes_in_an_outage(channel: Channel, start_s: float) -> None:
    for begin, end in channel.outages_s:
        leaves = channel.leaves_s(1, max(start_s, begin))
        assert not begin + 1e-9 < leaves < end


def test_outage_shifts_what_it_interrupts() -> None:
    channel = Channel(Capacity.constant(8000), outages_s=((1.0, 3.0), (4.0, 4.5)))
    assert channel.transfer_time_s(1000) == pytest.approx(1.0)  # ends as the outage begins
    assert channel.transfer_time_s(1500) == pytest.approx(3.5)
    assert channel.transfer_time_s(2500) == pytest.approx(5.0)
    assert channel.transfer_time_s(100, 1.5) == pytest.approx(1.6)  # waits until 3.0
    assert channel.bytes_by(3.0) == 1000


def test_jitter_is_bounded_repeatable_and_seeded() -> None:
    def times(seed: int) -> list[float]:
        channel = Channel(Capacity.constant(1e6), 0.1, 0.05, seed=seed)
        return [channel.transfer_time_s(1250, k / 10) for k in range(50)]

    assert times(1) == times(1)
    assert times(1) != times(2)
    assert all(0.11 - 1e-9 <= t <= 0.16 for t in times(1))
    assert max(times(1)) - min(times(1)) > 0.02


def test_mahimahi_mean_rate(tmp_path: Path) -> None:
    path = tmp_path / "12mbps.up"
    path.write_text("\n".join(str(k) for k in range(1, 101)))  # a packet every ms
    capacity = Capacity.mahimahi(path)
    assert capacity.mean_bit_per_s == pytest.approx(12e6)
    assert capacity.at(0.25) == pytest.approx(375_000)


@pytest.mark.parametrize(
    "text", ["", "1 2\n3 4\n", "0\n0\n", "3\n2\n", "-1\n", "1.5\n", "x\n", "99999999999\n", "é"]
)
def test_bad_traces(tmp_path: Path, text: str) -> None:
    path = tmp_path / "trace"
    path.write_text(text)
    with pytest.raises(BadInput, match="trace"):
        Capacity.mahimahi(path)


def test_read_link() -> None:
    link = read_link(
        {
            "up": {"capacity": "2 Mbit/s", "latency": "0.05 s", "outages": [[1, 2]]},
            "down": {"capacity": 5e6, "jitter": 0.01, "seed": 3},
        }
    )
    assert link.up.transfer_time_s(250_001) == pytest.approx(2.05, abs=1e-5)
    assert link.down.jitter_s == 0.01


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"capacity": "2 MHz"},
        {"capacity": 0},
        {"capacity": 1e6, "trace": "x"},
        {"capacity": 1e6, "speed": 3},
        {"capacity": 1e6, "latency": -1},
        {"capacity": 1e6, "latency": 1e9},
        {"capacity": 1e6, "outages": [[2, 1]]},
        {"capacity": 1e6, "outages": [[0, 2], [1, 3]]},
        {"capacity": 1e6, "outages": 7},
        {"capacity": 1e6, "outages": [7]},
        {"capacity": [1]},
        {"trace": "/nonexistent"},
    ],
)
def test_bad_settings(settings: dict[str, object]) -> None:
    with pytest.raises(BadInput, match=r"link\.up"):
        read_channel(settings, "link.up")
    with pytest.raises(BadInput):
        read_link({"up": {"capacity": 1}})
    with pytest.raises(BadInput):
        read_link({"up": {"capacity": 1}, "down": 3})
