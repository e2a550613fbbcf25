"""Who wins where: hand-made benchmarks with differences that are known."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from endedge.data.errors import BadInput
from endedge.lab.benchmark.outcomes import Benchmark, spread
from endedge.lab.benchmark.ranking import clear, comparisons, standings, summary, winners

NAMES = ("fitted", "best-static", "equal", "oracle")


def bench(regret: list[list[list[float]]]) -> Benchmark:
    """From regret (policies, bandwidths, seeds)."""
    values = np.array(regret)
    sent = np.ones_like(values)
    seeds = tuple(range(values.shape[2]))
    hz = np.geomspace(1e3, 1e4, values.shape[1])
    return Benchmark(NAMES, hz, seeds, 0.4 - values, 0.4 - values, values, *[sent] * 4)


# Equal loses 0.02 everywhere with the same seed noise as fitted: paired, that is clear although
# the noise is 0.03. The static split is 0.001 behind on average, its sign changes with the seed.
NOISE = np.array([0.0, 0.03, 0.06])
PAIRED = bench(
    [
        [list(NOISE), list(NOISE)],
        [[0.004, 0.026, 0.063], list(NOISE)],
        [[0.019, 0.050, 0.081], [0.021, 0.050, 0.079]],
        [[0.0, 0.0, 0.0], [0.0, 0.0, 0.0]],
    ]
)


def test_differences_are_paired_over_seeds() -> None:
    found = {compared.rival: compared for compared in comparisons(PAIRED)}
    assert set(found) == {"best-static", "equal", "oracle"}
    assert float(found["equal"].lead.mean) == pytest.approx(0.02)
    assert (found["equal"].ahead, found["equal"].even, found["equal"].behind) == (2, 0, 0)
    assert not clear(found["best-static"].lead)
    assert (found["best-static"].ahead, found["best-static"].even) == (0, 2)
    assert float(found["oracle"].lead.mean) == pytest.approx(-0.03)


def test_winners_and_who_cannot_be_told_from_them() -> None:
    for winner in winners(PAIRED):
        assert winner.policy == "fitted"  # neither the oracle nor the static split, in hindsight
        assert winner.tied == ()
        assert winner.regret == pytest.approx(0.03)
    close = bench([[[0.0, 0.01]], [[0.0, 0.0]], [[0.01, 0.005]], [[0.0, 0.0]]])
    (winner,) = winners(close)
    assert (winner.policy, winner.tied) == ("fitted", ("equal",))
    # How far fitted is ahead of the static split: behind it where its regret is larger.
    assert [float(w.lead.mean) for w in winners(PAIRED)] == pytest.approx([0.001, 0.0])
    assert float(winner.lead.mean) == pytest.approx(-0.005)
    (row,) = standings(close)
    assert (row.bandwidth_hz, row.winner, row.not_clearly_worse) == (1e3, "fitted", "equal")
    assert (row.regret, row.fitted_over_static) == (winner.regret, float(winner.lead.mean))
    lead = winner.lead
    assert row.fitted_over_static_low == float(lead.low)
    assert row.fitted_over_static_high == float(lead.high)


@pytest.mark.parametrize(
    ("differences", "says"),
    [
        ([0.02], False),  # one seed shows no noise, so nothing can be said
        ([0.02, 0.001], True),  # both agree
        ([0.02, -0.001], False),
        ([0.02, 0.021, 0.019], True),
        ([0.02, 0.00, -0.01], False),
        ([0.0, 0.0, 0.0], False),
    ],
)
def test_when_a_difference_is_clear(differences: list[float], says: bool) -> None:
    assert clear(spread(differences)) is says


def test_the_summary_needs_a_benchmark(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="endedge bench"):
        summary(tmp_path / "benchmark.csv")
    (tmp_path / "benchmark.csv").write_text("a,b\n1,2\n")
    with pytest.raises(BadInput, match="lacks the column"):
        summary(tmp_path / "benchmark.csv")
