"""What a belief is after some rounds, against the posterior worked out on a fine grid."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from scipy.stats import norm

from endedge.allocator import Range
from endedge.allocator.online.belief import NOISE, VERDICT_NOISE, Belief, believe
from endedge.allocator.online.law import Achievable, Rates, achievable, first_rates
from endedge.allocator.policies import NOT_KNOWN, Observed
from endedge.lab.benchmark.table import Table

FIRST = Achievable(0.2, 0.1)


def guesses(*scales: float) -> Rates:
    """r = 1 - 1/(1 + U/U0), the package large enough: U = U0 gains half of what is left."""
    n = len(scales)
    ones = np.ones(n)
    return Rates(np.array(scales), ones, ones, 0 * ones, np.zeros(n))


def seen(up: float, before: float, after: float, **more: object) -> Observed:
    return Observed(1, up, 1e6, before, after, **more)  # type: ignore[arg-type]


def on_a_grid(rates: Rates, history: list[Observed]) -> tuple[np.ndarray, np.ndarray]:
    """Weights of the guesses and the mean ceiling under each, by summing over ceilings."""
    ceiling = np.linspace(-0.6, 1.4, 40_001)
    evidence, mean = [], []
    for i in range(len(rates)):
        first = history[0].before + FIRST.gain
        dense = norm.pdf(ceiling, first, FIRST.deviation)
        for one in history:
            rate = rates(one.upload_bytes, one.update_bytes)[i, 0]
            gain = rate * (ceiling - one.before)
            dense = dense * (
                norm.cdf(-gain / VERDICT_NOISE)
                if one.refused
                else norm.pdf(one.after - one.before, gain, NOISE)
            )
        evidence.append(dense.sum())
        mean.append((ceiling * dense).sum() / dense.sum())
    return np.array(evidence) / np.sum(evidence), np.array(mean)


def test_one_gain_by_hand() -> None:
    """Prior ceiling 0.3 ± 0.1, half of the gap gained: 0.12 instead of 0.10 expected."""
    after = believe(guesses(1e5), FIRST, [seen(1e5, 0.1, 0.22)])
    spread2 = NOISE**2 + 0.25 * 0.01
    assert after.mean[0][0] == pytest.approx(0.3 + 0.5 * 0.01 / spread2 * 0.02)
    assert after.variance[0][0] == pytest.approx(0.01 * NOISE**2 / spread2)


@pytest.mark.parametrize(
    "history",
    [
        [seen(1e5, 0.10, 0.22)],
        [seen(1e5, 0.10, 0.22), seen(1e5, 0.22, 0.24), seen(3e5, 0.23, 0.27)],
        [seen(1e5, 0.10, 0.10, refused=True)],
    ],
)
def test_the_posterior_is_that_of_a_grid(history: list[Observed]) -> None:
    rates = guesses(3e4, 1e5, 4e5, 2e6)
    found = believe(rates, FIRST, history)
    weight, mean = on_a_grid(rates, history)
    assert found.weight == pytest.approx(weight, abs=2e-4)
    assert found.mean[0] == pytest.approx(mean, abs=2e-4)


def test_refused_after_gains_is_close_to_a_grid() -> None:
    """Moments are matched, so it is near and not exact."""
    history = [seen(1e5, 0.1, 0.22), seen(1e5, 0.22, 0.22, refused=True), seen(1e5, 0.22, 0.23)]
    rates = guesses(3e4, 1e5, 4e5)
    found = believe(rates, FIRST, history)
    weight, mean = on_a_grid(rates, history)
    assert found.weight == pytest.approx(weight, abs=0.03)
    assert found.mean[0] == pytest.approx(mean, abs=0.01)


def test_a_refusal_is_no_gain_of_zero() -> None:
    """From a place with much to gain: an update held back speaks against the rate less than one
    that went out and gained nothing."""
    rates = guesses(1e4, 1e7)  # nearly all, nearly nothing
    zero = believe(rates, FIRST, [seen(1e5, 0.1, 0.1)])
    held = believe(rates, FIRST, [seen(1e5, 0.1, 0.1, refused=True)])
    assert zero.weight[0] < held.weight[0] < 0.5


def test_rounds_across_a_change_teach_nothing() -> None:
    start = Belief.at_first(guesses(1e4, 1e6), FIRST)
    assert start.after(seen(1e5, 0.1, 0.4, learned_in=0, judged_in=1)) is start
    assert start.after(seen(1e5, 0.1, 0.4, learned_in=NOT_KNOWN, judged_in=NOT_KNOWN)) is start
    assert start.after(Observed(1, 0.0, 0.0, 0.1, 0.1)) is start


def test_places_share_the_rate_and_not_the_ceiling() -> None:
    rates = guesses(1e4, 1e6)
    many = [seen(1e5, 0.1, 0.1 + 0.9 * 0.2), seen(1e5, 0.28, 0.298)]
    found = believe(rates, FIRST, many)
    assert found.weight[0] > 0.9  # quick
    elsewhere = found.after(seen(1e5, 0.3, 0.31, learned_in=1, judged_in=1))
    assert elsewhere.mean[0] == pytest.approx(found.mean[0])
    assert elsewhere.mean[1][0] < 0.33 < elsewhere.mean[1][1]


def test_the_gap_is_never_negative() -> None:
    found = believe(guesses(1e4), FIRST, [seen(1e5, 0.1, 0.25)])
    assert 0 < found.gap(0, 0.9)[0] < 1e-6
    assert found.gap(5, 0.4)[0] == pytest.approx(0.2, abs=0.01)  # nobody was there


def test_a_table_is_a_prior_of_shares() -> None:
    table = Table.load("demo")
    curves = table.curves_for(0)
    up, down = curves.upload_range, curves.update_range
    wide, pulled = first_rates(up, down), first_rates(up, down, curves)
    assert pulled is first_rates(up, down, curves)  # kept
    full = Belief.at_first(pulled, achievable(curves))
    none = Belief.at_first(wide, achievable(None))
    share = float(full.weight @ pulled(up.high, down.high)[:, 0])
    assert share > float(none.weight @ wide(up.high, down.high)[:, 0])
    assert share > 0.7  # most of what can be gained, as the table has it
    assert achievable(curves).gain == pytest.approx(0.2, abs=0.06)
    assert first_rates(Range(100, 200), Range(10, 20)).log_weight.sum() == 0


def test_rates_are_shares(tmp_path: Path) -> None:
    rates = first_rates(Range(1e3, 1e6), Range(1e3, 1e5))
    found = rates(np.geomspace(1, 1e9, 30), np.geomspace(1, 1e9, 30))
    assert found.shape == (len(rates), 30)
    assert ((found >= 0) & (found <= 1)).all()
    assert (np.diff(found, axis=1) >= -1e-12).all()
