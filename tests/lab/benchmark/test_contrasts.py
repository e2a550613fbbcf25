"""Named comparisons: p-values by hand and against SciPy's test, Holm's rule by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from endedge.lab.benchmark.contrasts import NAMED, compared, holm, p_value
from endedge.lab.benchmark.headroom import Contrast
from endedge.lab.benchmark.score import score
from endedge.lab.benchmark.table import Table


@pytest.mark.parametrize(
    ("given_", "corrected"),
    [
        ([0.01, 0.04, 0.03], [0.03, 0.06, 0.06]),  # 3 x 0.01; 2 x 0.03; 0.04 not below that
        ([0.5, 0.6, 0.9], [1.0, 1.0, 1.0]),
        ([0.02], [0.02]),
        ([0.01, math.nan, 0.2], [0.03, math.nan, 0.4]),  # the unknown one counts
        ([], []),
    ],
)
def test_holm_by_hand(given_: list[float], corrected: list[float]) -> None:
    assert holm(given_) == pytest.approx(corrected, nan_ok=True)


@given(st.lists(st.floats(0, 1), max_size=8))
def test_a_correction_only_raises_and_keeps_the_order(p_values: list[float]) -> None:
    corrected = holm(p_values)
    assert all(p <= c <= 1 for p, c in zip(p_values, corrected, strict=True))
    order = sorted(range(len(p_values)), key=lambda i: p_values[i])
    assert [corrected[i] for i in order] == sorted(corrected)


def test_seeds_alone_are_students_t_test() -> None:
    gaps = np.array([0.01, 0.02, 0.015, -0.002])
    wanted = stats.ttest_1samp(gaps, 0.0).pvalue
    assert p_value(Contrast.of(gaps)) == pytest.approx(wanted)


def test_frames_alone_are_normal_and_both_lie_between() -> None:
    frames = Contrast(0.02, math.nan, 0.01, 1)
    assert p_value(frames) == pytest.approx(0.0455, abs=1e-4)  # two errors
    assert math.isnan(p_value(Contrast(0.02, math.nan, math.nan, 1)))
    # Two seeds that make a tenth of the variance: 100 degrees of freedom, nearly normal.
    both = Contrast(0.02, 0.01 * math.sqrt(0.1), 0.01 * math.sqrt(0.9), 2)
    assert p_value(both) == pytest.approx(2 * stats.t.sf(2.0, 100), rel=1e-9)
    # And two seeds alone: one degree, two errors say little.
    assert p_value(Contrast(0.02, 0.01, math.nan, 2)) == pytest.approx(0.2952, abs=1e-4)
    assert p_value(Contrast(0.0, 0.0, math.nan, 3)) == 1.0


def test_the_comparisons_of_a_table() -> None:
    found = score(Table.load("demo"), ["fitted", "monotone"])
    named = compared(found)
    assert [(c.one, c.other) for c in named] == list(NAMED)
    for one in named:
        assert one.contrast == found.contrast(one.one, one.other)
        assert one.p <= one.corrected <= 1
    assert [(c.one, c.other) for c in compared(score(Table.load("demo"), ["equal"]))] == [NAMED[1]]
