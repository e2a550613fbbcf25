"""The page's control in a browser: it splits as the solver does."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from endedge.allocator import Curves, Joint, Kind, Link, Range, Rules, allocate
from endedge.allocator.accuracy.joint import COMPOSITIONS
from endedge.allocator.accuracy.shapes import DATA_SHAPES, MODEL_SHAPES
from endedge.allocator.fitting.synthetic import curves_of, random_joint
from endedge.lab.report.page import _joint
from endedge.lab.report.results import Results
from tests.browser import Browser, chromium
from tests.lab.report.folders import copied, results_of, written

ASSETS = Path(__file__).parents[3] / "lab" / "report" / "assets"


def _browse(address: str, profile: Path) -> tuple[str, str]:
    """The document after its scripts ran, and what the browser said."""
    done = subprocess.run(
        [
            chromium(),
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-3d-apis",
            "--no-first-run",
            "--disable-background-networking",
            "--host-resolver-rules=MAP * ~NOTFOUND",
            f"--user-data-dir={profile}",
            "--enable-logging=stderr",
            "--dump-dom",
            "--virtual-time-budget=20000",
            address,
        ],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout, done.stderr


def _tolerant(curves: Curves, link: Link, rules: Rules, answer: dict[str, Any]) -> None:
    """``answer`` is as good as the solver's, and the same wherever the optimum is sharp."""
    exact = allocate(curves, link, rules)
    if (answer["regime"] == "none") != (exact.regime == "none"):
        # Whether an update pays at all may tip on the last digit.
        assert abs(exact.average_map - (rules.stale_map or curves.m0)) < 1e-6
        return
    assert answer["predicted_map"] == pytest.approx(exact.predicted_map, abs=2e-5)
    assert answer["average_map"] == pytest.approx(exact.average_map, abs=2e-5)
    halfway = (
        (answer[name] + getattr(exact, name)) / 2 for name in ("upload_bytes", "update_bytes")
    )
    if abs(float(curves.predict(*halfway)) - exact.predicted_map) < 1e-9:
        return  # a plateau: all splits along it are equally good
    assert answer["uplink_hz"] == pytest.approx(exact.uplink_hz, abs=2e-3 * link.bandwidth_hz)
    assert answer["downlink_hz"] == pytest.approx(exact.downlink_hz, abs=2e-3 * link.bandwidth_hz)


def test_the_page_splits_like_the_solver(tmp_path: Path) -> None:
    rng = np.random.default_rng(5)
    kinds = [Kind(c, a, g) for c in COMPOSITIONS for a in DATA_SHAPES for g in MODEL_SHAPES]
    upload, update = Range(6e4, 6e6), Range(3e4, 1e6)
    cases: list[tuple[Joint, Link, Rules]] = []
    for kind in kinds:
        joint = random_joint(kind, rng)
        link = Link(float(np.exp(rng.uniform(np.log(3e3), np.log(8e5)))), 60.0)
        cases.append((joint, link, Rules()))
        if rng.random() < 0.4:
            times = {"edge_s": 10.0, "edge_s_per_upload_byte": 2e-6, "apply_s": 2.0}
            objective = "average" if rng.random() < 0.7 else "final"
            cases.append((joint, link, Rules("sequential", **times, objective=objective)))  # type: ignore[arg-type]
    sent = [
        {
            "curves": {
                "m0": joint.m0,
                "joint": _joint(joint),
                "replicates": [_joint(joint)],
                "width": {"upload": 0.0, "update": 0.0, "scale": 1.0},
                "reference": {"upload_bytes": [1], "update_bytes": [1], "map": [[0.1]]},
                "upload": vars(upload),
                "update": vars(update),
                "uploads": [],
                "updates": [],
            },
            "link": vars(link),
            "rules": vars(rules),
        }
        for joint, link, rules in cases
    ]
    page = tmp_path / "solver.html"
    page.write_text(
        f"<pre id=out></pre><script>{(ASSETS / 'solver.js').read_text()}</script><script>"
        f"const cases = {json.dumps(sent)};"
        "document.getElementById('out').textContent = JSON.stringify("
        "cases.map((c) => Solver.allocate(c.curves, c.link, c.rules)));</script>"
    )
    document, _ = _browse(page.as_uri(), tmp_path / "profile")
    found = re.search(r"<pre id=\"out\">(.*?)</pre>", document, re.S)
    assert found is not None
    answers = json.loads(found[1])
    assert len(answers) == len(cases)
    for (joint, link, rules), answer in zip(cases, answers, strict=True):
        _tolerant(curves_of(joint, upload, update), link, rules, answer)


def test_the_page_runs_and_its_control_moves_the_split(
    results_folder: Path, tmp_path: Path, browser: Browser
) -> None:
    folder = copied(results_folder, tmp_path)
    written(folder)
    results, address = results_of(folder), (folder / "report.html").as_uri()
    browser.show(width=1280).open(f"{address}#bandwidth_hz=50000&period_s=30")
    assert not browser.said
    _check_answer(browser, results, 50_000.0, 30.0)
    assert browser.run("document.querySelectorAll('.main-svg').length") > 10  # figures are drawn
    browser.run(
        "for (const [id, to] of [['bandwidth', 700], ['period', 300]]) {"
        "at(id).value = to; at(id).dispatchEvent(new Event('input')); }"
    )
    sweep, period = results.benchmark.bandwidth_hz, results.channel.period_s
    low, high = sweep[0] / 1.5, sweep[-1] * 1.5
    _check_answer(browser, results, float(low * (high / low) ** 0.7), period / 10 * 100**0.3)


def _check_answer(browser: Browser, results: Results, bandwidth: float, period: float) -> None:
    answer = json.loads(browser.run("at('answer').dataset.answer"))
    assert answer["bandwidth_hz"] == pytest.approx(bandwidth, rel=1e-3)
    assert answer["period_s"] == pytest.approx(period, rel=1e-3)
    link = Link(answer["bandwidth_hz"], answer["period_s"])
    exact = allocate(results.curves, link, results.rules)
    _tolerant(results.curves, link, results.rules, answer)
    assert answer["regime"] == exact.regime
    assert answer["frames"] == pytest.approx(exact.frames, abs=1)
    assert (answer["low"], answer["high"]) == pytest.approx(exact.interval, abs=1e-4)
    assert browser.run("at('regime').textContent") == exact.regime
