"""Intervals of fitted curves by hand: bootstrap curves that say 0.00, 0.01, …, 1.00."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from endedge.allocator import Curves


@pytest.mark.parametrize(("level", "low", "high"), [(0.9, 0.05, 0.95), (0.5, 0.25, 0.75)])
def test_an_interval_leaves_as_much_on_either_side(
    monkeypatch: pytest.MonkeyPatch, level: float, low: float, high: float
) -> None:
    curves: Any = object.__new__(Curves)
    object.__setattr__(curves, "replicates", (object(),))
    monkeypatch.setattr(Curves, "draws", lambda self, u, m: np.linspace(0, 1, 101)[:, None])
    found = curves.interval(1e5, 1e5, level)
    assert [float(side[0]) for side in found] == pytest.approx([low, high])
