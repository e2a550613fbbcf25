"""The page that compares results folders."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import endedge.lab
from endedge.lab.cli.main import main


def _other(folder: Path, to: Path, name: str = "other") -> Path:
    """The same results with a gain of two points, other link and name."""
    made = Path(shutil.copytree(folder, to / name))
    config = (made / "config.yaml").read_text().replace("name: synthetic", f"name: {name}")
    (made / "config.yaml").write_text(config.replace("student: small.pt", "student: other.pt"))
    lines = (made / "benchmark.csv").read_text().splitlines()
    at = lines[0].split(",").index("average_map")
    rows = [line.split(",") for line in lines[1:]]
    for row in rows:
        row[at] = str(float(row[at]) + 0.02)
    (made / "benchmark.csv").write_text("\n".join([lines[0], *(",".join(r) for r in rows)]) + "\n")
    return made


def _page(folders: list[Path], out: Path) -> tuple[str, dict[str, Any]]:
    assert main(["report", *map(str, folders), "-o", str(out)]) == 0
    page = out.read_text(encoding="utf-8")
    found = re.search(r'<script type="application/json" id="contents">(.*?)</script>', page, re.S)
    assert found is not None
    return page, json.loads(found[1])["figures"]


def test_two_folders_side_by_side(results_folder: Path, tmp_path: Path) -> None:
    other = _other(results_folder, tmp_path)
    page, figures = _page([results_folder, other], tmp_path / "compare.html")
    assert set(figures) == {"returns", "share", "data-curve", "model-curve"}
    lines = [t for t in figures["returns"]["data"] if t["mode"] == "lines+markers"]
    assert [t["name"][0] for t in lines] == ["A", "B"]
    for trace, folder in zip(lines, (results_folder, other), strict=True):
        bench = endedge.lab.load(folder).benchmark
        mean = 100 * bench.judged[bench.of("fitted")].mean(axis=1)
        np.testing.assert_allclose(trace["y"], mean, rtol=1e-5)
    title = re.search(r"<h1>(.*?)</h1>", page)
    assert title is not None
    assert "+2.0\u00a0points from A to B" in title[1]
    assert "1 configuration key differs" in page
    assert "weights.student" in page
    assert "small.pt" in page
    assert "The same frames." in page
    assert not re.search(r'(?:src|href)="(?!data:|#)', page.split("<script")[0])


def test_names_are_escaped_and_told_apart(results_folder: Path, tmp_path: Path) -> None:
    evil = tmp_path / "a&b<i>"
    shutil.copytree(results_folder, evil)
    page, figures = _page([results_folder, evil], tmp_path / "c.html")
    assert "a&b<i>" not in page.split("<script")[0]
    assert all("<" not in t.get("name", "") for t in figures["returns"]["data"])
    twin = tmp_path / "deep" / evil.name
    shutil.copytree(results_folder, twin)
    page, _ = _page([evil, twin], tmp_path / "d.html")
    assert "deep/" in page


def test_what_cannot_be_compared(
    results_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    copies = [str(shutil.copytree(results_folder, tmp_path / str(k))) for k in range(6)]
    assert main(["report", *copies, "-o", str(tmp_path / "c.html")]) == 2
    assert "2 to 5 can be compared" in capsys.readouterr().err
    assert main(["report", copies[0], copies[0], "-o", str(tmp_path / "c.html")]) == 2
    assert main(["report", copies[0], str(tmp_path), "-o", str(tmp_path / "c.html")]) == 2
    assert "not a results folder" in capsys.readouterr().err
    assert not (tmp_path / "c.html").exists()
