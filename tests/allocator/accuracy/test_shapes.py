"""Every shape: rises, and its derivatives and steepest point are what they claim."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from endedge.allocator.accuracy.shapes import DATA_SHAPES, MODEL_SHAPES, Shape
from tests.allocator.solve.branch_and_bound import slope_range, steepest_at

SHAPES = [*DATA_SHAPES.values(), *MODEL_SHAPES.values()]


def parameter(shape: Shape, share: float) -> float:
    low, high = shape.bounds
    return float(low * (high / low) ** share)


@pytest.mark.parametrize("shape", SHAPES, ids=lambda s: s.name)
@given(x=st.floats(1e-3, 30.0), share=st.floats(0.0, 1.0))
@settings(max_examples=60, deadline=None)
def test_derivatives(shape: Shape, x: float, share: float) -> None:
    s = parameter(shape, share)
    kink = {"power": 1.0, "exponential": np.log(max(s, 1.0))}.get(shape.name)
    if shape in MODEL_SHAPES.values() and kink is not None and abs(x - kink) < 1e-3 * (1 + x):
        return  # a capped or clipped curve has no derivative at its kink
    h = 1e-5 * x
    r = shape.value(x, s)
    slope = (shape.value(x + h, s) - shape.value(x - h, s)) / (2 * h)
    scale = max(abs(slope), 1e-6)
    assert shape.slope(x, s, r) == pytest.approx(slope, rel=2e-4, abs=1e-4 * scale + 1e-9)

    def slope_at(at: float) -> float:
        return float(shape.slope(at, s, shape.value(at, s)))

    if slope_at(x) > 1e-4:
        bend = (slope_at(x + h) - slope_at(x - h)) / (2 * h) / slope_at(x)
        assert shape.bend(x, s, r) == pytest.approx(bend, rel=5e-3, abs=5e-3)
    if shape.symbol:
        d = 1e-6 * s
        by_s = (shape.value(x, s + d) - shape.value(x, s - d)) / (2 * d)
        assert shape.shape_slope(x, s, r) == pytest.approx(by_s, rel=1e-3, abs=1e-6)


@pytest.mark.parametrize("shape", SHAPES, ids=lambda s: s.name)
@pytest.mark.parametrize("share", [0.0, 0.3, 0.6, 1.0])
def test_rises_and_slope_range_holds(shape: Shape, share: float) -> None:
    s = parameter(shape, share)
    x = np.linspace(1e-6, 8.0, 20_001)
    r = shape.value(x, s)
    assert (np.diff(r) >= -1e-15).all()
    assert [shape.value(float(v), s) for v in x[:50]] == pytest.approx(r[:50].tolist(), rel=1e-12)
    slope = shape.slope(x, s, r)
    rng = np.random.default_rng(0)
    for _ in range(50):
        i, j = np.sort(rng.integers(0, len(x), 2))
        low, high = slope_range(shape, x[i : i + 1], x[j : j + 1], s)
        inside = slope[i : j + 1]
        assert low[0] <= inside.min() + 1e-12
        assert high[0] >= inside.max() - 1e-12
    assert (float(steepest_at(shape, s)) <= 0) == bool(
        (np.diff(slope) <= 1e-9 * slope[:-1] + 1e-13).all()
    )
