from __future__ import annotations

import csv
import json
import re
from collections import defaultdict
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.stats

from endedge.allocator.csv_files import rows_csv
from endedge.data.errors import BadInput
from endedge.lab.benchmark.outcomes import spread
from endedge.lab.benchmark.robustness import Trial
from endedge.lab.cli.main import main
from endedge.lab.config import load_config
from endedge.lab.latency_table import Row, add_rows, read_latencies
from endedge.lab.report import captions, wording
from endedge.lab.report.page import write_report
from endedge.lab.report.results import Results
from tests.lab.report.folders import copied, results_of, written

ASSETS = Path(__file__).parents[3] / "lab" / "report" / "assets"


def _edit(path: Path, change: Callable[[dict[str, str]], None]) -> None:
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    for row in rows:
        change(row)
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


class _Parts(HTMLParser):
    """Elements, their attributes and the text of the page, as a browser reads it."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.texts: dict[str, list[str]] = defaultdict(list)
        self._open = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs
        self._open = tag
        self.texts[tag].append("")

    def handle_data(self, data: str) -> None:
        if self._open:
            self.texts[self._open][-1] += data


def _contents(page: str) -> dict[str, Any]:
    found = re.search(r'<script type="application/json" id="contents">(.*?)</script>', page, re.S)
    assert found is not None
    return dict(json.loads(found[1]))


def test_the_headline_says_what_the_files_say(results_folder: Path) -> None:
    with (results_folder / "benchmark.csv").open() as file:
        rows = list(csv.DictReader(file))
    values: dict[tuple[float, str], list[float]] = defaultdict(list)
    for row in rows:
        values[float(row["bandwidth_hz"]), row["policy"]].append(float(row["map"]))
    sending = sorted({float(r["bandwidth_hz"]) for r in rows if float(r["upload_bytes"]) > 0})
    gains = {hz: np.subtract(values[hz, "fitted"], values[hz, "equal"]) for hz in sending}
    sure = [hz for hz, g in gains.items() if abs(g.mean()) > 5e-5 + 2.92 * scipy.stats.sem(g)]
    middle = max(sure, key=lambda hz: abs(gains[hz].mean())) if sure else sending[len(sending) // 2]
    fitted, equal = np.array(values[middle, "fitted"]), np.array(values[middle, "equal"])
    found = captions.headline(results_of(results_folder))
    assert found is not None
    assert found.bandwidth_hz == pytest.approx(middle)
    assert float(found.fitted.mean) == pytest.approx(fitted.mean())
    assert float(found.gain.mean) == pytest.approx((fitted - equal).mean())
    half = scipy.stats.t.ppf(0.95, 2) * scipy.stats.sem(fitted)
    assert float(found.fitted.high) == pytest.approx(fitted.mean() + half)
    title = _Parts(written(results_folder)).texts["h1"][0]
    for said in (wording.quantity(middle, "Hz"), wording.percent(fitted.mean()), found.verdict):
        assert said in title


@pytest.mark.parametrize(
    ("difference", "words"),
    [
        ((0.02, 0.021, 0.022), "2.1\u00a0points better than the equal split"),
        ((-0.02, -0.021, -0.022), "2.1\u00a0points worse than the equal split"),
        ((0.05, -0.04, 0.02), "1.0\u00a0points better than the equal split (within seed noise)"),
        ((0.02, 0.03), "2.5\u00a0points better than the equal split (in both seeds)"),
        ((0.02, -0.01), "0.5\u00a0points better than the equal split (within seed noise)"),
        ((1e-5, -1e-5, 0.0), "the same as the equal split"),
        ((0.01,), "1.0\u00a0points better than the equal split (one seed)"),
    ],
)
def test_the_comparison_claims_no_more_than_the_seeds_allow(
    difference: tuple[float, ...], words: str
) -> None:
    assert captions._compared(spread(difference), "the equal split") == words


@pytest.mark.parametrize(
    ("shift", "verdict", "place"),
    [(-0.05, "worse than the equal split", "behind"), (0.05, "better than the equal", "ahead of")],
)
def test_results_change_the_words(
    results_folder: Path, tmp_path: Path, shift: float, verdict: str, place: str
) -> None:
    folder = copied(results_folder, tmp_path)

    def change(row: dict[str, str]) -> None:
        if row["policy"] == "fitted":
            row["average_map"] = str(float(row["average_map"]) + shift)
            row["regret"] = str(float(row["regret"]) - shift)

    _edit(folder / "benchmark.csv", change)
    texts = _Parts(written(folder)).texts
    assert verdict in texts["h1"][0]
    gap = 100 * abs(
        results_of(folder).benchmark.regret[results_of(folder).benchmark.of("fitted")].mean()
    )
    title = f"On average the fitted allocator is {gap:.2f}\u00a0points {place} the oracle"
    assert any(said.startswith(title) for said in texts["h3"])


def test_nothing_that_fits_is_said(results_folder: Path, tmp_path: Path) -> None:
    folder = copied(results_folder, tmp_path)
    _edit(folder / "benchmark.csv", lambda r: r.update(upload_bytes="0", update_bytes="0"))
    nothing = dict.fromkeys(("uplink_hz", "downlink_hz", "upload_bytes", "update_bytes"), "0")
    _edit(folder / "allocation.csv", lambda r: r.update(nothing, regime="none"))
    page = _Parts(written(folder))
    assert "No measured round fits the link" in page.texts["h1"][0]
    assert "Nothing is sent at any bandwidth of the sweep\n" in page.texts["h3"]


def test_studies_are_shown_where_there_are_some(results_folder: Path, tmp_path: Path) -> None:
    assert "Curves that are wrong" not in written(results_folder)
    folder = copied(results_folder, tmp_path)
    for name, study, arm in (
        ("heldout.csv", "points", "even → odd"),
        ("errors.csv", "error", "20%"),
        ("scenarios.csv", "period_s", "<30>"),
    ):
        rows = [
            Trial(
                1e4, policy, seed, 1.0, 1.0, 16, "c", 9, 1.0, 1.0, 0.4, 0.4, 0.0123, study, arm, 0
            )
            for policy in ("oracle", "fitted", "equal")
            for seed in (0, 1)
        ]
        (folder / name).write_text(rows_csv(Trial, rows), encoding="utf-8")
    page = written(folder)
    for title in ("Curves that never saw", "Curves that are wrong", "Other links"):
        assert page.count(f"<h3>{title}") == 1
    assert page.count("<td>1.23</td>") == 2 * 3  # regrets of fitted and equal, in points
    assert page.count("<td>40.00</td>") >= 3
    assert "&lt;30&gt;" in page
    (folder / "errors.csv").write_text("study\n1\n")
    with pytest.raises(BadInput, match=r"errors\.csv is damaged"):
        results_of(folder)


def test_every_figure_has_a_place_units_and_a_takeaway(results_folder: Path) -> None:
    page = written(results_folder)
    figures = _contents(page)["figures"]
    parts = _Parts(page)
    places = {value for name, value in parts.attributes if name == "id"}
    assert set(figures) < places
    assert {"surface", "contour", "data-curve", "model-curve", "policies", "regret"} < set(figures)
    assert sum(name.startswith("policy-") for name in figures) == len(
        set(results_of(results_folder).benchmark.policies)
        - {"oracle", "no-update", "static-other-seeds"}
    )
    for name, figure in figures.items():
        if name.startswith("policy-") or name == "surface":
            continue
        titles = [figure["layout"][axis]["title"]["text"] for axis in ("xaxis", "yaxis")]
        assert re.search(r"\((bytes|Hz)\)|bandwidth", titles[0]), name
        assert re.search(r"\((%|bytes)\)", titles[1]) or name == "regret"
    plain = (
        "How to reproduce",
        "Regret over the whole sweep",
        "Every policy against the oracle",
        "Who wins where",
    )
    takeaways = [title for title in parts.texts["h3"] if not title.startswith(plain)]
    assert len(takeaways) == 11
    assert all(re.search(r"\d", title) for title in takeaways)


def test_measured_points_are_drawn_where_they_were_measured(results_folder: Path) -> None:
    results = results_of(results_folder)
    figures = _contents(written(results_folder))["figures"]
    points = results.surface.points()
    drawn = next(t for t in figures["surface"]["data"] if t["type"] == "scatter3d")
    np.testing.assert_allclose(drawn["x"], points.upload_bytes, rtol=1e-5)
    np.testing.assert_allclose(drawn["y"], points.update_bytes, rtol=1e-5)
    np.testing.assert_allclose(drawn["z"], 100 * points.map, rtol=1e-5)
    fit = next(t for t in figures["surface"]["data"] if t["type"] == "surface")
    i, j = 7, 23  # one row of z is one package size
    expected = 100 * results.curves.predict(fit["x"][i], fit["y"][j])
    assert fit["z"][j][i] == pytest.approx(float(expected), rel=1e-4)
    oracle = next(t for t in figures["policies"]["data"] if t.get("name") == "oracle")
    mean = results.benchmark.map[results.benchmark.of("oracle")].mean(axis=1)
    np.testing.assert_allclose(oracle["y"], 100 * mean, rtol=1e-5)


def test_text_from_files_stays_text(results_folder: Path, tmp_path: Path) -> None:
    folder, evil = (
        copied(results_folder, tmp_path),
        '</script><img src=x onerror="alert(1)">{{css}}',
    )
    config = (folder / "config.yaml").read_text().replace("small.pt", f"'{evil}'")
    (folder / "config.yaml").write_text(config)

    def spoil(row: dict[str, str]) -> None:
        row["policy"] = evil if row["policy"] == "random" else row["policy"]

    _edit(folder / "benchmark.csv", spoil)
    _edit(folder / "allocation.csv", lambda row: row.update(regime=evil))
    honest, attacked = _Parts(written(results_folder)), _Parts(written(folder))
    assert attacked.tags.count("script") == honest.tags.count("script") == 4
    assert "img" not in attacked.tags
    assert "onerror" not in dict(attacked.attributes)
    assert any(evil in said for said in attacked.texts["h4"])
    names = [t.get("name", "") for t in _contents(written(folder))["figures"]["policies"]["data"]]
    assert any("&lt;img" in name for name in names)  # plotly reads markup in text
    assert not any("<" in name for name in names)


def test_the_page_fetches_nothing(results_folder: Path) -> None:
    page = written(results_folder)
    parts = _Parts(page)
    assert "link" not in parts.tags
    assert not [a for a in parts.attributes if a[0] in ("src", "srcset", "onclick", "style")]
    links = [str(value) for name, value in parts.attributes if name == "href"]
    places = {value for name, value in parts.attributes if name == "id"}
    assert {link[1:] for link in links if link.startswith("#")} <= places
    assert all(link.startswith(("#", "data:text/csv;base64,")) for link in links)
    policy = next(v for n, v in parts.attributes if n == "content" and v and "default-src" in v)
    assert policy.startswith("default-src 'none'; script-src 'sha256-")
    assert "unsafe-inline" not in policy.split(";")[1]


def test_broken_folders_are_named(results_folder: Path, tmp_path: Path) -> None:
    cases: dict[str, tuple[str, Callable[[Path], Any]]] = {
        "surface.csv": ("not found", lambda p: p.unlink()),
        "curves.json": ("not found", lambda p: p.unlink()),
        "allocation.csv": ("run 'endedge bench'", lambda p: p.unlink()),
        "benchmark.csv": ("no rows", lambda p: p.write_text("policy,map\n")),
    }
    for k, (name, (says, spoil)) in enumerate(cases.items()):
        folder = copied(results_folder, tmp_path / str(k))
        spoil(folder / name)
        with pytest.raises(BadInput, match=says):
            written(folder)
        assert not (folder / "report.html").exists()
    folder = copied(results_folder, tmp_path / "numbers")
    _edit(folder / "benchmark.csv", lambda row: row.update(regret="lots"))
    with pytest.raises(BadInput, match="line 2: regret = 'lots' is no number"):
        written(folder)
    folder = copied(results_folder, tmp_path / "hole")
    lines = (folder / "benchmark.csv").read_text().splitlines(keepends=True)
    (folder / "benchmark.csv").write_text("".join(lines[:-1]))
    with pytest.raises(BadInput, match="lacks the row"):
        written(folder)
    folder = copied(results_folder, tmp_path / "other")
    _edit(folder / "surface.csv", lambda row: row.update(map="0.5"))
    with pytest.raises(BadInput, match="another surface"):
        written(folder)


def test_costs_are_those_of_the_executed_rounds(results_folder: Path) -> None:
    results = results_of(results_folder)
    with (results_folder / "benchmark.csv").open() as file:
        rows = [r for r in csv.DictReader(file) if r["policy"] in ("fitted", "no-update")]
    for cost in results.costs:
        here = [r for r in rows if float(r["bandwidth_hz"]) == cost.bandwidth_hz]
        fitted = [r for r in here if r["policy"] == "fitted"]
        up, down = (
            np.mean([float(r[k]) for r in fitted]) for k in ("upload_bytes", "update_bytes")
        )
        gain = np.mean([float(r["map"]) for r in fitted]) - results.curves.m0
        assert (cost.upload_bytes, cost.update_bytes) == pytest.approx((up, down))
        assert float(cost.gain.mean) == pytest.approx(gain)
        assert cost.points_per_mb == pytest.approx(100 * gain / ((up + down) / 1e6))
        round_ = min(results.rounds, key=lambda r: abs(r.upload_bytes - up))
        assert cost.edge_s == pytest.approx(0.5 * round_.frames + 12)  # as the folder was made
    assert len(results.costs) > 1


def test_reports_of_one_and_two_seeds(results_folder: Path, tmp_path: Path) -> None:
    for seeds in (1, 2):
        folder = copied(results_folder, tmp_path / str(seeds))
        curves = json.loads((folder / "curves.json").read_text())
        curves["provenance"] = {}
        (folder / "curves.json").write_text(json.dumps(curves))
        for name in ("surface.csv", "benchmark.csv"):
            with (folder / name).open(newline="") as file:
                rows = [r for r in csv.DictReader(file) if int(r["seed"]) < seeds]
            with (folder / name).open("w", newline="") as file:
                writer = csv.DictWriter(file, list(rows[0]))
                writer.writeheader()
                writer.writerows(rows)
        page = written(folder)
        assert spread(np.zeros(seeds)).what in page
        assert "NaN" not in json.dumps(_contents(page))


def test_spread_is_students_t() -> None:
    values = np.random.default_rng(0).normal(size=(4, 5))
    seen = spread(values)
    low, high = scipy.stats.t.interval(0.9, 4, values.mean(1), scipy.stats.sem(values, axis=1))
    np.testing.assert_allclose(seen.low, low)
    np.testing.assert_allclose(seen.high, high)
    assert spread([1.0, 3.0]).low == 1.0
    assert np.isnan(spread([1.0]).low)


def test_engines_and_whose_labels(results_folder: Path, tmp_path: Path) -> None:
    folder = copied(results_folder, tmp_path)
    assert "the fastest engine" not in written(folder)
    timed = {"runs": 20, "map": 0.25, "map50": None, "frames": "9 frames", "machine": "a <board>"}
    rows = [
        Row("u.eeu", engine, 320, 1, s, s / 2, 2 * s, s / 4, **timed)  # type: ignore[arg-type]
        for engine, s in (("torch", 0.04), ("openvino", 0.01))
    ]
    add_rows(folder, rows)
    assert read_latencies(folder) == rows
    page = written(folder)
    assert "openvino is the fastest engine: 100.0 frames/s" in page
    assert "<td>25.0</td>" in page
    assert "a &lt;board&gt;" in page
    assert "not accuracy" not in page
    config = load_config(folder / "config.yaml", ["data.eval_labels=teacher"])
    results = Results.read(folder, config)
    assert "agreement with it, not accuracy" in write_report(results, folder / "r").read_text()
    (folder / "latency.csv").write_text("model,runtime\nx,y\n")
    with pytest.raises(BadInput, match="is damaged"):
        written(folder)


def test_another_link_is_benchmarked_before_it_is_reported(
    results_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = copied(results_folder, tmp_path)
    before = (folder / "benchmark.csv").read_text()
    link = ["link.schedule=sequential", "link.edge_s=5", "benchmark.studies=false"]
    assert main(["report", str(folder), *link]) == 0
    results = results_of(folder)
    assert results.config is not None
    assert results.config.link.schedule == "sequential"
    assert (folder / "benchmark.csv").read_text() != before
    assert "mAP over the period" in (folder / "report.html").read_text(encoding="utf-8")
    assert main(["report", str(folder), "uplink.frames=[8]"]) == 2
    assert "another of the rest needs another measurement" in capsys.readouterr().err
    assert main(["report", "link.edge_s=5"]) == 2
