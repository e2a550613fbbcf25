"""One cell of the surface, all of it on the pretend accelerator: what the processor measures."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from endedge.configs import SHIPPED
from endedge.lab.config import load_config
from endedge.lab.inputs import Inputs
from endedge.lab.store import Store
from endedge.lab.sweep.cell import Cell, CellRunner

SMALL = [
    "device=cpu",
    "data.pool_frames=12",
    "data.eval_frames=3",
    "uplink.frames=[12]",
    "downlink.budgets_bytes=[110000]",
    "downlink.mode=full",
    "teacher.steps=1",
    "student.steps=2",
    "held_back.least=2",
]
CELL = Cell(0, 12, "jpeg-q75-128", 110_000)


@pytest.mark.slow  # suppression of all candidates at once, which a processor is slow at
def test_a_cell_there_is_a_cell_here(sim: Any, tmp_path: Path) -> None:
    inputs = Inputs.of(load_config(SHIPPED / "demo.yaml", SMALL), tmp_path)
    store = Store(tmp_path)
    here = CellRunner(inputs, store, lambda message: None).measure(CELL)
    sim.forget()
    runner = CellRunner(replace(inputs, device="sim"), store, lambda message: None)
    there = runner.measure(CELL)
    assert here["m0"] > 0.1
    for name in ("map", "map50", "m0", "teacher_map", "decoded_map"):
        assert there[name] == pytest.approx(here[name], abs=1e-3), name
    assert there["upload_bytes"] == here["upload_bytes"]
    assert there["update_bytes"] == pytest.approx(here["update_bytes"], rel=0.01)
    assert there["sent"] == here["sent"]
    assert {key for key in sim.host if "conv" in key} == set()
    kinds = {p.name.split("-")[0]: 0 for p in (tmp_path / "nodes").iterdir()}
    for path in (tmp_path / "nodes").iterdir():
        kinds[path.name.split("-")[0]] += 1
    assert kinds.pop("upload") == 1  # the bytes that a device sends, wherever they are encoded
    assert set(kinds.values()) == {2}
