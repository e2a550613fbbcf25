"""The Python API as a notebook uses it."""

from __future__ import annotations

import csv
import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import endedge.lab
from endedge.allocator import Link, Surface, allocate, fit
from endedge.allocator.display import data_frame
from endedge.data.errors import BadInput
from endedge.lab.cli.main import main


def test_ten_lines_measure_fit_allocate_and_compare(place: Path) -> None:
    surface = endedge.lab.measure(
        place / "c.yaml", {"uplink.frames": [4, 8, 12]}, out=place / "out"
    )
    table = surface.frame()
    assert list(table["frames"]) == [4, 4, 8, 8, 12, 12]
    assert table["map"].between(0, 1).all()
    curves = fit(surface, replicates=4)
    assert curves.allocate(bandwidth_hz=1e6, period_s=60).record()["m0"] == pytest.approx(
        table["m0"][0]
    )
    compared = endedge.lab.bench(surface, curves, bandwidths_hz=[1e4, 1e6]).frame()
    assert set(compared["bandwidth_hz"]) == {1e4, 1e6}
    assert {"fitted", "oracle", "equal"} <= set(compared["policy"])


def test_the_same_as_the_command_line(
    results_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    results = endedge.lab.load(results_folder)
    found = results.curves.allocate(bandwidth_hz=2e5, period_s=30)
    assert found.record() == allocate(results.curves, Link(2e5, 30)).record()
    command = ["allocate", str(results_folder), "--bandwidth", "200kHz", "--period", "30"]
    assert main([*command, "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == found.record()
    assert main(command) == 0
    assert capsys.readouterr().out.rstrip("\n") == str(found)
    assert found.frame().to_dict("records") == [found.record()]


def test_tables_hold_what_the_files_hold(results_folder: Path) -> None:
    results = endedge.lab.load(results_folder)
    for name, table in (
        ("surface.csv", results.surface.frame()),
        ("benchmark.csv", results.benchmark.frame()),
        ("allocation.csv", results.allocations()),
    ):
        with (results_folder / name).open(newline="") as file:
            rows = list(csv.DictReader(file))
        assert len(table) == len(rows)
        wanted = "predicted_map" if name == "allocation.csv" else "map"
        assert sorted(table[wanted]) == pytest.approx(sorted(float(row[wanted]) for row in rows))
    assert len(results.curves.frame()) == len(results.curves.candidates)


def test_objects_print_and_draw_themselves(results_folder: Path) -> None:
    results = endedge.lab.load(results_folder)
    answer = results.curves.allocate(bandwidth_hz=1e5, period_s=60)
    for shown in (results, results.surface, results.curves, results.benchmark, answer):
        assert len(repr(shown)) < 1500  # not every array of it
        assert "<" in shown._repr_html_()
    assert str(results.curves.joint.kind) in repr(results.curves)
    for figure in (
        results.surface.plot(),
        results.curves.plot(results.surface),
        results.plot("share"),
    ):
        assert figure._repr_png_().startswith(b"\x89PNG")  # type: ignore[attr-defined]
    labels = results.curves.plot(results.surface).axes[0].get_legend_handles_labels()[1]
    assert "measured" in labels
    assert "measured" not in results.curves.plot().axes[0].get_legend_handles_labels()[1]


def test_html_is_escaped(results_folder: Path) -> None:
    surface = endedge.lab.load(results_folder).surface
    evil = Surface.from_rows(
        [{**row, "codec": "<b>"} for row in surface.frame().to_dict("records")]
    )
    assert "<b>" not in str(fit(evil, replicates=2).allocate(1e6, 60)._repr_html_())


def test_what_is_missing_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(BadInput, match="not a results folder"):
        endedge.lab.load(tmp_path)
    with pytest.raises(AttributeError, match="no attribute 'mesure'"):
        endedge.lab.mesure  # noqa: B018
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(BadInput, match=r"pip install 'endedge\[notebook\]'"):
        data_frame({"a": np.zeros(2)})


def test_the_allocator_needs_neither_pandas_nor_matplotlib() -> None:
    code = (
        "import sys, endedge.allocator, endedge.lab; "
        "print([n for n in ('pandas', 'matplotlib', 'torch') if n in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a_policy_from_a_file_is_benchmarked(results_folder: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(results_folder, tmp_path / "copy")
    (tmp_path / "mine.py").write_text(
        "from endedge.allocator import register\n\n"
        "@register('quarter-up')\ndef mine(known):\n    return known.budget.with_share(0.25)\n"
    )
    # In its own process: a registered policy stays registered.
    code = "from endedge.lab.cli.main import main; raise SystemExit(main())"
    command = [sys.executable, "-c", code, "bench", str(folder), "--policy"]
    done = subprocess.run(
        [*command, str(tmp_path / "mine.py")], check=True, capture_output=True, text=True
    )
    assert "quarter-up" in done.stdout
    assert "quarter-up" in endedge.lab.load(folder).benchmark.policies
