"""Cells whose adaptation is chosen by the uploaded frames."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from endedge.data.errors import BadInput
from endedge.lab.config import load_config
from endedge.lab.inputs import Inputs
from endedge.lab.store import Store
from endedge.lab.sweep.cell import Cell, CellRunner

CHOSEN = ["adaptation.policy=chosen", "student={steps: 24, epochs: 100, batch: 4}"]


def test_a_cell_is_measured_by_what_its_frames_chose(place: Path) -> None:
    config = load_config(place / "c.yaml", [*CHOSEN, "uplink.frames=[12]"])
    told: list[str] = []
    inputs = Inputs.of(config, place / "out")
    runner = CellRunner(inputs, Store(place / "out"), told.append)
    cell = Cell(0, 12, "jpeg-q75-64", 200_000)
    row = runner.measure(cell)
    (student,) = (place / "out/nodes").glob("student-*/record.json")
    record = json.loads(student.read_text())["record"]
    assert record["choosing_steps"] <= 24
    assert record["training_steps"] in (0, 24)
    assert record["evidence"]["frames"] == 8
    assert {name for _, name, _, _ in record["trials"]} == {"none", "adapter", "front", "all"}
    (verdict,) = (place / "out/nodes").glob("verdict-*/record.json")
    said = json.loads(verdict.read_text())["record"]
    assert said["before"] == pytest.approx(record["evidence"]["before"])
    assert row["sent"] == int(said["before"] - said["after"] > said["error"])
    told.clear()
    assert runner.measure(cell) == row
    assert told == []


def test_a_level_that_cannot_be_judged_is_refused(place: Path) -> None:
    with pytest.raises(BadInput, match=r"uplink\.frames: 4 frames cannot choose .* at least 6"):
        load_config(place / "c.yaml", CHOSEN)
