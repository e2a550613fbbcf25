"""`endedge status`, and cells that fail."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from endedge.lab.cli.main import main
from endedge.lab.config import load_config
from endedge.lab.store import Node, Running
from endedge.lab.sweep.cell import Cell, CellRunner
from endedge.lab.sweep.status import StageSeconds


def test_a_failed_cell_is_recorded_the_others_go_on_and_the_next_run_tries_it_again(
    place: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    out = place / "out"
    command = ["measure", str(place / "c.yaml"), "--out", str(out), "uplink.frames=[4,6,9]"]
    with monkeypatch.context() as patched:
        package, student = CellRunner.package, CellRunner.student

        def fails(self: CellRunner, cell: Cell, *nodes: Any) -> Node:
            if cell.frames == 4 and cell.budget_bytes == 50_000:
                raise RuntimeError("the disk\nis full")
            return package(self, cell, *nodes)

        def fails_too(self: CellRunner, cell: Cell, *nodes: Any) -> Node:
            if cell.frames == 6:
                raise RuntimeError("no memory")
            return student(self, cell, *nodes)

        patched.setattr(CellRunner, "package", fails)
        patched.setattr(CellRunner, "student", fails_too)
        assert main(command) == 1
    said = capsys.readouterr().err.splitlines()[-1]
    assert said.startswith("endedge measure: 3 of 6 cells failed, the others are measured")
    assert main(["status", str(out), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    counts = {k: found[k] for k in ("cells", "done", "failed", "waiting", "running")}
    assert counts == {"cells": 6, "done": 3, "failed": 3, "waiting": 0, "running": []}
    reasons = {f["cell"]: f["reason"] for f in found["failures"]}
    assert reasons["4 frames, 50,000 B, seed 0"].startswith("the disk is full (RuntimeError on ")
    assert reasons["6 frames, 200,000 B, seed 0"].startswith("no memory")
    assert found["seconds_left"] > 0
    assert not (out / "surface.csv").exists()

    assert main(["status", str(out)]) == 0
    shown = capsys.readouterr().out
    assert "tiny: 6 cells: 3 done, 3 failed, 0 waiting" in shown
    assert "the disk is full" in shown
    assert "nothing runs now" in shown
    assert main(command) == 0
    assert not list((out / "failed").iterdir())
    capsys.readouterr()
    assert main(["status", str(out)]) == 0
    assert capsys.readouterr().out == "tiny: 6 cells: 6 done, 0 failed, 0 waiting\n"
    assert main(["status", str(place / "no")]) == 2
    assert "is not a results folder" in capsys.readouterr().err


def _node(stage: str, seconds: float, **record: Any) -> Node:
    return Node(f"{stage}-0", Path(), record, seconds)


def test_time_left_is_the_work_shared_or_the_longest_trunk(place: Path) -> None:
    config = load_config(place / "c.yaml", ["teacher.steps=10", "student.steps=20"])
    nodes = [
        _node("teacher", 20.0, steps=10),
        _node("teacher", 40.0, steps=10),
        _node("student", 20.0, steps=20),
        _node("package", 2.0),
        _node("cell", 1.0),
        _node("cell", 0.0),  # of an older folder: not timed, not counted
    ]
    pace = StageSeconds.of(nodes, config)
    new, trained = Cell(0, 6, "jpeg-q75-64", 9), Cell(0, 9, "jpeg-q75-64", 9)
    assert pace.trunk(new) == 10 * 3 + 20 * 1
    assert pace.trunk(new, "student") == 20
    assert pace.trunk(trained, "package") == 0
    assert pace.leaf() == 3
    assert pace.leaf("start") == 1
    missing = {new: "upload", trained: "package"}
    assert pace.left(missing, [], 1) == 50 + 2 * 3
    assert pace.left(missing, [], 8) == 50  # one trunk cannot be split
    at_it = [Running("teacher-0", "host", 1, __import__("time").time() - 6.0, "")]
    assert pace.left(missing, at_it, 1) == pytest.approx(50.0, abs=0.5)
    assert StageSeconds.of([], config).left(missing, [], 1) is None
    assert StageSeconds.of([], config).left({}, [], 1) == 0
