"""The search for the finest step that fits, on size functions of every shape."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from endedge.data.errors import BadInput
from endedge.distill.package.byte_budget import LOUDNESS_BINS, SizeCurve, fit_step


def curve(guess: float, weights: int = 50_000) -> SizeCurve:
    """What a search is told; it may be far from the truth: all ``weights`` are 2**``guess``."""
    at = np.full(weights, guess)
    return SizeCurve(np.histogram(at, LOUDNESS_BINS)[0].astype(float), 1_000)


def laplacian(step: float) -> int:
    """About one bit a weight and halving; 10 kB of everything else."""
    return 10_000 + int(50_000 * math.log2(1 + 1 / step))


def plateau(step: float) -> int:
    """A delta: flat at the coarse end, then steep."""
    return 6_800 if step > 8 else 6_800 + int(2_000 * math.log2(8 / step) ** 2)


def cliff(step: float) -> int:
    """Nothing at all, then everything at once."""
    return 500 if step > 3.3 else 40_000 - int(100 * step)


@pytest.mark.parametrize("size", [laplacian, plateau], ids=["laplacian", "plateau"])
@pytest.mark.parametrize("budget", [12_000, 16_000, 40_000, 100_000])
@pytest.mark.parametrize("guess", [-8.0, 0.0, 3.0, 12.0])
def test_a_binding_budget_is_filled(
    size: Callable[[float], int], budget: int, guess: float
) -> None:
    trials = []

    def code(step: float) -> int:
        trials.append(step)
        return size(step)

    step, result = fit_step(code, lambda x: x, budget, curve(guess))
    assert size(step) == result
    assert 0.97 * budget <= result <= budget
    assert len(trials) <= 12


@settings(deadline=None)
@given(st.integers(500, 45_000), st.floats(-10, 12))
def test_at_a_cliff_the_last_step_that_fits_is_found(budget: int, guess: float) -> None:
    step, result = fit_step(cliff, lambda x: x, budget, curve(guess))
    assert result <= budget
    if 505 < budget < 39_670:
        assert result == 500
        assert step < 3.3 * 1.01


@settings(deadline=None)
@given(
    st.lists(st.tuples(st.floats(-9.5, 11.5), st.integers(1, 9_000)), min_size=1, max_size=8),
    st.integers(1_000, 60_000),
    st.floats(-10, 12),
)
def test_no_finer_step_would_fit(jumps: list[tuple[float, int]], budget: int, guess: float) -> None:
    def size(step: float) -> int:
        return 1_000 + sum(n for at, n in jumps if math.log2(step) < at)

    step, result = fit_step(size, lambda x: x, budget, curve(guess))
    assert result == size(step) <= budget
    finer = step * 2**-0.01
    assert result >= 0.97 * budget or math.log2(finer) < -10 or size(finer) > budget


def test_too_small_a_budget_names_the_size_that_works() -> None:
    with pytest.raises(BadInput, match="smallest package is 6800 bytes"):
        fit_step(plateau, lambda x: x, 6_799, curve(0.0))
    assert fit_step(plateau, lambda x: x, 6_800, curve(0.0))[1] == 6_800


def test_a_curve_is_about_the_entropy_of_rounded_weights_and_has_an_inverse() -> None:
    weights = np.random.default_rng(0).laplace(0, 1, 40_000)
    told = SizeCurve(np.histogram(np.log2(np.abs(weights)), LOUDNESS_BINS)[0].astype(float), 500)
    for log_step in (-9.0, -4.0, -1.0, 1.0, 2.0):
        _, counts = np.unique(np.rint(weights / 2**log_step), return_counts=True)
        shares = counts / counts.sum()
        size = 500 - 40_000 / 8 * float((shares * np.log2(shares)).sum())
        if log_step > -9:  # with finer steps than samples the entropy of these is no guide
            assert 2 ** told.log_size(log_step) == pytest.approx(size, rel=0.05)
        assert told.log_step(told.log_size(log_step)) == pytest.approx(log_step, abs=1e-6)
    sizes = [told.log_size(x) for x in np.linspace(-10, 12, 99)]
    assert sizes == sorted(sizes, reverse=True)
    assert told.log_step(99.0) == -10
    assert told.log_step(0.0) == 12
