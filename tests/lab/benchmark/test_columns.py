"""Every column of ``benchmark.csv``, and what a score counts, by hand on eight made-up cells."""

from __future__ import annotations

import csv
import io
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from endedge.allocator import Budget, Known, Points, Range, Split, Surface, policies, register
from endedge.allocator.csv_files import rows_csv
from endedge.lab.benchmark.benchmark import (
    BenchmarkRow,
    BenchmarkSetup,
    Decision,
    Hindsight,
    outcomes,
    rules_of,
)
from endedge.lab.benchmark.outcomes import Benchmark
from endedge.lab.benchmark.score import score
from endedge.lab.benchmark.table import Table
from endedge.lab.config import LinkConfig
from endedge.lab.sweep.replicates import Replicates

# mAP by (frames, budget), of seed 0 and of seed 1.
MAPS = {
    (10, 1000): (0.31, 0.42),
    (10, 3000): (0.33, 0.40),
    (20, 1000): (0.35, 0.38),
    (20, 3000): (0.37, 0.36),
}
M0 = (0.21, 0.25)
# 10 kHz at 2.5 and 5 bit/s/Hz, 60 s of which the edge takes 12 and the device 3.
LINK = LinkConfig(
    schedule="sequential",
    edge_s=12.0,
    apply_s=3.0,
    period_s=60.0,
    up_bit_per_s_per_hz=2.5,
    down_bit_per_s_per_hz=5.0,
)
HZ = 10_000.0


def _surface() -> Surface:
    rows = [
        {
            "cell": f"{seed}-{frames}-{budget}",
            "seed": seed,
            "frames": frames,
            "codec": "jpeg-q75-96",
            "upload_bytes": 1000 * frames + 17 * seed,
            "budget_bytes": budget,
            "update_bytes": budget - 23 - 5 * seed,
            "map": values[seed],
            "map50": 0.9,
            "m0": M0[seed],
            "teacher_map": 0.8,
            "sent": 1,
        }
        for (frames, budget), values in MAPS.items()
        for seed in (0, 1)
    ]
    return Surface.from_rows(rows)


def _curves() -> Any:
    """All that the books need of curves."""
    return SimpleNamespace(m0=0.2, upload_range=Range(1.0, 1e6), update_range=Range(1.0, 1e6))


def _fresh(upload_bytes: float, update_bytes: float) -> float:
    """Share of the period that the new model serves."""
    taken_s = 8 * upload_bytes / (HZ * 2.5) + 8 * update_bytes / (HZ * 5.0)
    return (60 - 12 - 3 - taken_s) / 60


@pytest.fixture
def found() -> dict[tuple[str, int], BenchmarkRow]:
    """A policy that asked for more than (10 frames, 3000 B), which it got, one that sent nothing,
    and the oracle, said to be (20, 1000); by policy and seed."""
    surface = _surface()
    points = Points.of(surface)
    rows = {
        (int(f), int(b)): i
        for i, (f, b) in enumerate(zip(points.frames, points.budget_bytes, strict=True))
    }
    mine = Decision(HZ, "mine", Split(12_345.0, 3456.0), points.point(rows[10, 3000]))
    idle = Decision(HZ, "idle", Split(0.0, 0.0), None)
    best = Decision(HZ, "oracle", Split(20_017.0, 977.0), points.point(rows[20, 1000]))
    setup = BenchmarkSetup(_curves(), LINK, rules_of(LINK), (HZ,), points)
    rest = outcomes(setup, surface, [mine, idle], Hindsight({HZ: best}, {HZ: []}))
    assert len(rest) == 6
    return {(o.policy, o.seed): o for o in rest}


@pytest.mark.parametrize("seed", [0, 1])
def test_every_column(found: dict[tuple[str, int], BenchmarkRow], seed: int) -> None:
    up, down = 10_000 + 17 * seed, 2977 - 5 * seed
    reached, best = MAPS[10, 3000][seed], MAPS[20, 1000][seed]
    average = M0[seed] + (reached - M0[seed]) * _fresh(up, down)
    top = M0[seed] + (best - M0[seed]) * _fresh(20_000 + 17 * seed, 977 - 5 * seed)
    wanted = {
        "bandwidth_hz": HZ,
        "policy": "mine",
        "seed": seed,
        "asked_upload_bytes": 12_345.0,
        "asked_update_bytes": 3456.0,
        "frames": 10,
        "codec": "jpeg-q75-96",
        "budget_bytes": 3000,
        "upload_bytes": up,
        "update_bytes": down,
        "map": reached,
        "average_map": average,
        "regret": top - average,
    }
    (row,) = csv.DictReader(io.StringIO(rows_csv(BenchmarkRow, [found["mine", seed]])))
    assert list(row) == list(wanted)
    for column, value in wanted.items():
        if isinstance(value, str):
            assert row[column] == value
        else:
            assert float(row[column]) == pytest.approx(value, abs=1e-12), column


@pytest.mark.parametrize("seed", [0, 1])
def test_who_sends_nothing_keeps_the_start_of_that_seed(
    found: dict[tuple[str, int], BenchmarkRow], seed: int
) -> None:
    idle = found["idle", seed]
    assert (idle.frames, idle.codec, idle.budget_bytes) == (0, "", 0)
    assert idle.upload_bytes == idle.update_bytes == 0
    assert idle.map == idle.average_map == M0[seed]
    assert idle.regret == found["oracle", seed].average_map - M0[seed] > 0
    assert found["oracle", seed].regret == 0


def test_what_is_judged_is_the_average_over_the_period(
    found: dict[tuple[str, int], BenchmarkRow],
) -> None:
    bench = Benchmark.from_outcomes(list(found.values()))
    mine = bench.of("mine")
    assert bench.judged[mine, 0].tolist() == [found["mine", s].average_map for s in (0, 1)]
    assert bench.map[mine, 0].tolist() == [MAPS[10, 3000][s] for s in (0, 1)]
    assert bench.over_the_period
    assert bench.regret[mine, 0].tolist() == [found["mine", s].regret for s in (0, 1)]


# Scores ---------------------------------------------------------------------------------------


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """A policy ``listening`` that sends (10, 1000) and notes down which curves it was told."""
    monkeypatch.setattr(policies, "_BUILT_IN", dict(policies._BUILT_IN))
    heard: list[Any] = []

    @register("listening")
    def listening(known: Known) -> Split:
        heard.append(known.curves)
        return Split(10_017.0, 977.0)

    return heard


def _table(replicates: Replicates | None = None) -> Table:
    curves = {0: _curves(), 1: _curves()}
    return Table("by-hand", _surface(), LINK, 0, curves, replicates, {})


def test_a_seed_is_decided_by_curves_that_never_saw_it(asked: list[Any]) -> None:
    table = _table()
    score(table, ["listening"], [HZ])
    assert asked == [table.curves[0], table.curves[1]]
    assert asked[0] is table.curves[0]


def test_a_score_is_what_the_cells_of_that_seed_are_worth(asked: list[Any]) -> None:
    table = _table()
    got = score(table, ["listening", "no-update"], [HZ])
    cells = {
        (seed, n, b): M0[seed]
        + (values[seed] - M0[seed]) * _fresh(1000 * n + 17 * seed, b - 23 - 5 * seed)
        for (n, b), values in MAPS.items()
        for seed in (0, 1)
    }

    def worth(name: str) -> list[float]:
        return [float(v) for v in got.worth[got.policies.index(name), 0]]

    assert worth("listening") == pytest.approx([cells[0, 10, 1000], cells[1, 10, 1000]])
    assert worth("no-update") == pytest.approx(list(M0))
    best = {s: max((k for k in cells if k[0] == s), key=lambda k: cells[k]) for s in (0, 1)}
    assert best[0][1:] != best[1][1:]  # so that it matters whose cells are looked at
    assert worth("oracle") == pytest.approx([cells[best[0]], cells[best[1]]])
    others = [cells[0, *best[1][1:]], cells[1, *best[0][1:]]]
    assert worth("oracle-other-seeds") == pytest.approx(others)
    gap = [cells[s, 10, 1000] - M0[s] for s in (0, 1)]
    contrast = got.contrast("listening", "no-update")
    assert contrast.mean == pytest.approx(np.mean(gap))
    assert contrast.seed_error == pytest.approx(abs(gap[0] - gap[1]) / 2)
    assert got.regret("listening")[0] == pytest.approx(
        np.mean([cells[best[s]] - cells[s, 10, 1000] for s in (0, 1)])
    )
    caught = np.mean(
        [cells[s, 10, 1000] - got.worth[got.policies.index(got.fixed), 0, s] for s in (0, 1)]
    )
    assert got.caught("listening")[0] == pytest.approx(caught / got.headroom().mean)


def test_replicates_are_of_the_same_cells_and_the_same_draws(asked: list[Any]) -> None:
    """Draw r moves every cell by r points and the start by 3 r: a round keeps its fresh share of
    the one and the rest of the other."""
    surface, draws = _surface(), np.arange(4)
    whole = np.round(1e4 * (surface.map[:, None] + 0.01 * draws)).astype(np.uint16)
    m0 = np.round(1e4 * (0.20 + 0.03 * draws)).astype(np.uint16)
    got = score(_table(Replicates(surface.cell, whole, m0, 99)), ["listening"], [HZ])
    assert got.draws is not None
    drawn = got.draws[got.policies.index("listening"), 0]
    for seed in (0, 1):
        fresh = _fresh(10_000 + 17 * seed, 977 - 5 * seed)
        before, after = 0.20 + 0.03 * draws, MAPS[10, 1000][seed] + 0.01 * draws
        assert drawn[seed] == pytest.approx(before + (after - before) * fresh)


def test_of_an_update_that_was_not_sent_the_replicates_are_the_starts() -> None:
    kept = Surface.from_rows(
        [
            {
                "cell": name,
                "seed": 0,
                "frames": 1,
                "codec": "c",
                "upload_bytes": 1,
                "budget_bytes": 1,
                "update_bytes": 1,
                "map": 0.2,
                "m0": 0.2,
                "sent": sent,
            }
            for name, sent in (("a", 1), ("b", 0))
        ]
    )
    cells = np.array(["b", "a"])  # in another order than the surface
    whole = np.array([[900, 800], [500, 600]], np.uint16)
    found = Replicates(cells, whole, np.array([100, 200], np.uint16), 99).of(kept)
    assert found.tolist() == [
        pytest.approx([0.05, 0.06]),
        pytest.approx([0.01, 0.02]),
    ]


# The period -----------------------------------------------------------------------------------


@pytest.mark.parametrize(("objective", "fresh"), [("average", (60 - 12 - 3) / 60), ("final", 1.0)])
def test_a_period_in_turns(objective: Any, fresh: float) -> None:
    link = LINK.model_copy(update={"objective": objective})
    budget = Budget.of(link.at(HZ), rules_of(link), _curves())
    assert (budget.room, budget.fresh) == (45.0, fresh)
    assert (budget.up, budget.down) == pytest.approx((8 / 25_000, 8 / 50_000))
    takes = (budget.up / 60, budget.down / 60) if objective == "average" else (0.0, 0.0)
    assert (budget.fresh_up, budget.fresh_down) == pytest.approx(takes)
    half = budget.with_share(0.5)  # of the 45 s, each way
    assert half.upload_bytes == pytest.approx(22.5 * 25_000 / 8)
    assert half.update_bytes == pytest.approx(22.5 * 50_000 / 8)


def test_a_pipelined_period() -> None:
    link = LINK.model_copy(update={"schedule": "pipelined"})
    budget = Budget.of(link.at(HZ), rules_of(link), _curves())
    assert budget.room == HZ
    assert (budget.up, budget.down) == pytest.approx((8 / (60 * 2.5), 8 / (60 * 5.0)))
    assert (budget.fresh, budget.fresh_up, budget.fresh_down) == (57 / 60, 0.0, 0.0)
