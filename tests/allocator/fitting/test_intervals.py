"""Intervals of fitted curves by hand: bootstrap curves that say 0.00, 0.01, …, 1.00."""

from __future__ import annotations

import math

import numpy as np
import pytest

from endedge.allocator.accuracy.width import Width

DRAWN = np.linspace(0.0, 1.0, 101)[:, None]
BETWEEN = np.array([1.0]), np.array([1.0])  # mAP that levels rise by, along either axis
ONTO = np.array([0.0]), np.array([0.0])


@pytest.mark.parametrize(("level", "low", "high"), [(0.9, 0.05, 0.95), (0.5, 0.25, 0.75)])
def test_on_a_level_it_is_the_bootstraps(level: float, low: float, high: float) -> None:
    found = Width(0.03, 0.04).interval(DRAWN, ONTO, level)
    assert [float(side[0]) for side in found] == pytest.approx([low, high])


def test_between_levels_their_error_adds_in_squares() -> None:
    more = 1.6448536 * 0.05  # of a normal with the deviation of both axes together
    half = math.hypot(0.45, more)
    found = Width(0.03, 0.04).interval(DRAWN, BETWEEN, 0.9)
    assert [float(side[0]) for side in found] == pytest.approx([0.5 - half, 0.5 + half])
    found = Width(0.03, 0.04, 0.5).interval(DRAWN, BETWEEN, 0.9)
    assert [float(side[0]) for side in found] == pytest.approx([0.5 - half / 2, 0.5 + half / 2])
