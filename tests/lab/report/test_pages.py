"""The pages as a reader meets them: wide and narrow, light and dark, with a keyboard, on paper."""

from __future__ import annotations

import base64
import csv
import io
import json
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from endedge.data.errors import BadInput
from endedge.lab import pipeline
from endedge.lab.config import load_config
from endedge.lab.report import figure_tables, tables
from endedge.lab.report.class_table import ClassRow, read_classes, write_classes
from endedge.lab.report.results import Results
from endedge.lab.report.tabular import Column, ReportTable, decimal
from tests.browser import Browser

KINDS = ("gained", "lost", "alarm", "calmed")
EVIL = 'c"><img src=x>'


def _crop(kind: str, name: str) -> dict[str, Any]:
    out = io.BytesIO()
    Image.new("RGB", (8, 8), "teal").save(out, "JPEG")
    return {
        "kind": kind,
        "name": name,
        "score": 0.5,
        "image_id": 1,
        "side": 8,
        "box": [1, 1, 4, 4],
        "object": [1, 2, 4, 4] if kind in ("gained", "lost") else None,
        "jpeg": base64.b64encode(out.getvalue()).decode(),
    }


@pytest.fixture(scope="session")
def full_folder(results_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The made-up results with everything that a report can show."""
    folder = tmp_path_factory.mktemp("full") / "full"
    shutil.copytree(results_folder, folder)
    names = [EVIL, "cat", "dog"]
    changes = [_crop(kind, name) for kind in KINDS for name in names for _ in range(3)]
    counts = [
        {"name": name, "objects": 9, "gained": 4 - k, "lost": k, "alarm": 1, "calmed": 2}
        for k, name in enumerate(names)
    ]
    document = {"score": 0.25, "iou": 0.5, "of": 3, "frames": [], "counts": counts}
    (folder / "examples.json").write_text(json.dumps({**document, "changes": changes}))
    write_classes(
        folder,
        [
            ClassRow(seed, frames, "c", 9, name, 9, 0.1, 0.1 + 0.01 * k * (1 + seed))
            for seed in (0, 1)
            for frames in (16, 64)
            for k, name in enumerate(names)
        ],
    )
    pipeline.report_stage(folder)
    return folder


def _results(folder: Path) -> Results:
    return Results.read(folder, load_config(folder / "config.yaml"))


@pytest.mark.parametrize(("width", "dark"), [(1280, False), (390, True)])
def test_nothing_is_wider_than_the_window(
    full_folder: Path, browser: Browser, width: int, dark: bool
) -> None:
    browser.show(width=width, dark=dark).open((full_folder / "report.html").as_uri())
    assert not browser.said
    assert browser.run("document.documentElement.scrollWidth") <= width
    lightness = browser.run(
        "getComputedStyle(document.body).backgroundColor.match(/\\d+/g).map(Number)[0]"
    )
    ink = browser.run("document.querySelector('#data-curve .xtick text').style.fill")
    assert (lightness < 60) == dark
    assert (int(re.findall(r"\d+", ink)[0]) > 200) == dark  # figures follow
    hints = browser.run(
        "[...document.querySelectorAll('.scroll')].every("
        "(t) => (t.scrollWidth > t.clientWidth + 1) === !t.nextElementSibling.hidden)"
    )
    assert hints  # who scrolls says so
    ticks = browser.run(
        "[...document.querySelectorAll('.plot')].filter((p) => {"
        " const r = [...p.querySelectorAll('.xtick text')].filter((t) => !/rotate\\(-/.test("
        "t.getAttribute('transform') || '')).map((t) => t.getBoundingClientRect());"
        " return r.some((a, i) => i && a.left < r[i - 1].right && a.top < r[i - 1].bottom"
        " && a.bottom > r[i - 1].top); }).map((p) => p.id)"
    )
    assert ticks == []  # no label touches its neighbour
    if width < 500:
        assert not browser.run("at('contents-list').open")


def test_changes_are_browsed_by_kind_and_class(full_folder: Path, browser: Browser) -> None:
    browser.show(width=1280).open((full_folder / "report.html").as_uri())
    shown = "[...document.querySelectorAll('#crops figure')].filter((f) => f.offsetParent).length"
    assert browser.run(shown) == 36
    browser.run("document.querySelector('input[value=lost]').click()")
    assert browser.run(shown) == 27
    browser.run(
        "at('class').value = 'cat'; at('class').dispatchEvent(new Event('change', {bubbles: true}))"
    )
    assert browser.run(shown) == 9
    assert browser.run("at('chosen').textContent") == "9 of 36 shown"
    assert not browser.run("document.querySelectorAll('main img[src=x]').length")
    title = "The update finds 9 objects more and loses 3; 3 false alarms are new, 6 are gone"
    assert title in browser.run("document.body.textContent")


def test_accessibility(full_folder: Path, browser: Browser) -> None:
    for dark in (False, True):
        browser.show(width=1280, dark=dark).open((full_folder / "report.html").as_uri())
        assert browser.violations() == []


def test_a_file_beside_each_table_has_its_values(full_folder: Path, browser: Browser) -> None:
    browser.show(width=1280).open((full_folder / "report.html").as_uri())
    files = browser.run(
        "Object.fromEntries([...document.querySelectorAll('a[download]')].map("
        "(a) => [a.download, a.href]))"
    )
    assert {"regrets.csv", "rounds.csv", "classes.csv", "surface.csv", "changes.csv"} <= set(files)
    text = base64.b64decode(files["regrets.csv"].partition("base64,")[2]).decode()
    rows = {row["policy"]: row for row in csv.DictReader(io.StringIO(text))}
    bench = _results(full_folder).benchmark
    mean = bench.regret[bench.of("fitted")].mean()
    assert float(rows["fitted"]["regret_map"]) == pytest.approx(mean, rel=1e-8)


# Without a browser ----------------------------------------------------------------------------


def test_classes_are_those_of_the_largest_round(full_folder: Path, tmp_path: Path) -> None:
    found = _results(full_folder).classes
    assert [c.name for c in found] == ["dog", "cat", EVIL]
    assert [float(c.change.mean) for c in found] == pytest.approx([0.03, 0.015, 0])
    page = (full_folder / "report.html").read_text()
    assert "2 of 3 classes gain, 0 lose; most dog (+3.0\u00a0points)" in page
    write_classes(tmp_path, [])
    assert read_classes(tmp_path) == []
    (tmp_path / "classes.csv").write_text(
        "seed,frames,codec,budget_bytes,name,objects,ap_before,ap_after\n0,1,c,9,a,1,0.1,1.5\n"
    )
    with pytest.raises(BadInput, match="is damaged"):
        read_classes(tmp_path)


@pytest.mark.parametrize(
    ("value", "places", "text"),
    [(-0.004, 2, "0.00"), (-0.006, 2, "−0.01"), (0.0, 1, "0.0"), (float("nan"), 1, "–")],
)
def test_no_zero_has_a_sign(value: float, places: int, text: str) -> None:
    assert decimal(value, places) == text
    assert decimal(-0.0, places, signed=True).startswith("0.")


def test_no_table_shows_a_negative_zero_or_one_seeds(full_folder: Path) -> None:
    results = _results(full_folder)
    made = [make(results) for make in figure_tables.FIGURE_TABLES.values()]
    made += [f(results) for f in (tables.regrets, tables.standings, tables.rounds, tables.costs)]
    for table in made:
        cells = " ".join(cell for row in table.cells for cell in row)
        assert not re.search(r"[−-]0\.0+(?!\d)", cells), table.name
        assert not re.search(r"\b1 (seeds|threads|bandwidths)", cells + table.note)
        header, *rows = csv.reader(io.StringIO(table.csv()))
        assert len(rows) == len(table.rows)
        assert all(len(row) == len(header) == len(set(header)) for row in rows), table.name
        assert table.latex().count(r"\\") == len(rows) + 1


def test_nobody_wins_where_there_is_nothing_to_gain(results_folder: Path) -> None:
    results = _results(results_folder)
    shown = {row[0]: row for row in tables.standings(results).rows}
    for hz, headroom in zip(
        results.benchmark.bandwidth_hz, results.benchmark.headroom, strict=True
    ):
        mean, error = headroom.mean(), headroom.std(ddof=1) / np.sqrt(len(headroom))
        if hz in shown and mean <= 2 * error:
            assert shown[hz][2].startswith("– (")
            assert np.isnan(shown[hz][3])


def test_latex_escapes_what_stands_in_a_file() -> None:
    table = ReportTable("t", (Column("a & b", "a"),), [("100% \\input{x} ±",)], note="two\nlines")
    assert r"100\% \textbackslash{}input\{x\} $\pm$ \\" in table.latex()
    assert r"a \& b" in table.latex()
    assert table.latex().startswith("% two lines\n")
