from __future__ import annotations

import csv
import re
import shutil
import subprocess
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from endedge.data.errors import BadInput
from endedge.lab.cli.main import main
from endedge.lab.config import load_config
from endedge.lab.report.captions import segments
from endedge.lab.report.paper_figures import FIGURES, Choice, draw, plot, plot_all
from endedge.lab.report.plotting import Look
from endedge.lab.report.results import Results
from endedge.lab.report.style import own, style, styles

LABELS = {
    "surface": ["frames uploaded per period (bytes)", "model package per period (bytes)", "mAP"],
    "curves": ["(chosen)", "monotone fit", "90 % interval", "before any update"],
    "share": ["share of the bandwidth (%)", "bandwidth of the link (Hz)", "frames up"],
    "policies": ["oracle", "fitted", "marginal-greedy", "bandwidth of the link (Hz)"],
    "regret": ["regret (points of mAP)", "fitted", "kHz"],
    "parameters": ["parameters transmitted", "1,024 frames", "before any update", "mAP"],
    "data-curve": ["frames uploaded per period (bytes)", "(chosen)"],
    "model-curve": ["model package per period (bytes)", "(chosen)"],
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
    magics = {"a.pdf": b"%PDF", "a.svg": b"<?xml", "a.png": b"\x89PNG", "a.eps": b"%!PS-Adobe"}
    for name, magic in magics.items():
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
    rows = re.findall(r"^(?!policy)(.*?) & .* & (\S+) \$\\pm\$ \S+ & (\S+) .*\\\\$", table, re.M)
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
        ("share", "a.gif", "name a .pdf, .svg, .png, .eps, .pgf, .csv or .tex file"),
    ):
        with pytest.raises(BadInput, match=re.escape(says)):
            plot(results_folder, what, tmp_path / out)
    with pytest.raises(BadInput, match="not a results folder"):
        plot(tmp_path, "share", tmp_path / "a.pdf")
    assert not list(tmp_path.iterdir())


OWN = """
from endedge.allocator import Known, Split, register

@register("mine")
def mine(known: Known) -> Split:
    return known.budget.with_share(0.3)
"""


def test_a_paper_from_a_shipped_table_in_one_command_each(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(OWN)
    out = tmp_path / "policies.svg"
    more = ["--policy", str(tmp_path / "mine.py"), "--policies", "mine,equal,oracle"]
    command = ["plot", "demo", "--what", "policies", "-o", str(out), *more]
    assert main([*command, "--x", "traffic", "--width", "84mm", "--font", "serif"]) == 0
    drawn = out.read_text()
    texts = re.findall(r"<text[^>]*>(.*?)</text>", drawn, re.S)
    assert {"mine", "equal", "oracle"} <= set(texts)
    assert "random" not in texts
    assert "traffic per period, both ways (bytes)" in texts
    assert "DejaVu Serif" in drawn
    width = re.search(r'width="([\d.]+)pt"', drawn)
    assert width is not None
    assert float(width[1]) == pytest.approx(84 / 25.4 * 72, rel=1e-3)
    assert own("mine")
    assert styles(["mine"])["mine"].colour in drawn  # not the grey of those nobody looks for
    assert styles(["mine"])["mine"].colour != style("random").colour


def test_every_figure_and_its_table_at_once(results_folder: Path, tmp_path: Path) -> None:
    made = plot_all(results_folder, tmp_path / "paper", kind="eps")
    assert {path.name for path in made} == {f"{n}.{k}" for n in FIGURES for k in ("eps", "tex")}
    for path in made:
        text = path.read_text(encoding="latin-1")
        assert not re.search(r"(?<![\d.])-0\.0+(?!\d)", text.partition("midrule")[2])
        assert "transparency" not in text


def test_words_inside_regions_fit_or_stand_outside(results_folder: Path) -> None:
    figure = draw(_read(results_folder), "share")
    figure.canvas.draw()
    axes = figure.axes[0]
    frame = axes.get_window_extent()
    for text in axes.texts[:2]:
        if text.get_text() in ("frames up", "model down"):
            box = text.get_window_extent()
            assert frame.x0 < box.x0
            assert box.x1 < frame.x1
            assert frame.y0 < box.y0
            assert box.y1 < frame.y1


def test_choices_that_do_not_exist_are_named(
    results_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "a.pdf"
    cases: list[tuple[Callable[[], object], str]] = [
        (lambda: Look("3 miles"), "width '3 miles'"),
        (lambda: Look(font="Quill").parameters, "no font 'Quill' on this machine"),
        (lambda: Look(size_pt=2), "text of 2 pt"),
        (lambda: Choice(x="money"), "no axis 'money'; there are bandwidth, upload"),
        (lambda: plot(results_folder, "policies", out, Choice(("mine",))), "has no policy 'mine'"),
        (lambda: plot("demo-2", "policies", out), "no table 'demo-2'"),
        (lambda: plot_all(results_folder, tmp_path, kind="gif"), "no format 'gif'"),
    ]
    for make, says in cases:
        with pytest.raises(BadInput, match=re.escape(says)):
            make()
    monkeypatch.setenv("PATH", "")
    with pytest.raises(BadInput, match="needs LaTeX on this machine"):
        plot(results_folder, "share", tmp_path / "a.pgf")


def test_latex_takes_figures_and_tables(results_folder: Path, tmp_path: Path) -> None:
    if shutil.which("pdflatex") is None:
        pytest.skip("no LaTeX on this machine: .pgf and .tex were not compiled")
    names = [n for n in FIGURES if n in ("share", "policies", "regret")]
    for name in names:
        plot(results_folder, name, tmp_path / f"{name}.pgf")
        plot(results_folder, name, tmp_path / f"{name}.tex")
    body = "\n".join(f"\\input{{{n}.pgf}}\n\n\\input{{{n}.tex}}\n" for n in names)
    preamble = "\\documentclass{article}\\usepackage{pgf,booktabs}\\begin{document}\n"
    (tmp_path / "paper.tex").write_text(f"{preamble}{body}\\end{{document}}\n")
    done = subprocess.run(
        ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "paper.tex"],
        cwd=tmp_path,
        capture_output=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-2000:].decode(errors="replace")
    assert (tmp_path / "paper.pdf").stat().st_size > 10_000
