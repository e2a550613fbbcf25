"""Rivals for a band on the shipped tables, judged beside what is counted by hand."""

from __future__ import annotations

import itertools
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from endedge.allocator.solve.turns import paces
from endedge.data.errors import BadInput
from endedge.lab.benchmark.score import score
from endedge.lab.benchmark.table import Table
from endedge.lab.fleet.members import read_members
from endedge.lab.fleet.menus import Menus, Timing
from endedge.lab.fleet.rivals import RIVALS, play_rival, reached
from endedge.lab.fleet.score import Fleet, FleetScore, Settings, score_fleet
from endedge.lab.fleet.telling import as_csv, as_markdown, as_record, as_text
from endedge.lab.sweep.replicates import Replicates

EACH_HZ = (1500.0, 8000.0, 30e3)


def fleet(*words: str, changes: tuple[str, ...] = ()) -> Fleet:
    return Fleet.load(read_members(words), changes)


@pytest.fixture(scope="module")
def mixed() -> FleetScore:
    bands = [4 * hz for hz in EACH_HZ]
    return score_fleet(fleet("demo*2", "coco-infrared*2"), Settings(keep=0.5), bands)


def test_one_device_is_judged_as_by_the_benchmark_of_one() -> None:
    hz = [9e3, 25e3]
    alone = score(Table.load("demo"), ["fitted", "equal"], hz)
    mine = score_fleet(fleet("demo@2"), Settings(turns=1), hz)
    for theirs, ours in (("fitted", "equal"), ("equal", "equal-halves"), ("oracle", "oracle")):
        i, j = alone.policies.index(theirs), mine.policies.index(ours)
        assert mine.worth[j] == pytest.approx(alone.worth[i], abs=1e-12)


def test_nothing_is_above_the_oracle_and_it_is_below_the_bound(mixed: FleetScore) -> None:
    best = mixed.worth[mixed.policies.index("oracle")]
    assert (mixed.worth <= best + 1e-12).all()
    assert (best.mean(axis=-1) <= mixed.bound + 1e-9).all()
    assert (mixed.used <= 1 + 1e-9).all()
    assert mixed.worth[mixed.policies.index("no-update")].std() < 0.01


def test_steps_add_up_to_the_way_from_halves_to_the_auction(mixed: FleetScore) -> None:
    for k in range(len(EACH_HZ)):
        total = sum(contrast.mean for _, _, contrast in mixed.steps(k))
        assert total == pytest.approx(mixed.contrast("auction", "equal-halves", k).mean, abs=1e-12)


@pytest.mark.parametrize("objective", ["mean", "worst", "fair"])
@pytest.mark.parametrize("each_hz", EACH_HZ)
def test_the_oracle_of_two_devices_against_every_choice(objective: str, each_hz: float) -> None:
    mine, settings = fleet("demo", "coco-infrared@3"), Settings(objective, turns=1)  # type: ignore[arg-type]
    band = 2 * each_hz + 60e3
    menus = Menus(mine.sorts, mine.units(0, settings), Timing(paces(1)))
    best = -1.0
    entries = [np.flatnonzero(allowed) for allowed in menus.allowed]
    for i, j in itertools.product(*entries):
        if menus.hertz[0, i] + menus.hertz[1, j] <= band:
            value = np.array([menus.judged[0, i], menus.judged[1, j]])
            best = max(best, float(reached(value, menus.weight, settings.objective)))
    answer = play_rival("oracle", menus, band, settings.objective)
    rows = np.arange(2)
    value = menus.judged[rows, answer.placed.choice]
    assert float(reached(value, menus.weight, settings.objective)) == pytest.approx(best, abs=1e-9)
    assert answer.bound >= best - 1e-9 or objective == "mean"


def test_objectives_by_hand() -> None:
    value, weight = np.array([[0.2], [0.4]]), np.array([1.0, 3.0])
    assert reached(value, weight, "mean") == pytest.approx([0.35])
    assert reached(value, weight, "worst") == pytest.approx([0.2])
    assert reached(value, weight, "fair") == pytest.approx([0.2**0.25 * 0.4**0.75])


def test_turns_carry_what_a_slot_does_not() -> None:
    # Of an equal slot of 3 kHz nothing of the demo fits (it needs 5); a device in turn has 6 kHz.
    found = score_fleet(fleet("demo*4"), Settings(keep=0.0), [12e3])
    served = dict(zip(found.policies, found.served[:, 0], strict=True))
    assert served["equal"] == 0.0
    assert served["turns"] == 1.0
    assert found.contrast("turns", "equal").mean > 0.02


def test_one_trainer_is_shared_too() -> None:
    # 25 s an update: two devices of eight in every period, more in turn.
    mine = fleet("demo*8", changes=("link.edge_s=25",))
    free = score_fleet(mine, Settings(trainers=None), [400e3])
    tight = score_fleet(mine, Settings(trainers=1), [400e3])
    i = free.policies.index("auction-every")
    assert free.served[i, 0] == 1.0
    assert tight.served[i, 0] == pytest.approx(2 / 8)
    assert tight.price_s[0] > 0.0
    assert free.price_s[0] == 0.0
    assert tight.worth[i].mean() < free.worth[i].mean()
    assert tight.worth[tight.policies.index("oracle")].mean() <= tight.bound[0]


def test_drawn_devices_have_a_scene_of_their_own() -> None:
    mine = fleet("demo", "coco-infrared*3")
    rng = np.random.default_rng(0)
    sort = mine.sorts[0]
    cells = sort.table.surface
    drawn = np.rint(1e4 * (cells.map[:, None] + rng.normal(0, 0.01, (len(cells), 30)))).astype(
        np.uint16
    )
    m0 = np.rint(1e4 * (cells.m0[0] + rng.normal(0, 0.01, 30))).astype(np.uint16)
    table = replace(sort.table, replicates=Replicates(cells.cell, drawn, m0, 30))
    known = Fleet(mine.members, (type(sort)(table), mine.sorts[1]))
    units = known.units(0, Settings(devices=40))
    assert len({u.replicate for u in units if u.member == 0}) > 3
    assert all(u.replicate is None for u in units if u.member == 1)
    assert 20 < sum(u.member == 1 for u in units) < 40
    assert units == known.units(0, Settings(devices=40))
    assert units != known.units(1, Settings(devices=40))
    found = score_fleet(known, Settings(devices=40, trials=2), [40 * 6e3])
    assert "demo: devices drawn from it differ by their seed alone" not in as_text(found)
    assert "coco-infrared: devices drawn from it differ by their seed alone" in as_text(found)
    # As they are, all share the evaluation frames: the error over these is told.
    alike = Fleet(mine.members[:1], known.sorts[:1])
    assert score_fleet(alike, Settings(), [6e3]).draws is not None


def test_what_is_told(mixed: FleetScore) -> None:
    text = as_text(mixed, every=True)
    assert "points for a choice by other seeds" in text
    assert "keep 0.5 is assumed" in text
    assert all(name in text for name in RIVALS)
    assert len(as_markdown(mixed).splitlines()) == 2 + len(EACH_HZ)
    rows = as_csv(mixed).splitlines()
    assert len(rows) == 1 + len(EACH_HZ) * len(mixed.policies)
    record = as_record(mixed)
    assert record["devices"] == 4
    assert record["bandwidths"][1]["policies"]["auction"]["map"] == pytest.approx(
        float(mixed.worth[mixed.policies.index("auction"), 1].mean())
    )


def test_a_policy_of_ones_own_plays_in_equal_slots(tmp_path: Path) -> None:
    found = score_fleet(fleet("demo*2"), Settings(), [40e3], ["full-model-first", "equal"])
    assert "full-model-first" in found.policies
    with pytest.raises(BadInput, match="no policy 'best'"):
        score_fleet(fleet("demo*2"), Settings(), [40e3], ["best"])


@pytest.mark.parametrize(
    ("words", "changes", "settings", "message"),
    [
        (["nowhere*2"], (), {}, "no table 'nowhere'"),
        (["demo*2"], ("link.schedule=sequential",), {}, "link.schedule=pipelined"),
        (["demo*2"], (), {"turns": 3}, "power of two"),
        (["demo*2"], (), {"keep": 1.5}, "keep = 1.5"),
        (["demo*2"], (), {"objective": "sum"}, "objective 'sum'"),
        (["demo*2"], (), {"devices": 0}, "devices = 0"),
        (["demo", "coco-infrared"], (), {"turns": 2}, "coco-infrared: its least update needs"),
    ],
)
def test_bad_fleets(
    words: list[str], changes: tuple[str, ...], settings: dict[str, object], message: str
) -> None:
    with pytest.raises(BadInput, match=message):
        score_fleet(fleet(*words, changes=changes), Settings(**settings), [20e3])  # type: ignore[arg-type]


def test_tables_that_cannot_share_a_band(tmp_path: Path) -> None:
    """Another period, and a table of another version."""
    Table.load("demo").write(tmp_path)
    folder = tmp_path / "demo" / "v1"
    about = folder / "table.yaml"
    about.write_text(about.read_text().replace("link: {}", "link:\n  period_s: 30"))
    with pytest.raises(BadInput, match="of 30 s; devices that share a band"):
        fleet("coco-infrared", str(folder))
    about.write_text(about.read_text().replace("endedge-table-v1", "endedge-table-v2"))
    with pytest.raises(BadInput, match="not a table of version v1"):
        fleet("demo", str(folder))


def test_no_pytorch() -> None:
    code = (
        "import sys; from endedge.lab.cli.main import main; "
        "assert main(['bench', 'demo*2', '--bandwidth', '20kHz', '--json']) == 0; "
        "assert main(['allocate', 'demo*2', '--bandwidth', '20kHz', '--json']) == 0; "
        "assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)
