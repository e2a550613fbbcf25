"""Decisions carried out as they were made: rounded down, trained, packed, never over the link."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from endedge.allocator import Points, Split
from endedge.lab.benchmark.exact import Ladder, rungs
from endedge.lab.cli.main import main


@pytest.mark.parametrize(
    ("measured", "step", "found"),
    [
        ([2, 10], 2.0, [2, 4, 8, 10]),  # the largest measured one is there, too
        ([8, 12], 1.1, [8, 9, 10, 11, 12]),  # 8, 8.8, 9.68, 10.6, 11.7: whole, each once
        ([100, 350, 800], 2.0, [100, 200, 350, 400, 800]),
        ([5], 1.5, [5]),
    ],
)
def test_rungs_by_hand(measured: list[int], step: float, found: list[int]) -> None:
    assert rungs(measured, step) == found


def ladder() -> Ladder:
    """Two codecs, 100 and 40 bytes a frame; the cheaper one is better up to 1,000 bytes."""
    rows = [
        (codec, n, n * size, budget)
        for codec, size in (("fine", 100.0), ("coarse", 40.0))
        for n in (5.0, 10.0, 20.0, 40.0)
        for budget in (1e3, 2e3)
    ]
    codec, n, up, down = (np.array(column) for column in zip(*rows, strict=True))
    blank = np.full(len(rows), np.nan)
    points = Points(n, codec, up, down, down, blank, blank, codec, blank, blank, blank, codec)
    return Ladder(points, ((200.0, "coarse"), (1000.0, "fine")))


@pytest.mark.parametrize(
    ("asked", "found"),
    [
        ((199.0, 5e3), None),  # not even 5 coarse frames
        ((5e3, 999.0), None),  # no package
        ((200.0, 1e3), ("coarse", 5, 1e3)),
        ((999.0, 1999.0), ("coarse", 20, 1e3)),  # 800 bytes; rounded down both ways
        ((1000.0, 2e3), ("fine", 10, 2e3)),
        ((1600.0, 1500.0), ("fine", 10, 1e3)),  # from 1,000 bytes on the fine codec is better
        ((1600.0, 2000.0), ("coarse", 40, 2e3)),  # … unless exactly that point was meant
        ((1e9, 1e9), ("fine", 40, 2e3)),
    ],
)
def test_rounding_down(asked: tuple[float, float], found: tuple[str, int, float] | None) -> None:
    steps = ladder()
    row = steps.round_down(Split(*asked))
    if row is None:
        assert found is None
        return
    point = steps.points.point(row)
    assert (point.codec, point.frames, point.budget_bytes) == found


def test_a_named_codec_or_student_is_honoured() -> None:
    steps = ladder()  # whose students are called as its codecs
    coarse = steps.round_down(Split(1e9, 1e9, "coarse"))
    assert coarse is not None
    assert steps.points.point(coarse).codec == "coarse"
    assert steps.round_down(Split(1e9, 1e9, "", "coarse")) == coarse
    assert steps.round_down(Split(1e9, 1e9, "fine", "coarse")) is None
    assert steps.round_down(Split(1600.0, 2000.0, "fine")) != steps.round_down(
        Split(1600.0, 2000.0)
    )


@given(upload=st.floats(0, 1e4), update=st.floats(0, 1e4))
@settings(max_examples=200, deadline=None)
def test_never_more_than_was_asked_for(upload: float, update: float) -> None:
    steps = ladder()
    row = steps.round_down(Split(upload, update))
    if row is not None:
        point = steps.points.point(row)
        assert point.upload_bytes <= upload * (1 + 1e-8)
        assert point.update_bytes <= update * (1 + 1e-8)


def read(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_decisions_are_trained_packed_and_kept(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = place / "out"
    few = ["link.bandwidths=3", "benchmark.studies=false", "benchmark.step=2"]
    assert main(["measure", str(place / "c.yaml"), "--out", str(out), *few]) == 0
    assert main(["fit", str(out)]) == 0
    grid = read(out / "surface.csv")
    assert main(["bench", str(out), "--exact"]) == 0
    assert "rounds beyond the grid" in capsys.readouterr().err
    executed = read(out / "executed.csv")
    key = ("seed", "frames", "codec", "budget_bytes")
    cells = {tuple(row[k] for k in key): row for row in (*grid, *executed)}
    assert len(cells) == len(grid) + len(executed)  # nothing that was measured ran again
    rows = read(out / "benchmark.csv")
    best = {r["bandwidth_hz"]: float(r["map"]) for r in rows if r["policy"] == "oracle"}
    for row in rows:
        asked = float(row["asked_upload_bytes"]), float(row["asked_update_bytes"])
        used = float(row["upload_bytes"]), float(row["update_bytes"])
        assert 8 * (used[0] / 2.55 + used[1] / 5) / 60 <= float(row["bandwidth_hz"]) * (1 + 1e-9)
        assert float(row["map"]) <= best[row["bandwidth_hz"]] + 1e-12  # one seed
        if row["frames"] == "0":
            continue
        cell = cells[tuple(row[k] for k in key)]
        assert (cell["upload_bytes"], cell["map"]) == (str(int(used[0])), row["map"])
        assert all(u <= a * (1 + 1e-9) for u, a in zip(used, asked, strict=True))

    # Again: the same figures, and nothing is made anew.
    before = {p: p.stat().st_mtime_ns for p in (out / "nodes").glob("*/record.json")}
    text = (out / "benchmark.csv").read_text()
    assert main(["bench", str(out), "--exact"]) == 0
    assert {p: p.stat().st_mtime_ns for p in (out / "nodes").glob("*/record.json")} == before
    assert (out / "benchmark.csv").read_text() == text
    assert main(["bench", str(out)]) == 0
    assert not (out / "executed.csv").exists()  # it would belong to another benchmark
