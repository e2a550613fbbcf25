"""What bytes return, by hand."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest

from endedge.allocator import Joint, Kind, Ledger, Link, Points, Rules, Surface, allocate, fit
from endedge.allocator.fitting.synthetic import sample_surface
from endedge.data.errors import BadInput
from endedge.lab.benchmark.returns import Return, returns
from endedge.lab.benchmark.table import shipped_tables
from endedge.lab.cli.main import main

# Gains of a round in mAP; the pilot's length by hand: (2.487 sd / (gain - break-even))^2, up.
PILOTS = [
    (0.05, 0.01, 0.02, 2.0),  # (2.487 * 0.02 / 0.04)^2 = 1.5: two at least
    (0.03, 0.01, 0.02, 7.0),  # 6.2
    (0.01, 0.03, 0.02, 7.0),  # as long to show that it does not pay
    (0.03, 0.03, 0.02, math.nan),  # no pilot tells what is exactly even
    (0.03, 0.01, math.nan, math.nan),
]


@pytest.mark.parametrize(("gain", "even", "spread", "periods"), PILOTS)
def test_the_length_of_a_pilot(gain: float, even: float, spread: float, periods: float) -> None:
    found = Return(Ledger(1.0, 0.0, 0.0, 0.0, 2.0), gain, math.nan, even, spread, 3)
    assert found.pilot_periods == pytest.approx(periods, nan_ok=True)
    json.dumps(found.record(), allow_nan=False)


@pytest.fixture(scope="module")
def cells() -> Surface:
    truth = Joint(Kind("share", "power", "hill"), 0.11, 0.08, 0.13, 3e5, 0.9, 1e5, 2.5)
    return sample_surface(truth, np.random.default_rng(0))


def test_a_split_pays_for_its_bytes(cells: Surface) -> None:
    curves = fit(cells, kinds=[Kind("share", "power", "hill")], replicates=5)
    found = allocate(curves, Link(1e5, 1800.0), Rules())
    got = returns(
        found, curves, Rules(), price_per_mb=0.01, value_per_point=0.2, points=Points.of(cells)
    )
    megabytes = (found.upload_bytes + found.update_bytes) / 1e6
    assert got.books.cost == pytest.approx(0.01 * megabytes)
    points = 100 * (found.average_map - curves.m0)
    assert got.books.gain == pytest.approx(0.2 * points * 0.5)  # half an hour
    assert got.break_even_map == pytest.approx(0.01 * megabytes / (0.2 * 0.5) / 100)
    # At the break-even value of a point nothing is left.
    even = returns(
        found,
        curves,
        Rules(),
        price_per_mb=0.01,
        value_per_point=0.01 * megabytes / (points * 0.5),
    )
    assert even.books.net == pytest.approx(0, abs=1e-9)
    assert even.break_even_map == pytest.approx(got.gain_map)
    assert math.isnan(even.period_sd)  # no rounds were given
    # The spread is that of the measured round within the split.
    below = (cells.upload_bytes <= found.upload_bytes) & (cells.update_bytes <= found.update_bytes)
    frames = cells.frames[below].max()
    budget = cells.budget_bytes[below & (cells.frames == frames)].max()
    same = (cells.frames == frames) & (cells.budget_bytes == budget)
    assert got.rounds == same.sum() > 1
    assert got.period_sd == pytest.approx(np.std((cells.map - cells.m0)[same], ddof=1))
    assert "it pays from" in str(got)
    assert "pilot       " in str(got)


def test_bytes_for_free_dear_bytes_and_no_bytes(cells: Surface) -> None:
    curves = fit(cells, kinds=[Kind("share", "power", "hill")], replicates=5)
    found = allocate(curves, Link(1e5, 1800.0), Rules())
    free = returns(found, curves, Rules(), price_per_mb=0.0, value_per_point=0.2)
    assert free.books.net == free.books.gain > 0
    assert free.worthwhile_hz == math.inf
    dear = returns(found, curves, Rules(), price_per_mb=1e6, value_per_point=0.2)
    assert dear.books.net < 0
    assert dear.worthwhile_hz == 0
    assert "worthwhile  at no bandwidth" in str(dear)
    one_after_the_other = Rules(schedule="sequential", edge_s=10.0)
    later = allocate(curves, Link(1e5, 1800.0), one_after_the_other)
    got = returns(later, curves, one_after_the_other, price_per_mb=0.01, value_per_point=0.2)
    assert math.isnan(got.worthwhile_hz)
    nothing = allocate(curves, Link(0.0, 1800.0), Rules())
    none = returns(nothing, curves, Rules(), price_per_mb=0.01, value_per_point=0.2)
    assert str(none).startswith("return      nothing is sent")
    for price, value in ((-1.0, 1.0), (1.0, -1.0), (math.nan, 1.0), (1.0, math.inf)):
        with pytest.raises(BadInput, match="not negative"):
            returns(found, curves, Rules(), price_per_mb=price, value_per_point=value)


def test_the_verb_says_what_a_split_returns(capsys: pytest.CaptureFixture[str]) -> None:
    asked = ["allocate", "demo", "--bandwidth", "20kHz", "--price-per-mb", "0.005"]
    assert main([*asked, "--value-per-point", "0.1"]) == 0
    text = capsys.readouterr().out
    assert main([*asked, "--value-per-point", "0.1", "--json"]) == 0
    record = json.loads(capsys.readouterr().out)
    paid = record["return"]
    megabytes = (record["upload_bytes"] + record["update_bytes"]) / 1e6
    assert paid["cost"] == pytest.approx(0.005 * megabytes)
    assert paid["net"] == pytest.approx(paid["gain"] - paid["cost"])
    assert paid["measured_rounds"] == 2
    assert f"return      {paid['net']:+.4g} a period" in text
    for words, says in (
        (asked, "go together"),
        (["allocate", "demo", *asked[1:], "--value-per-point", "1"], "for one device"),
        ([*asked[:-1], "-1", "--value-per-point", "1"], "--price-per-mb -1 must be"),
        (["bench"], "name a results folder or a shipped table"),
    ):
        assert main(words) == 2
        said = capsys.readouterr().err
        assert says in said
        assert len(said.splitlines()) == 1


def test_every_shipped_table_at_once(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "--markdown"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[1] == "| --- | --- | --- | --- | --- | --- | --- | --- | --- |"
    assert {line.split(" | ")[0] for line in lines[2:]} == {f"| {t}" for t in shipped_tables()}
    assert sum("| fitted |" in line for line in lines) == len(shipped_tables())
