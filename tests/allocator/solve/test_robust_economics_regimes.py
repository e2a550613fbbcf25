"""Robust mode, prices, and the table of regimes."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest

from endedge.allocator import Curves, Joint, Kind, Link, Range, Rules, allocate, fit
from endedge.allocator.fitting.synthetic import curves_of, perturbed, sample_surface
from endedge.allocator.solve.economics import Prices, ledger, worthwhile
from endedge.allocator.solve.regimes import regime_spans, regime_table
from endedge.data.errors import BadInput

ADDITIVE = Joint(
    Kind("additive", "exponential", "exponential"), 0.05, 0.1, 0.2, 1e5, 1.0, 5e4, 1.0, 0.1
)
KNOWN = curves_of(ADDITIVE, Range(1e3, 1e6), Range(1e3, 5e5))
A_HZ_A_BYTE = Link(3e5, 1.0, 8.0, 8.0)


@pytest.fixture(scope="module")
def fitted() -> Curves:
    truth = Joint(Kind("share", "power", "hill"), 0.11, 0.08, 0.13, 3e5, 0.9, 1e5, 2.5)
    surface = sample_surface(truth, np.random.default_rng(0))
    return fit(surface, kinds=[truth.kind], replicates=60)


@pytest.mark.parametrize("rules", [Rules(), Rules(schedule="sequential", edge_s=10.0)])
def test_robust_is_the_fitted_answer_when_sure(rules: Rules) -> None:
    sure = allocate(KNOWN, replace(A_HZ_A_BYTE, period_s=60.0, bandwidth_hz=1e4), rules, 0.1)
    best = allocate(KNOWN, replace(A_HZ_A_BYTE, period_s=60.0, bandwidth_hz=1e4), rules)
    assert sure.average_map == pytest.approx(best.average_map, abs=1e-6)


def test_robust_quantile_by_hand() -> None:
    # Two equally likely worlds: only data matter, or only the model matters. The worst world
    # (quantile near 0) is best served where both end alike: 0.3·e^(−U/1e5) = 0.3·e^(−M/5e4),
    # so U = 2M, here U = 2e5 and M = 1e5.
    data = replace(ADDITIVE, start=0.0, gain=0.3, depth=0.0, m0=0.0)
    model = replace(ADDITIVE, start=0.3, gain=0.0, depth=0.3, m0=0.0)
    torn = replace(KNOWN, m0=0.0, joint=data, replicates=(data, model))
    found = allocate(torn, A_HZ_A_BYTE, quantile=1e-9)
    assert found.upload_bytes == pytest.approx(2e5, rel=1e-3)
    assert found.average_map == pytest.approx(0.3 - 0.3 * np.exp(-2), abs=1e-5)


def test_robust_beats_every_share_of_a_fine_grid(fitted: Curves) -> None:
    for bandwidth in (1e4, 4e4, 1.5e5):
        link = Link(bandwidth, 60.0)
        found = allocate(fitted, link, quantile=0.2)
        upload = np.linspace(96e3, bandwidth * 60 * 2.55 / 8, 500)
        update = (bandwidth - upload * 8 / 60 / 2.55) * 60 * 5 / 8
        fits = update >= fitted.update_range.low
        update = np.minimum(update[fits], fitted.update_range.high)
        lower = np.quantile(fitted.draws(upload[fits], update), 0.2, axis=0)
        assert found.average_map >= lower.max() - 1e-5


def test_robust_bad_input(fitted: Curves) -> None:
    with pytest.raises(BadInput, match="quantile"):
        allocate(fitted, A_HZ_A_BYTE, quantile=1.0)
    with pytest.raises(BadInput, match="replicates"):
        allocate(replace(fitted, replicates=()), A_HZ_A_BYTE, quantile=0.1)
    assert allocate(fitted, Link(0.0, 1.0), quantile=0.1).regime == "none"


def test_ledger_by_hand() -> None:
    # 2 MB up at 5 a GB: 0.01; 1 MB down at 3: 0.003; 90 s of a GPU at 4 an hour: 0.1; a visit of
    # 50 in one of 1,000 periods: 0.05. 5 mAP points for half an hour at 0.2 a point-hour: 0.5.
    prices = Prices(5.0, 3.0, 4.0, 50.0, 0.2)
    books = ledger(
        prices,
        upload_bytes=2e6,
        update_bytes=1e6,
        average_map=0.15,
        m0=0.1,
        period_s=1800.0,
        edge_s=90.0,
        visits=1e-3,
    )
    assert (books.uplink, books.downlink, books.edge, books.visits) == pytest.approx(
        (0.01, 0.003, 0.1, 0.05)
    )
    assert books.gain == pytest.approx(0.5)
    assert books.cost == pytest.approx(0.163)
    assert books.net == pytest.approx(0.337)
    assert books.rate_of_return == pytest.approx(0.337 / 0.163)
    with pytest.raises(BadInput, match="down_per_gb"):
        Prices(down_per_gb=float("nan"))


def test_worthwhile_bandwidth_by_hand() -> None:
    # A mAP point for the period of an hour is worth 1, so mAP 1.0 is worth 100. A byte up pays
    # while 100·0.2/1e5·e^(−U/1e5) > 2e-4·e^−2, i.e. U < 2e5; down while
    # 100·0.1/5e4·e^(−M/5e4) > 2e-4·e^−3, M < 1.5e5. In an hour at 8 bit/s/Hz: 350e3/3600 Hz.
    prices = Prices(2e-4 * np.exp(-2) * 1e9, 2e-4 * np.exp(-3) * 1e9, map_point_hour=1.0)
    link = Link(1.0, 3600.0, 8.0, 8.0)
    hertz, upload, update = worthwhile(KNOWN, link, prices)
    assert (upload, update) == pytest.approx((2e5, 1.5e5), rel=1e-4)
    assert hertz == pytest.approx(3.5e5 / 3600, rel=1e-4)
    # Free bytes: everything that there is. Bytes too dear, or a worthless mAP: nothing.
    assert worthwhile(KNOWN, link, Prices(map_point_hour=1.0))[1:] == pytest.approx((1e6, 5e5))
    assert worthwhile(KNOWN, link, replace(prices, up_per_gb=1e9)) == (0.0, 0.0, 0.0)
    assert worthwhile(KNOWN, link, Prices(1.0, 1.0)) == (0.0, 0.0, 0.0)
    # 19 s... the gain is 100·(0.3 − 0.2·e^−2 − 0.1·e^−3 − 0.05) = 21.8 less 9.4 for bytes: an
    # edge hour at 12.5 no longer pays, one at 12.3 does.
    hour = Rules(edge_s=3600.0)
    left = 100 * (0.25 - 0.2 * np.exp(-2) - 0.1 * np.exp(-3)) - 40 * np.exp(-2) - 30 * np.exp(-3)
    assert worthwhile(KNOWN, link, replace(prices, edge_gpu_hour=left + 0.01), hour)[0] == 0
    assert worthwhile(KNOWN, link, replace(prices, edge_gpu_hour=left - 0.01), hour)[0] > 0
    with pytest.raises(BadInput, match="pipelined"):
        worthwhile(KNOWN, link, prices, Rules(schedule="sequential"))


def test_regimes_by_hand() -> None:
    # Interior while U = 2M; least bytes 1e3 and the stale 0.05 decide the thin end; M is
    # saturated from M = 5e5 on, which needs U = 1e6 at once: from 1.5e6 Hz all is saturated.
    bands = np.geomspace(1e2, 1e7, 40)
    spans = regime_spans(KNOWN, A_HZ_A_BYTE, bands.tolist())
    names = [span.regime for span in spans]
    assert names[0] == "none"
    assert names[-1] == "saturated"
    assert "interior" in names
    last = spans[-1].first.link.bandwidth_hz
    assert last == pytest.approx(1.5e6, rel=2e-3)
    for before, after in pairwise(spans):
        gap = after.first.link.bandwidth_hz / before.last.link.bandwidth_hz
        assert 1.0 <= gap <= 1.0011
    table = regime_table(spans)
    assert len(table.splitlines()) == len(spans) + 1
    assert "interior" in table


def test_saturated_model_share_falls_as_one_over_the_band() -> None:
    capped = replace(ADDITIVE, kind=Kind("additive", "logarithm", "power"), gain=0.05, model_s=0.3)
    known = curves_of(capped, Range(1e3, 1e9), Range(1e3, 1e6))
    found = [allocate(known, replace(A_HZ_A_BYTE, bandwidth_hz=hz)) for hz in (1e6, 2e6, 4e6)]
    assert [a.regime for a in found] == ["model saturated"] * 3
    shares = [a.downlink_hz / a.link.bandwidth_hz for a in found]
    assert shares[0] == pytest.approx(2 * shares[1], rel=1e-4)
    assert shares[1] == pytest.approx(2 * shares[2], rel=1e-4)


def test_perturbed_curves_differ_about_as_much_as_asked() -> None:
    rng = np.random.default_rng(0)
    wrong = [perturbed(KNOWN, 0.1, rng).joint for _ in range(300)]
    off = np.log([j.gain / ADDITIVE.gain for j in wrong])
    assert off.std() == pytest.approx(0.1, rel=0.15)
    assert perturbed(KNOWN, 0.0, rng).joint == ADDITIVE
