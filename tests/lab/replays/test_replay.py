"""Days on measured tables: what the worlds do, who can win, and bad input in one line."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from endedge.allocator import Known, Split, policies, register
from endedge.configs import file_of
from endedge.data.errors import BadInput
from endedge.lab.benchmark.table import SHIPPED_TABLES, Table
from endedge.lab.cli.main import main
from endedge.lab.replays.compare import ADVANCE, as_record, replay
from endedge.lab.replays.days import ReplayedDay, draw, levels_of
from endedge.lab.replays.play import ORACLE, Setting, play
from endedge.lab.replays.worlds import KINDS, Ground, World

TDD = ["link.schedule=sequential", "link.edge_s=5"]


@pytest.fixture(scope="module")
def ground() -> Ground:
    return Ground.of([Table.load("demo", TDD)])


def day(places: list[int], hz: float) -> ReplayedDay:
    return ReplayedDay(np.array(places), np.full(len(places) - 1, hz))


def test_a_day_visits_long_enough_and_stays_in_its_band() -> None:
    found = draw(np.random.default_rng(1), 3, 200, (6, 9), "walk", (1e3, 1e5))
    cuts = np.flatnonzero(np.diff(found.place)) + 1
    lengths = np.diff(np.r_[0, cuts])
    assert lengths.min() >= 6
    assert lengths.max() <= 9
    assert set(found.place) == {0, 1, 2}
    assert found.bandwidth_hz.max() / found.bandwidth_hz.min() > 8  # it does vary
    assert found.bandwidth_hz.max() / found.bandwidth_hz.min() <= 16.001
    calm = draw(np.random.default_rng(1), 3, 20, (6, 9), "constant", (1e3, 1e5))
    assert set(calm.bandwidth_hz) == {calm.bandwidth_hz[0]}
    with pytest.raises(BadInput, match="no band 'fast'"):
        draw(np.random.default_rng(1), 3, 20, (6, 9), "fast", (1e3, 1e5))


def test_a_trace_as_levels(tmp_path: Path) -> None:
    """Two packets in the first second, six in the second: half and one and a half of the mean."""
    trace = tmp_path / "t"
    trace.write_text("\n".join(map(str, [500, 1000, 1100, 1200, 1300, 1400, 1500, 2000])))
    assert levels_of(trace, 1.0) == pytest.approx([0.5, 1.5])
    assert levels_of(trace, 60.0) == pytest.approx([1.0])  # shorter than a period: it repeats
    assert len(levels_of(file_of("endedge:traces/tunnel"), 60.0)) > 2  # as `--trace` names it
    trace.write_text("1\n5000\n")
    with pytest.raises(BadInput, match="nothing passes in a whole period"):
        levels_of(trace, 1.0)
    found = draw(np.random.default_rng(1), 3, 5, (6, 9), np.array([0.5, 1.5]), (1e3, 1e3 + 1e-6))
    assert sorted(set(np.round(found.bandwidth_hz))) == [500, 1500]


def test_worlds_by_hand(ground: Ground) -> None:
    """The table's own place is the first; the share rule and the level rule."""
    best = int(ground.map[0][0].argmax())
    for kind in ("shared", "levels"):
        world = World(kind, ground, 0, np.random.default_rng(0))
        assert world.start[0] == pytest.approx(ground.start[0][0])
        gain = (ground.map[0][0].max() - world.start[0]) / 0.9
        assert world.ceiling[0] == pytest.approx(world.start[0] + gain)
        once = world.expected(world.start, 0, best)
        if kind == "shared":
            assert once[0] == pytest.approx(ground.map[0][0].max())  # as measured
            twice = world.expected(once, 0, best)
            assert twice[0] - once[0] == pytest.approx(0.9 * (world.ceiling[0] - once[0]))
        else:
            for _ in range(40):
                once = world.expected(once, 0, best)
            assert once[0] == pytest.approx(ground.map[0][0].max())  # and no further
    own = World("own", ground, 0, np.random.default_rng(0))
    assert not np.allclose(own.rate[0], own.rate[1])
    with pytest.raises(BadInput, match="no world 'flat'"):
        World("flat", ground, 0, np.random.default_rng(0))


def test_harm_is_held_back(ground: Ground) -> None:
    world = World("shared", ground, 0, np.random.default_rng(0))
    high = world.ceiling + 0.1
    kept = [world.update(high, 0, 0) for _ in range(20)]
    assert all(refused for _, refused in kept)
    assert all((after == high).all() for after, _ in kept)


def test_no_update_is_the_start_and_the_same_day_is_the_same(ground: Ground) -> None:
    where = day([0] * 9, 2e4)
    one = play(
        "no-update",
        ground,
        World("shared", ground, 0, np.random.default_rng(0)),
        where,
        3,
        0,
        Setting(),
    )
    assert one.map == pytest.approx(ground.start[0][0])
    assert one.updates == 0
    runs = [
        play(
            "adaptive",
            ground,
            World("own", ground, 0, np.random.default_rng(0)),
            where,
            3,
            0,
            Setting(),
        )
        for _ in range(2)
    ]
    assert runs[0] == runs[1]


def test_an_update_serves_for_the_rest_of_its_period(ground: Ground) -> None:
    """By hand: one round of equal at a bandwidth at which everything fits in a third of it."""
    heard: list[Known] = []

    @register("all-of-it")
    def all_of_it(known: Known) -> Split:
        heard.append(known)
        return known.budget.with_share(0.5)

    hz = 4e5
    where = day([0, 0], hz)
    world = World("shared", ground, 0, np.random.default_rng(0))
    after = World("shared", ground, 0, np.random.default_rng(0)).update(
        world.start, 0, len(ground.points) - 1
    )[0][0]
    one = play("all-of-it", ground, world, where, 0, 0, Setting())
    points = ground.points
    seconds = 5 + 8 * points.upload_bytes[-1] / (hz * 2.55) + 8 * points.update_bytes[-1] / (hz * 5)
    stale = ground.start[0][0]
    assert one.choices == [len(points) - 1]
    asked = heard[0].budget.with_share(0.5)
    assert asked.upload_bytes == pytest.approx(points.upload_bytes.max())
    assert one.map == pytest.approx(stale + (after - stale) * (1 - seconds / 60))


def test_a_pipeline_serves_from_the_third_period_on() -> None:
    ground = Ground.of([Table.load("demo")])
    where = day([0] * 6, 4e4)
    world = World("shared", ground, 0, np.random.default_rng(0))
    found = play("equal", ground, world, where, 0, 0, Setting())
    assert [choice >= 0 for choice in found.choices] == [False, False, True, True, True]
    only = play(
        "equal",
        ground,
        World("shared", ground, 0, np.random.default_rng(0)),
        day([0] * 4, 4e4),
        0,
        0,
        Setting(),
    )
    assert only.map == pytest.approx(ground.start[0][0])  # its first package comes as it ends


def test_a_package_that_travels(ground: Ground, monkeypatch: pytest.MonkeyPatch) -> None:
    """Asked for what takes three periods, it is applied in the third, and nothing else is sent."""
    monkeypatch.setattr(policies, "_BUILT_IN", dict(policies._BUILT_IN))

    @register("the-largest")
    def the_largest(known: Known) -> Split:
        return Split(float(known.points.upload_bytes[-1]), float(known.points.update_bytes[-1]))

    points = ground.points
    bits = 8 * (points.upload_bytes[-1] / 2.55 + points.update_bytes[-1] / 5)
    where = day([0] * 7, bits / (2.5 * 55))
    world = World("shared", ground, 0, np.random.default_rng(0))
    found = play("the-largest", ground, world, where, 0, 0, Setting(periods=3))
    largest = len(points) - 1
    assert found.choices == [-1, -1, largest, -1, -1, largest]
    with pytest.raises(BadInput, match="which the link cannot carry"):
        play("the-largest", ground, world, where, 0, 0, Setting())


@pytest.mark.parametrize("kind", KINDS)
def test_who_knows_everything_is_ahead(ground: Ground, kind: str) -> None:
    found = replay(
        ground, ("adaptive", "no-update"), days=12, rounds=10, bands={"walk": "walk"}, worlds=[kind]
    )
    (one,) = found.conditions
    assert one.contrast(ORACLE, "no-update").mean > 0.02
    assert one.contrast(ORACLE, ADVANCE).mean > -0.002
    assert one.contrast(ORACLE, "adaptive").mean > -0.004
    assert set(one.fixed) == {0, 1}
    assert as_record(found)["conditions"][0]["policies"]["adaptive"]["map"] > 0.2


def test_the_split_in_advance_is_chosen_elsewhere(
    ground: Ground, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the days of the other seed alone."""
    from endedge.lab.replays import compare

    real = play

    def rigged(name: str, g: Ground, w: World, d: ReplayedDay, number: int, seed: int, s: Setting):  # type: ignore[no-untyped-def]
        found = real("no-update", g, w, d, number, seed, s)
        liked = {0: "static-0.3", 1: "static-0.8"}[seed]
        found.map = 1.0 if name == liked else 0.0
        return found

    monkeypatch.setattr(compare, "play", rigged)
    found = replay(ground, ("equal",), days=2, rounds=3, bands={"w": "walk"}, worlds=["shared"])
    assert found.conditions[0].fixed == {0: "static-0.8", 1: "static-0.3"}


# The verb -------------------------------------------------------------------------------------


def test_the_verb(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    trace = tmp_path / "drive"
    trace.write_text("\n".join(str(10 * k) for k in range(1, 20_000)))
    words = ["replay", "demo", *TDD, "--days", "2", "--rounds", "4", "--trace", str(trace)]
    assert main([*words, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert {(c["world"], c["band"]) for c in found["conditions"]} == {
        (w, b) for w in KINDS for b in ("constant", "walk", "drive")
    }
    assert found["schedule"] == "sequential"
    assert any("own law" in line for line in found["assumed"])
    assert main([*words[:6], "--rounds", "3"]) == 0
    text = capsys.readouterr().out
    assert text.startswith("demo: ")
    assert "assumed, not measured" in text
    assert "headroom" in text


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["nowhere"], "no table 'nowhere'"),
        (["demo", "demo"], "named twice"),
        (["demo", "coco-infrared"], "operating points in common"),
        (["link.period_s=30"], "name a shipped table"),
        (["demo", "data.root=x"], "only the link can change"),
        (["demo", "--play", "best"], "no policy 'best'"),
        (["demo", "--play", "oracle,best-static"], "has to know how every round ends"),
        (["demo", "--dwell", "9-6"], "the least first"),
        (["demo", "--dwell", "six"], "is not LEAST-MOST"),
        (["demo", "--trace", "/nowhere/t"], "cannot read trace"),
        (["demo", "--periods", "3"], "needs link.schedule=sequential"),
    ],
)
def test_bad_input_is_one_line(
    words: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["replay", *words, "--days", "2", "--rounds", "3"]) == 2
    said = capsys.readouterr().err.strip().splitlines()
    assert message in said[-1]


def test_a_table_of_another_version(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for file in (SHIPPED_TABLES / "demo" / "v1").iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    held = (tmp_path / "table.yaml").read_text()
    (tmp_path / "table.yaml").write_text(held.replace("table-v1", "table-v9"))
    assert main(["replay", str(tmp_path), "--days", "2"]) == 2
    assert "is not a table of version v1" in capsys.readouterr().err
