"""Turns on one band: gains over time, timetables that keep to every period, brute force."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from endedge.allocator.solve.knapsack import allocate_menus
from endedge.allocator.solve.turns import Pace, Placed, Timetable, kept_gain, paces
from endedge.data.errors import BadInput


def played(pace: Pace, keep: float, periods: int = 64) -> float:
    """What is there of an update's gain, period by period: made of the frames of the period before
    (its cycle, where stretched), it is applied when the next begins."""
    gain, late = 0.0, []
    for t in range(periods):
        if pace.way == "skip" and t % pace.cycle == 0:
            gain = 1.0
        if pace.way == "stretch" and t % pace.cycle == 0:
            gain = keep ** (pace.cycle - 1)  # its frames waited for the end of the upload
        late.append(gain)
        gain *= keep
    return float(np.mean(late))


@pytest.mark.parametrize("keep", [0.0, 0.3, 0.9, 1.0])
def test_gains_are_those_of_a_game_period_by_period(keep: float) -> None:
    for pace in paces(8):
        assert kept_gain(pace, keep) == pytest.approx(played(pace, keep), abs=1e-12)


def test_paces() -> None:
    assert [str(p) for p in paces(4)] == [
        "every period",
        "every 2",
        "every 4",
        "every 2, stretched",
        "every 4, stretched",
    ]
    assert paces(1) == (Pace(),)
    for wrong in (0, 3, 6):
        with pytest.raises(BadInput, match="power of two"):
            paces(wrong)
    with pytest.raises(BadInput, match="keep"):
        kept_gain(Pace(2), 1.5)


def loads(
    placed: Placed, pace: list[Pace], hertz: np.ndarray, seconds: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Hertz and seconds of every period, counted one device and period at a time."""
    periods = max(p.cycle for p in pace)
    used, worked = np.zeros(periods), np.zeros(periods)
    for k, (j, phase) in enumerate(zip(placed.choice, placed.phase, strict=True)):
        n = pace[j].cycle
        for t in range(periods):
            begins = j > 0 and t % n == phase % n
            worked[t] += seconds[k, j] if begins else 0.0
            if j > 0 and pace[j].way == "stretch":
                used[t] += hertz[k, j] / n
            elif begins:
                used[t] += hertz[k, j]
    return used, worked


@settings(max_examples=80, deadline=None)
@given(seed=st.integers(0, 10**6), devices=st.integers(1, 12), timed=st.booleans())
def test_no_period_carries_more_than_there_is(seed: int, devices: int, timed: bool) -> None:
    rng = np.random.default_rng(seed)
    pace = [Pace(), *(p for p in paces(8) for _ in range(2))]
    shape = (devices, len(pace))
    hertz, seconds, value = (rng.uniform(0.1, 1.0, shape) for _ in range(3))
    hertz[:, 0] = seconds[:, 0] = 0.0
    value[rng.random(shape) < 0.2] = -np.inf
    value[:, 0] = 0.0
    band, room = float(rng.uniform(0.2, 3)), float(rng.uniform(0.2, 3)) if timed else math.inf
    choice = np.array([rng.choice(np.flatnonzero(np.isfinite(v))) for v in value])
    before = choice.copy()
    placed = Timetable(pace, band, room).place(choice, hertz, seconds, value)
    used, worked = loads(placed, pace, hertz, seconds)
    assert used.max() <= band * (1 + 1e-8)
    assert worked.max() <= room * (1 + 1e-8)
    assert (choice == before).all()
    rows = np.arange(devices)
    assert np.isfinite(value[rows, placed.choice]).all()


def test_two_devices_take_turns_by_hand() -> None:
    pace = [Pace(), Pace(2)]
    hertz = np.array([[0.0, 1.0]] * 2)
    placed = Timetable(pace, 1.0).place(np.array([1, 1]), hertz, 0 * hertz, hertz)
    assert placed.choice.tolist() == [1, 1]
    assert sorted(placed.phase.tolist()) == [0, 1]
    both = Timetable(pace, 1.0).place(
        np.array([1, 1, 1]), hertz[[0, 0, 0]], 0 * hertz[[0, 0, 0]], hertz[[0, 0, 0]]
    )
    assert (both.choice > 0).sum() == 2  # a third finds no period


def every_schedule(pace: list[Pace], hertz: np.ndarray, value: np.ndarray, band: float) -> float:
    """The best sum of values over all entries and phases of up to three devices."""
    periods = max(p.cycle for p in pace)
    options = []
    for k in range(len(hertz)):
        mine = [(0.0, np.zeros(periods))]
        for j in range(1, len(pace)):
            for phase in range(pace[j].cycle):
                load = np.zeros(periods)
                load[phase :: pace[j].cycle] = hertz[k, j]
                mine.append((float(value[k, j]), load))
        options.append(mine)
    best = 0.0
    for chosen in itertools.product(*options):
        if np.sum([load for _, load in chosen], axis=0).max() <= band * (1 + 1e-9):
            best = max(best, sum(v for v, _ in chosen))
    return best


@pytest.mark.parametrize("seed", range(6))
def test_menus_in_a_timetable_against_every_schedule(seed: int) -> None:
    rng = np.random.default_rng(seed)
    pace = [Pace(), *(p for p in paces(2, stretch=False) for _ in range(2))]
    cycle = np.array([p.cycle for p in pace])
    point = rng.uniform(0.2, 1.0, (3, 2))
    gain = np.sort(rng.uniform(0, 1, (3, 2)), axis=1)
    hertz = np.concatenate(
        [np.zeros((3, 1)), np.sort(point, axis=1), np.sort(point, axis=1)], axis=1
    )
    value = np.concatenate([np.zeros((3, 1)), gain, gain / 2], axis=1)
    band = float(rng.uniform(0.3, 2.0))
    found = allocate_menus(hertz / cycle, value, band)
    placed = Timetable(pace, band).place(found.choice, hertz, 0 * hertz, value)
    reached = float(value[np.arange(3), placed.choice].sum())
    best = every_schedule(pace, hertz, value, band)
    assert reached <= best + 1e-9
    assert best <= found.bound + 1e-9  # the band in the mean is more than the band in each period
    assert reached >= best - float(gain.max())
