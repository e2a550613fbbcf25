from __future__ import annotations

import csv
import re
import shutil
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from endedge.data.errors import BadInput
from endedge.lab.config import load_config
from endedge.lab.report.captions import segments
from endedge.lab.report.paper_figures import FIGURES, plot
from endedge.lab.report.results import Results

LABELS = {
    "surface": ["frames uploaded per period (bytes)", "model package per period (bytes)", "mAP"],
    "curves": ["(chosen)", "monotone fit", "90 % interval", "before any update"],
    "share": ["share of the bandwidth (%)", "bandwidth of the link (Hz)", "frames up"],
    "policies": ["oracle", "fitted", "marginal-greedy", "bandwidth of the link (Hz)"],
    "regret": ["regret (points of mAP)", "fitted", "kHz"],
}


@pytest.mark.parametrize("what", FIGURES)
def test_figures_are_vectors_with_their_units(
    what: str, results_folder: Path, tmp_path: Path
) -> None:
    out = plot(results_folder, what, tmp_path / "figure.svg")
    drawn = out.read_text(encoding="utf-8")
    texts = re.findall(r"<text[^>]*>(.*?)</text>", drawn, re.S)
    for label in LABELS[what]:
        assert any(label in text for text in texts), (label, texts)


def test_the_same_folder_gives_the_same_bytes(results_folder: Path, tmp_path: Path) -> None:
    for name, magic in (("a.pdf", b"%PDF"), ("a.svg", b"<?xml"), ("a.png", b"\x89PNG")):
        first = plot(results_folder, "share", tmp_path / name).read_bytes()
        assert first.startswith(magic)
        assert plot(results_folder, "share", tmp_path / name).read_bytes() == first


def test_the_table_holds_every_policy_and_escapes_names(
    results_folder: Path, tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(results_folder, tmp_path / "copy"))
    text = (folder / "benchmark.csv").read_text().replace(",random,", ",100%_$x$\\input{y},")
    (folder / "benchmark.csv").write_text(text)
    table = plot(folder, "policies", tmp_path / "table.tex").read_text()
    assert r"100\%\_\$x\$\textbackslash{}input\{y\} & " in table
    rows = re.findall(r"^(?!policy)(.*?) & .* & \$(.*?) .*& \$(.*?) .*\\\\$", table, re.M)
    assert len(rows) == len(_read(folder).benchmark.drawn)
    with (results_folder / "benchmark.csv").open() as file:
        fitted = [row for row in csv.DictReader(file) if row["policy"] == "fitted"]
    assert (
        "fitted",
        *(f"{100 * np.mean([float(r[k]) for r in fitted]):.2f}" for k in ("map", "regret")),
    ) in rows


def _read(folder: Path) -> Results:
    return Results.read(folder, load_config(folder / "config.yaml"))


def test_a_fine_sweep_agrees_with_the_file(results_folder: Path) -> None:
    results = _read(results_folder)
    for step in results.steps:
        again = results.split_at(step.bandwidth_hz)
        assert again.regime == step.regime
        assert again.uplink_hz == pytest.approx(step.uplink_hz)
        assert again.predicted_map == pytest.approx(step.predicted_map)


def test_segments_meet_and_cover_the_sweep(results_folder: Path) -> None:
    results = _read(results_folder)
    steps = [results.split_at(float(b)) for b in np.geomspace(3e3, 1e6, 40)]
    found = segments(steps)
    assert (found[0][0], found[-1][0]) == ("none", "saturated")
    assert (found[0][1], found[-1][2]) == (steps[0].bandwidth_hz, steps[-1].bandwidth_hz)
    assert all(a[2] == b[1] and a[0] != b[0] for a, b in pairwise(found))
    for step in steps:
        assert any(r == step.regime and a <= step.bandwidth_hz <= b for r, a, b in found)


def test_what_cannot_be_drawn_is_refused(results_folder: Path, tmp_path: Path) -> None:
    for what, out, says in (
        ("maps", "a.pdf", "no figure 'maps'; there are surface, curves"),
        ("share", "a.gif", "name a .pdf, .svg, .png or .tex file"),
        ("share", "a.tex", "share has no table"),
    ):
        with pytest.raises(BadInput, match=re.escape(says)):
            plot(results_folder, what, tmp_path / out)
    with pytest.raises(BadInput, match="not a results folder"):
        plot(tmp_path, "share", tmp_path / "a.pdf")
    assert not list(tmp_path.iterdir())
