"""The Python API as a notebook uses it."""

from __future__ import annotations

import csv
import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import endedge.lab
from endedge.allocator import Link, Surface, allocate, fit
from endedge.allocator.display import data_frame
from endedge.data.errors import BadInput
from endedge.lab.cli.main import main
from endedge.lab.config import load_config
from endedge.lab.report import captions
from endedge.lab.report import page_figures as figures


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
    alone = str(results_folder / "curves.json")  # no folder, so no link but the one that is given
    command = ["allocate", alone, "--bandwidth", "200kHz", "--period", "30"]
    assert main([*command, "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert {key: said[key] for key in found.record()} == found.record()
    assert main(command) == 0
    head, _, rest = capsys.readouterr().out.rstrip("\n").partition("\n")
    assert rest == str(found)
    assert "every 30 s" in head
    assert "defaults, changed: period_s" in head
    assert found.frame().to_dict("records") == [found.record()]


def test_allocate_takes_link_rules_and_limits_of_the_folder(
    results_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = shutil.copytree(results_folder, tmp_path / "copy")
    config = load_config(folder / "config.yaml")
    link = config.link.model_copy(
        update={"period_s": 20.0, "schedule": "sequential", "edge_s": 5.0, "captured_frames": 64}
    )
    (folder / "config.yaml").write_text(config.model_copy(update={"link": link}).to_yaml())

    def said(*more: str) -> dict[str, Any]:
        command = ["allocate", str(folder), "--bandwidth", "300kHz", "--json", *more]
        assert main(command) == 0
        return dict(json.loads(capsys.readouterr().out))

    found = said()
    results = endedge.lab.load(folder)
    assert results.allocate(3e5).record() == {k: found[k] for k in results.allocate(3e5).record()}
    assert found["rules"]["schedule"] == "sequential"
    assert found["rules"]["edge_s"] == 5.0
    assert found["link"]["period_s"] == 20.0
    # The device has 64 frames in a period: no more are planned for, whatever the curves say.
    most = results.surface.upload_bytes[results.surface.frames == 64].max()
    assert 0 < found["upload_bytes"] <= most
    assert said("--period", "40 s", "--edge-s", "0")["link"]["period_s"] == 40.0
    assert main(["allocate", str(folder), "--bandwidth", "1kHz", "--period", "-1"]) == 2
    assert "period_s" in capsys.readouterr().err


def test_what_is_judged_is_what_is_drawn_and_the_oracle_is_on_top(
    results_folder: Path, tmp_path: Path
) -> None:
    folder = shutil.copytree(results_folder, tmp_path / "copy")
    config = load_config(folder / "config.yaml")
    link = config.link.model_copy(update={"schedule": "sequential", "edge_s": 20.0})
    (folder / "config.yaml").write_text(config.model_copy(update={"link": link}).to_yaml())
    assert main(["bench", str(folder)]) == 0
    results = endedge.lab.load(folder)
    bench = results.benchmark
    assert bench.over_the_period
    assert not np.allclose(bench.map, bench.judged)
    means = 100 * bench.judged.mean(axis=2)
    top = means[bench.of("oracle")]
    assert (means[bench.drawn] <= top + 1e-9).all()
    drawn = {t["name"]: t["y"] for t in figures.policies(results)["data"] if "name" in t}
    assert set(drawn) == {bench.policies[k] for k in bench.drawn}
    assert "static-other-seeds" not in drawn
    for name, y in drawn.items():
        assert y == pytest.approx(list(means[bench.of(name)]), rel=1e-5)
        assert (np.array(y) <= np.array(drawn["oracle"]) + 1e-4).all()
    assert "over the period" in figures.policies(results)["layout"]["yaxis"]["title"]["text"]
    # One decision: bytes, prediction and measurement are the fitted allocator's, as executed.
    found = captions.headline(results)
    assert found is not None
    at = list(bench.bandwidth_hz).index(found.bandwidth_hz)
    row = bench.of("fitted")
    assert found.upload_bytes == bench.upload_bytes[row, at].mean()
    assert float(found.fitted.mean) == pytest.approx(bench.judged[row, at].mean())
    returns = {t["name"]: t["y"] for t in figures.returns(results)["data"]}
    assert returns["predicted"][at] == pytest.approx(100 * found.predicted, rel=1e-5)
    assert returns["measured"][at] == pytest.approx(100 * float(found.fitted.mean), rel=1e-5)


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
