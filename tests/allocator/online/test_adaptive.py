"""The adaptive policy: what it may do, and that it learns."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from endedge.allocator import Budget, Known, Observed, Points, Range, Split, decide, registry
from endedge.allocator.online.adaptive import REUSE_BYTES, menu
from endedge.allocator.policies import NOT_FITTED, watches
from endedge.lab.benchmark.table import Table

UP, DOWN = Range(5e3, 1e5), Range(4e3, 8e4)
# Seconds of a period of 60, of which 10 are the edge's.
BUDGET = Budget(4e-4, 4e-4, 50.0, UP, DOWN, 50 / 60, 4e-4 / 60, 4e-4 / 60, 0.0)


def options() -> Points:
    up, down = (
        a.ravel() for a in np.meshgrid(np.linspace(5e3, 1e5, 12), np.geomspace(4e3, 8e4, 10))
    )
    n, nothing = len(up), np.full(len(up), np.nan)
    text = np.full(n, "")
    return Points(
        up / 1e3, text, up, down, down, nothing, nothing, text, nothing, nothing, nothing, text
    )


def known(history: tuple[Observed, ...] = (), **more: object) -> Known:
    table = Table.load("demo")
    return Known(
        table.link.at(1e4),
        NOT_FITTED,
        options(),
        np.random.default_rng(0),
        history=history,
        limits=more.pop("limits", BUDGET),  # type: ignore[arg-type]
        **more,  # type: ignore[arg-type]
    )


def rounds(gain: object, n: int = 10) -> tuple[Observed, ...]:
    """Rounds from 20 %, each with another share of the air, that gain as ``gain(split)`` says."""
    found = []
    for k in range(n):
        split = BUDGET.with_share((k % 9 + 1) / 10)
        found.append(
            Observed(k, split.upload_bytes, split.update_bytes, 0.2, 0.2 + gain(split))  # type: ignore[operator]
        )
    return tuple(found)


def test_it_is_in_the_registry() -> None:
    assert "adaptive" in registry()
    assert watches("adaptive")
    assert not watches("static-0.5@0.4")


@settings(max_examples=30, deadline=None)
@given(
    gains=st.lists(st.tuples(st.floats(0, 1), st.floats(-0.3, 0.3), st.booleans()), max_size=8),
    room=st.floats(1.0, 60.0),
    periods=st.integers(1, 4),
    recalls=st.booleans(),
)
def test_it_asks_for_what_the_link_carries(
    gains: list[tuple[float, float, bool]], room: float, periods: int, recalls: bool
) -> None:
    history = []
    for k, (share, gain, refused) in enumerate(gains):
        split = BUDGET.with_share(share)
        history.append(
            Observed(
                k, split.upload_bytes, split.update_bytes, 0.3, 0.3 + gain, refused, k % 2, k % 2
            )
        )
    here = known(
        tuple(history),
        limits=replace(BUDGET, room=room, fresh=room / 60),
        periods=periods,
        recalls=recalls,
    )
    split = decide("adaptive", here)  # refuses what the link cannot carry
    assert split == decide("adaptive", here)  # and is no gamble
    found = menu(here)
    assert np.isfinite(found.loss).all()
    assert found.splits[0] == Split(0.0, 0.0)


def test_it_learns_which_side_pays() -> None:
    frames = decide("adaptive", known(rounds(lambda s: 0.25 * s.upload_bytes / UP.high)))
    model = decide("adaptive", known(rounds(lambda s: 0.25 * s.update_bytes / DOWN.high)))
    assert frames.upload_bytes > model.upload_bytes
    assert model.update_bytes > frames.update_bytes


def test_nothing_to_carry_and_nothing_known() -> None:
    shut = replace(BUDGET, reason="the link has no bandwidth")
    assert decide("adaptive", known(limits=shut)) == Split(0.0, 0.0)
    assert decide("adaptive", known()).sends  # before the first round


def test_a_model_that_fits_better_is_asked_for() -> None:
    """The device was at 40 % here, came back with a model that has 10 %, and nothing more can be
    learned: the 64 bytes are enough. Once they were asked for, there is no more to ask."""
    before = [Observed(k, 5e4, 4e4, 0.4, 0.4, False, 0, 0) for k in range(6)]
    away = [Observed(k, 5e4, 4e4, 0.2, 0.2, False, 1, 1) for k in range(6, 9)]
    back = Observed(9, 5e4, 4e4, 0.1, 0.1, True, 1, 0)  # what went up was of the place before
    history = (*before, *away, back)
    split = decide("adaptive", known(history, recalls=True))
    assert split.update_bytes == REUSE_BYTES
    assert split.upload_bytes == pytest.approx(UP.low)
    assert decide("adaptive", known(history)).update_bytes > REUSE_BYTES
    asked = Observed(10, UP.low, 0.0, 0.1, 0.1, False, 0, 0)
    assert decide("adaptive", known((*history, asked), recalls=True)).update_bytes != REUSE_BYTES


def test_the_luckiest_of_many_rounds_is_not_asked_for() -> None:
    """What the device left with counts, and it came back with as much."""
    lucky = [Observed(k, 5e4, 4e4, 0.4, 0.48 if k == 3 else 0.4, False, 0, 0) for k in range(6)]
    away = [Observed(k, 5e4, 4e4, 0.2, 0.2, False, 1, 1) for k in range(6, 9)]
    back = Observed(9, 5e4, 4e4, 0.4, 0.4, True, 1, 0)
    history = (*lucky, *away, back)
    assert decide("adaptive", known(history, recalls=True)).update_bytes != REUSE_BYTES


def test_a_share_of_the_room() -> None:
    half = decide("static-0.5@0.5", known())
    assert BUDGET.cost(half.upload_bytes, half.update_bytes) == pytest.approx(25.0, rel=0.2)
    assert BUDGET.cost(half.upload_bytes, half.update_bytes) <= 25.0 * (1 + 1e-9)
    assert not decide("static-0.5@0.01", known()).sends
    assert BUDGET.within(0.01).reason
