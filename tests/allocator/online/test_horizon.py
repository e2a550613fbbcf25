"""What an action is worth, against a dynamic programme that is told nothing of closed forms."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from endedge.allocator.online.horizon import Actions, expected_loss, periods_since_seen, stay
from endedge.allocator.policies import Observed

unit = st.floats(0.0, 0.95)


def exhaustive(actions: Actions, gap: float, staying: float, left: int) -> list[float]:
    """The loss of each action, the best being taken after it, within ``left`` periods; a gap is
    lived with period by period."""
    memory: dict[tuple[int, int], float] = {}
    gaps = [gap]

    def of(action: int, at: float, remaining: int) -> float:
        rate, stale = float(actions.rate[0, action]), float(actions.stale[action])
        total, alive = 0.0, 1.0
        for period in range(int(actions.periods[action])):
            if remaining - period <= 0:
                return total
            if period + 1 < actions.periods[action]:
                total += alive * at
            else:
                total += alive * (stale * at + (1 - stale) * at * (1 - rate))
            alive *= staying
        return total + alive * best(at * (1 - rate), remaining - int(actions.periods[action]))

    def best(at: float, remaining: int) -> float:
        if remaining <= 0 or at <= 1e-12:
            return 0.0
        key = (round(at * 1e12), remaining)
        if key not in memory:
            memory[key] = min(of(a, at, remaining) for a in range(len(actions.stale)))
        return memory[key]

    return [of(a, gaps[0], left) for a in range(len(actions.stale))]


@settings(max_examples=25, deadline=None)
@given(
    first=st.tuples(unit, unit), second=st.tuples(unit, unit), long=unit, staying=st.floats(0, 0.5)
)
def test_against_a_dynamic_programme(
    first: tuple[float, float], second: tuple[float, float], long: float, staying: float
) -> None:
    """Nothing, two actions of a period, one of three."""
    actions = Actions(
        np.array([[0.0, first[0], second[0], long]]),
        np.array([0.0, first[1], second[1], 0.5]),
        np.array([1, 1, 1, 3]),
    )
    found = expected_loss(actions, np.ones(1), np.array([0.3]), staying)
    assert found == pytest.approx(exhaustive(actions, 0.3, staying, 12), abs=3e-4)


def test_by_hand() -> None:
    """Nothing for ever: 1/(1 - s). Half of the gap at half of every period: c = 0.75."""
    actions = Actions(np.array([[0.0, 0.5]]), np.array([0.0, 0.5]), np.array([1, 1]))
    assert actions.loss(0.8)[0] == pytest.approx([1.0, 0.75])
    rest = 0.75 / (1 - 0.8 * 0.5)
    assert actions.rest(0.8)[0] == pytest.approx(rest)
    found = expected_loss(actions, np.ones(1), np.array([0.2]), 0.8)
    assert found == pytest.approx([0.2 * (1 + 0.8 * rest), 0.2 * rest])


def test_a_short_visit_wants_it_soon_and_a_long_one_wants_it_good() -> None:
    actions = Actions(np.array([[0.0, 0.3, 0.9]]), np.array([0.0, 0.1, 0.9]), np.array([1, 1, 1]))
    ways = [expected_loss(actions, np.ones(1), np.ones(1), s).argmin() for s in (0.0, 0.95)]
    assert ways == [1, 2]


def test_a_large_package_is_worth_its_periods_in_a_long_visit_only() -> None:
    actions = Actions(np.array([[0.0, 0.1, 0.95]]), np.array([0.0, 0.5, 0.5]), np.array([1, 1, 3]))
    ways = [expected_loss(actions, np.ones(1), np.ones(1), s).argmin() for s in (0.3, 0.95)]
    assert ways == [1, 2]


def test_an_older_model_is_had_by_whoever_sends() -> None:
    """Nothing; to ask for it (quick, learns nothing); a small update on top of it."""
    actions = Actions(np.array([[0.0, 0.0, 0.2]]), np.array([0.0, 0.1, 0.8]), np.array([1, 1, 1]))
    gap, kept = np.array([0.3]), np.array([0.05])
    found = expected_loss(actions, np.ones(1), gap, 0.5, kept)
    assert found.argmin() == 1
    rest = actions.rest(0.5)[0]
    assert found[0] == pytest.approx(0.3 * (1 + 0.5 * rest))
    assert found[1] == pytest.approx(0.1 * 0.3 + 0.05 * (0.9 + 0.5 * rest))
    assert expected_loss(actions, np.ones(1), gap, 0.5, gap).argmin() == 2


def test_how_long_a_visit_lasts_is_learned() -> None:
    assert stay([]) == pytest.approx(1 - 1 / 7)
    assert stay([0] * 8) == pytest.approx(1 - 1 / 14)
    assert stay([0, 1, 0, 1, 0]) == pytest.approx(1 - 5 / 11)
    sent, idle = Observed(1, 10.0, 10.0, 0.1, 0.2), Observed(2, 0.0, 0.0, 0.2, 0.2)
    assert periods_since_seen((sent, idle, idle)) == 2
    assert periods_since_seen((idle, sent)) == 0
