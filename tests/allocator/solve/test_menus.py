"""Menus on one band and one edge: two prices, the worst device, greedily; brute force beside."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from endedge.allocator.solve.knapsack import (
    MenuAllocation,
    allocate_greedily,
    allocate_menus,
    allocate_worst,
)
from endedge.data.errors import BadInput

Menu = tuple[np.ndarray, np.ndarray, np.ndarray, float, float]


def menu(seed: int, devices: int, entries: int = 6) -> Menu:
    """Hertz, values, seconds (K, J), a band and a room of random devices."""
    rng = np.random.default_rng(seed)
    shape = (devices, entries)
    cost, seconds, value = (rng.uniform(low, 1, shape) for low in (0.05, 0.05, 0.0))
    cost[:, 0] = seconds[:, 0] = 0.0
    value[:, 0] = rng.uniform(0, 0.2, devices)
    value[rng.random(shape) < 0.1] = -np.inf
    value[:, 0] = np.where(np.isfinite(value[:, 0]), value[:, 0], 0.1)
    band, room = rng.uniform(0.1, 1.2 * devices, 2)
    return cost, value, seconds, float(band), float(room)


def brute(m: Menu, score: Callable[[list[float]], float], timed: bool) -> float:
    cost, value, seconds, band, room = m
    best = -math.inf
    for choice in itertools.product(range(cost.shape[1]), repeat=len(cost)):
        picked = list(enumerate(choice))
        if sum(cost[k, j] for k, j in picked) > band:
            continue
        if timed and sum(seconds[k, j] for k, j in picked) > room:
            continue
        best = max(best, score([float(value[k, j]) for k, j in picked]))
    return best


def check(m: Menu, found: MenuAllocation, best: float) -> None:
    cost, _, seconds, band, room = m
    rows = np.arange(len(cost))
    assert cost[rows, found.choice].sum() <= band
    assert seconds[rows, found.choice].sum() <= room
    assert found.objective <= best + 1e-12
    assert found.bound >= best - 1e-12


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 10**6), devices=st.integers(1, 3))
def test_two_prices_against_every_choice(seed: int, devices: int) -> None:
    m = menu(seed, devices)
    found = allocate_menus(m[0], m[1], m[3], m[2], m[4])
    best = brute(m, sum, timed=True)
    check(m, found, best)
    if devices <= 2:  # the exchange between a pair sees every choice
        assert found.objective == pytest.approx(best, abs=1e-12)


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 10**6), devices=st.integers(1, 3))
def test_one_price_against_every_choice(seed: int, devices: int) -> None:
    cost, value, seconds, band, _ = m = menu(seed, devices)
    free = (cost, value, 0 * seconds, band, math.inf)
    found = allocate_menus(cost, value, band)
    best = brute(m, sum, timed=False)
    check(free, found, best)
    greedy = allocate_greedily(cost, value, band)
    check(free, greedy, best)
    assert found.price_s == 0.0
    assert found.objective >= greedy.objective - 1e-12 or devices == 3


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 10**6), devices=st.integers(1, 3), timed=st.booleans())
def test_the_worst_device_against_every_choice(seed: int, devices: int, timed: bool) -> None:
    cost, value, seconds, band, room = m = menu(seed, devices)
    room = room if timed else math.inf
    found = allocate_worst(cost, value, band, seconds, room)
    best = brute(m, min, timed)
    check((cost, value, seconds, band, room), found, best)
    if not timed:
        assert found.objective == pytest.approx(best, abs=1e-12)


def test_seconds_alone_ration_by_hand() -> None:
    # Enough band; 10 s for two devices of 6 s each: the one that gains more a second.
    cost, seconds = np.array([[0.0, 1.0]] * 2), np.array([[0.0, 6.0]] * 2)
    value = np.array([[0.1, 0.3], [0.1, 0.4]])
    found = allocate_menus(cost, value, 10.0, seconds, 10.0)
    assert found.choice.tolist() == [0, 1]
    assert found.used_s == 6.0
    assert 0.2 / 6 <= found.price_s <= 0.3 / 6
    assert found.bound == pytest.approx(0.2 + 0.3 * 10 / 6 - 0.1 * 4 / 6, abs=1e-3)


def test_greedy_raises_the_worst_first() -> None:
    cost = np.array([[0.0, 1.0], [0.0, 1.0]])
    value = np.array([[0.1, 0.2], [0.3, 0.9]])
    assert allocate_greedily(cost, value, 1.0).choice.tolist() == [0, 1]
    assert allocate_greedily(cost, value, 1.0, worst_first=True).choice.tolist() == [1, 0]


def test_bad_menus() -> None:
    cost, value = np.array([[0.0, 1.0]]), np.array([[0.1, 0.2]])
    for solve in (allocate_menus, allocate_worst, allocate_greedily):
        with pytest.raises(BadInput, match="edge_s"):
            solve(cost, value, 1.0, np.zeros((2, 2)))
        with pytest.raises(BadInput, match="room_s"):
            solve(cost, value, 1.0, cost, -1.0)
        with pytest.raises(BadInput, match="cost 0"):
            solve(cost, value, 1.0, cost + 1)
