"""Tables: scored in a second, without PyTorch; honest about what there is to win."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from endedge.allocator import Budget, Joint, Kind, Points, Surface, fit, registry
from endedge.allocator.csv_files import rows_csv
from endedge.allocator.fitting.synthetic import sample_surface
from endedge.data.errors import BadInput
from endedge.lab.benchmark.benchmark import BenchmarkRow, BenchmarkSetup, outcomes
from endedge.lab.benchmark.headroom import Contrast
from endedge.lab.benchmark.outcomes import Benchmark
from endedge.lab.benchmark.score import Score, score
from endedge.lab.benchmark.table import SHIPPED_TABLES, VERSION, Table, shipped_tables
from endedge.lab.benchmark.telling import as_markdown, as_record, as_text
from endedge.lab.config import LinkConfig
from endedge.lab.report.results import Results
from endedge.lab.sweep.replicates import Replicates

TRUTH = Joint(Kind("share", "power", "hill"), 0.11, 0.08, 0.13, 3e5, 0.9, 1e5, 2.5)


def made(surface: Surface, replicates: Replicates | None = None) -> Table:
    curves = {
        s: fit(surface.select(surface.seed != s), kinds=[TRUTH.kind], replicates=10)
        for s in (0, 1, 2)
    }
    return Table("made-up", surface, LinkConfig(bandwidths=5), 0, curves, replicates, {})


def numbered(surface: Surface) -> Surface:
    return replace(surface, cell=np.array([f"c{i}" for i in range(len(surface))]))


@pytest.fixture(scope="module")
def found() -> Score:
    surface = numbered(sample_surface(TRUTH, np.random.default_rng(0)))
    rng = np.random.default_rng(1)
    noise = rng.normal(0, 0.01, 50)  # that all cells share, as evaluation frames make them
    draws = surface.map[:, None] + noise + rng.normal(0, 0.002, (len(surface), 50))
    whole = np.round(1e4 * np.clip(draws, 0, 1)).astype(np.uint16)
    m0 = np.round(1e4 * np.clip(TRUTH.m0 + noise, 0, 1)).astype(np.uint16)
    return score(made(surface, Replicates(surface.cell, whole, m0, 460)))


def test_the_oracle_is_on_top_of_everybody_everywhere(found: Score) -> None:
    top = found.worth[found.policies.index("oracle")]
    assert set(found.policies) >= {*registry(), "oracle-other-seeds", "static-other-seeds"}
    assert (found.worth <= top[None] + 1e-12).all()  # at each bandwidth and with each seed
    assert found.regret("oracle") == (0.0, 0.0)
    assert found.headroom().mean >= found.honest_headroom().mean


def test_frames_that_all_cells_share_cancel_in_a_difference(found: Score) -> None:
    gap = found.contrast("fitted", "no-update")
    assert found.draws is not None
    alone = found.draws[found.policies.index("fitted")].mean(axis=(0, 1)).std(ddof=1)
    assert 0 < gap.frame_error < 0.5 * alone
    assert gap.error == pytest.approx(np.hypot(gap.seed_error, gap.frame_error))


def test_what_is_told(found: Score) -> None:
    text = as_text(found, ["equal"], every=True)
    assert text.startswith("made-up: ")
    assert "no replicates" not in text
    assert "coarse: package sizes are up to 108% apart" in text  # 1.2e5 to 2.5e5
    record = json.loads(json.dumps(as_record(found), allow_nan=False))
    assert set(record["policies"]) == set(found.policies)
    assert record["policies"]["equal"]["over_equal"]["mean"] == 0.0
    assert len(record["bandwidths"]) == 5
    assert as_markdown(found, ["equal"]).splitlines()[2].startswith("| made-up | equal | ")


def test_a_contrast_claims_only_beyond_its_errors() -> None:
    assert Contrast.of(np.array([0.02, 0.021, 0.022])).claims
    assert not Contrast.of(np.array([0.02, 0.03])).claims  # two seeds hardly know their error
    assert Contrast.of(np.array([0.02, 0.03])).standing == "2 seeds are too few to claim it"
    assert not Contrast.of(np.array([0.02])).claims
    assert Contrast.of(np.array([0.02])).verdict == "open"
    assert Contrast.of(np.zeros(3)).verdict == "same"
    assert Contrast.of(np.array([-0.02, -0.021, -0.022])).verdict == "worse"
    # The seeds agree, the evaluation frames do not: 0.02 over draws that spread by 0.02.
    draws = 0.02 + 0.02 * np.random.default_rng(0).standard_normal((3, 200)).mean(0, keepdims=True)
    wide = Contrast.of(np.array([0.02, 0.021, 0.022]), np.repeat(draws, 3, axis=0))
    assert wide.frame_error == pytest.approx(0.02 / np.sqrt(3), rel=0.2)
    assert not wide.claims


def test_ragged_tables_say_what_they_lack() -> None:
    surface = numbered(sample_surface(TRUTH, np.random.default_rng(0)))
    there = ~((surface.frames == 1024) & (surface.budget_bytes == 1e6) & (surface.seed == 1))
    ragged = made(surface.select(there))
    assert any(said.startswith("ragged: 1 of 126 cells") for said in ragged.lacks())
    assert score(ragged, ["equal"]).worth.shape == (4, 5, 3)


@pytest.mark.parametrize("name", shipped_tables())
def test_shipped_tables_are_small_and_say_where_they_come_from(name: str) -> None:
    folder = SHIPPED_TABLES / name / VERSION
    assert sum(f.stat().st_size for f in folder.iterdir()) <= 300_000
    assert {f.suffix for f in folder.iterdir()} <= {".csv", ".yaml", ".json", ".npz"}
    table = Table.load(name)
    assert {"licence", "evaluated_on", "provenance"} <= set(table.about)
    for seed in table.seeds:  # the curves did not see the seed that they decide about
        rest = table.surface.select(table.surface.seed != seed)
        assert table.curves_for(seed).provenance["surface_sha256"] == rest.sha256()


def test_round_trip_and_other_links(tmp_path: Path) -> None:
    table = Table.load("demo")
    again = Table.load("demo", ["link.period_s=30"])
    assert again.link.period_s == 30
    with pytest.raises(BadInput, match="only the link can change"):
        Table.load("demo", ["seeds=[0]"])
    with pytest.raises(BadInput, match=r"link\.period_s"):
        Table.load("demo", ["link.period_s=-1"])
    with pytest.raises(BadInput, match="coco-infrared, demo"):
        Table.load("absent")
    written = table.write(tmp_path)
    assert written == tmp_path / "demo" / "v1"
    assert Table.load(written).surface.sha256() == table.surface.sha256()


def test_replicates_are_kept_as_small_integers(tmp_path: Path) -> None:
    held = Replicates(
        np.array(["a", "b"]), np.array([[1000, 1001], [2000, 2002]]), np.array([900, 910]), 7
    )
    held.write(tmp_path / "r.npz")
    again = Replicates.read(tmp_path / "r.npz")
    assert again.map.tolist() == held.map.tolist()
    assert again.optimistic
    rows = [
        {"cell": name, "seed": 0, "frames": 8, "codec": "c", "upload_bytes": 1, "budget_bytes": 1}
        | {"update_bytes": 1, "map": 0.1, "m0": 0.09, "sent": sent}
        for name, sent in (("b", 1), ("a", 0))
    ]
    # What was not sent is the old model's, draw by draw.
    np.testing.assert_allclose(
        again.of(Surface.from_rows(rows)), [[0.2, 0.2002], [0.09, 0.091]], rtol=1e-12
    )
    (tmp_path / "r.npz").write_bytes(b"PK")
    with pytest.raises(BadInput, match="no replicates file"):
        Replicates.read(tmp_path / "r.npz")


def test_no_pytorch_is_needed_to_score_a_policy(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(
        "from endedge.allocator import register\n\n"
        "@register('quarter-up')\ndef mine(known):\n    return known.budget.with_share(0.25)\n"
    )
    code = (
        "import sys\nfrom endedge.lab.cli.main import main\nstatus = main()\n"
        "print([n for n in ('torch', 'ultralytics', 'matplotlib') if n in sys.modules])\n"
    )
    command = [sys.executable, "-c", code, "bench", "demo", "--policy", str(tmp_path / "mine.py")]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "quarter-up" in done.stdout
    assert done.stdout.splitlines()[-1] == "[]"


def test_the_lines_of_the_page_run(tmp_path: Path) -> None:
    """docs/benchmark.md: a policy, and ten lines that score it, without PyTorch."""
    page = (Path(__file__).parents[3] / "docs/benchmark.md").read_text(encoding="utf-8")
    mine, scoring = re.findall(r"```python\n(.*?)```", page, re.S)[:2]
    (tmp_path / "mine.py").write_text(mine, encoding="utf-8")
    assert len(scoring.strip().splitlines()) <= 10
    more = "\nimport sys\nassert 'torch' not in sys.modules\n"
    ran = subprocess.run(
        [sys.executable, "-c", scoring + more], cwd=tmp_path, capture_output=True, text=True
    )
    assert ran.returncode == 0, ran.stderr
    assert re.search(r"\d\.\d\d ± \d\.\d\d", ran.stdout)


def test_a_folder_is_benchmarked_without_pytorch(tmp_path: Path) -> None:
    """`bench DIR --policy mine.py` writes its files and never imports it."""
    surface = sample_surface(TRUTH, np.random.default_rng(0), seeds=2, frames=(16, 64, 256, 512))
    surface.write(tmp_path / "surface.csv")
    fit(surface, kinds=[TRUTH.kind], replicates=5).save(tmp_path / "curves.json")
    (tmp_path / "config.yaml").write_text(
        "name: t\nseeds: [0, 1]\ndata: {root: .}\nweights: {teacher: a.pt, student: b.pt}\n"
        "uplink: {frames: [16, 64, 256, 512]}\nteacher: {}\nstudent: {}\n"
        "downlink: {budgets_bytes: [30000, 60000]}\nbenchmark: {studies: false}\n"
        "link: {bandwidths: 3}\n"
    )
    (tmp_path / "mine.py").write_text(
        "from endedge.allocator import Split, register\n"
        "@register('mine')\ndef mine(known): return known.budget.with_share(0.3)\n"
    )
    script = (
        "import sys; from endedge.lab.cli.main import main; "
        f"code = main(['bench', {str(tmp_path)!r}, '--policy', {str(tmp_path / 'mine.py')!r}, "
        "'link.period_s=30']); assert 'torch' not in sys.modules; sys.exit(code)"
    )
    ran = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
    assert "\nmine " in ran.stdout
    assert ",mine," in (tmp_path / "benchmark.csv").read_text()
    assert "period_s: 30" in (tmp_path / "config.yaml").read_text()


@pytest.mark.parametrize("change", [{}, {"schedule": "sequential", "edge_s": 10.0}])
def test_a_folder_knows_what_the_evaluation_frames_do_to_its_headroom(
    found: Score, tmp_path: Path, change: dict[str, Any]
) -> None:
    """By another path: a cell's draws, averaged over the period by the budget's own shares, which
    a benchmark's file does not hold and has to be taken apart for."""
    table = replace(found.table, link=LinkConfig(bandwidths=5, **change))
    assert table.replicates is not None
    results, cells = Results.of(table), table.cells
    sweep = results.benchmark.bandwidth_hz
    setup = BenchmarkSetup(results.curves, table.link, table.rules, tuple(sweep), Points.of(cells))
    rows = outcomes(setup, cells, setup.decisions())
    (tmp_path / "benchmark.csv").write_text(rows_csv(BenchmarkRow, rows))
    alone = Benchmark.read(tmp_path / "benchmark.csv")
    assert np.isnan(alone.to_win().frame_error)
    table.surface.write(tmp_path / "surface.csv")
    table.replicates.write(tmp_path / "replicates.npz")
    beside = Benchmark.read(tmp_path / "benchmark.csv")

    replicates = table.replicates

    def drawn(row: BenchmarkRow) -> Any:
        budget = Budget.of(table.link.at(row.bandwidth_hz), table.rules, results.curves)
        m0 = 1e-4 * replicates.m0
        if row.frames == 0:
            return m0
        keys = zip(cells.seed, cells.frames, cells.codec, cells.budget_bytes, strict=True)
        at = list(keys).index((row.seed, row.frames, row.codec, row.budget_bytes))
        after = 1e-4 * replicates.map[list(replicates.cell).index(cells.cell[at])]
        used = budget.fresh_up * row.upload_bytes + budget.fresh_down * row.update_bytes
        return m0 + (after - m0) * (budget.fresh - used)

    gaps = []
    for hz in sweep:
        best, fixed = (
            np.array([drawn(r) for r in rows if (r.policy, r.bandwidth_hz) == (name, hz)])
            for name in ("oracle", "static-other-seeds")
        )
        gaps.append(best - fixed)
    for bench in (results.benchmark, beside):
        for k, gap in enumerate(gaps):
            wanted = gap.mean(axis=0).std(ddof=1)
            assert bench.to_win(k).frame_error == pytest.approx(wanted, rel=1e-6, abs=1e-9)
            assert bench.to_win(k).mean == pytest.approx(alone.to_win(k).mean)
        over = np.mean(gaps, axis=0).mean(axis=0).std(ddof=1)
        assert bench.to_win().frame_error == pytest.approx(over, rel=1e-6)
        assert bench.to_win().error > alone.to_win().error > 0
