"""Paired differences and what may be said of them, by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest

from endedge.lab.benchmark.headroom import Contrast

T_2, T_1, Z = 2.919986, 6.313752, 1.644854  # upper 5 % of Student's t (2, 1 degrees) and normal


def test_errors_of_seeds_and_frames_add_in_squares() -> None:
    draws = np.array([[0.0, 0.04], [0.0, 0.02], [0.0, 0.0]])  # means over seeds: 0 and 0.02
    found = Contrast.of(np.array([0.01, 0.02, 0.03]), draws)
    assert found.mean == pytest.approx(0.02)
    assert found.seed_error == pytest.approx(0.01 / math.sqrt(3))
    assert found.frame_error == pytest.approx(0.02 / math.sqrt(2))
    assert found.error == pytest.approx(math.hypot(0.01 / math.sqrt(3), 0.02 / math.sqrt(2)))
    half = math.hypot(T_2 * 0.01 / math.sqrt(3), Z * 0.02 / math.sqrt(2))
    assert found.half() == pytest.approx(half, rel=1e-5)
    assert found.text == "2.00 ± 1.53"


@pytest.mark.parametrize(
    ("mean", "seed_error", "frame_error", "seeds", "claims", "standing", "verdict"),
    [
        # 2 errors are 0.6 points, the interval ±0.88: above both
        (0.010, 0.003, math.nan, 3, True, "", "better"),
        # above two errors, below t for two seeds (6.3 errors): too few
        (0.010, 0.003, math.nan, 2, False, "2 seeds are too few to claim it", "open"),
        (0.005, 0.003, math.nan, 3, False, "nothing to gain", "open"),
        # seeds agree, the evaluation frames do not: no claim either
        (0.010, 0.001, 0.007, 3, False, "nothing to gain", "open"),
        (0.020, 0.001, 0.007, 3, True, "", "better"),
        # ±0.29 points about 0.1: within half a point on both sides
        (0.001, 0.001, math.nan, 3, False, "nothing to gain", "same"),
        # the same width about 0.4 leaves the half point on one side
        (0.004, 0.001, math.nan, 3, True, "", "better"),
        (-0.010, 0.002, math.nan, 3, False, "nothing to gain", "worse"),
        (0.010, math.nan, math.nan, 1, False, "one seed: no claim", "open"),
        (0.0, 0.0, math.nan, 3, False, "nothing to gain", "same"),
    ],
)
def test_what_may_be_said(
    mean: float,
    seed_error: float,
    frame_error: float,
    seeds: int,
    claims: bool,
    standing: str,
    verdict: str,
) -> None:
    found = Contrast(mean, seed_error, frame_error, seeds)
    assert found.claims == claims
    assert found.standing == standing
    assert found.verdict == verdict


def test_one_seed_has_no_error_of_seeds() -> None:
    found = Contrast.of(np.array([0.01]))
    assert math.isnan(found.error)
    assert found.text == "1.00 ± ?"
