"""Whose labels a cell learns from: the teacher's own, or truth within a budget of boxes."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from endedge.data.codec import Codec
from endedge.data.errors import BadInput
from endedge.data.frames import Batch
from endedge.end.device import DeviceEnd
from endedge.end.inference import detect
from endedge.lab.config import load_config
from endedge.lab.inputs import Inputs
from endedge.lab.store import Store
from endedge.lab.sweep.cell import Cell, CellRunner
from endedge.lab.sweep.inbox import Inbox

CELL = Cell(seed=0, frames=32, codec="jpeg-q75-128", budget_bytes=110_000)


def _inputs(seam: Any, labels: str) -> Inputs:
    return Inputs.of(load_config(seam.config, [f"edge.labels={labels}"]), seam.out)


def _trained(inputs: Inputs) -> Batch:
    end = DeviceEnd(Codec.parse(CELL.codec), inputs.side, inputs.device)
    return Inbox(inputs, end, CELL.seed, CELL.frames).upload.trained


def test_pseudo_labels_are_the_teachers_detections(seam: Any) -> None:
    """Those above the threshold, on the pictures as they arrived; nothing of the truth."""
    inputs = _inputs(seam, "pseudo")
    trained, truth = _trained(inputs), _trained(_inputs(seam, "truth"))
    found = detect(inputs.teacher, trained, device="cpu")
    assert 0 < inputs.threshold < 1
    for i, detections in enumerate(found):
        kept = detections.scores >= inputs.threshold
        assert np.array_equal(np.sort(trained.labels[i]), np.sort(detections.labels[kept]))
    assert [len(b) for b in trained.boxes] != [len(b) for b in truth.boxes]


def test_a_budget_of_boxes_buys_truth_for_the_first_frames(seam: Any) -> None:
    truth, pseudo, mixed = (_trained(_inputs(seam, s)) for s in ("truth", "pseudo", "mix-9"))
    counts = [[len(b) for b in batch.boxes] for batch in (truth, pseudo, mixed)]
    bought = 0
    while sum(counts[0][: bought + 1]) <= 9:
        bought += 1
    assert 0 < bought < len(truth)
    assert counts[2] == counts[0][:bought] + counts[1][bought:]


def test_the_row_and_the_names_of_nodes_say_whose(seam: Any, tmp_path: Path) -> None:
    """True ones keep the names that they had."""
    store = Store(shutil.copytree(seam.out, tmp_path / "out"))
    teachers = {}
    for labels in ("truth", "pseudo", "mix-9"):
        runner = CellRunner(_inputs(seam, labels), store, lambda message: None)
        teachers[labels] = runner.teacher(CELL, runner.upload(CELL)).key
        if labels == "pseudo":
            assert runner.measure(CELL)["labels"] == "pseudo"
    assert len(set(teachers.values())) == 3
    assert (seam.out / "nodes" / teachers["truth"]).is_dir()


def test_a_source_of_labels_that_is_none(seam: Any) -> None:
    with pytest.raises(BadInput, match=r"edge\.labels"):
        _inputs(seam, "mix")
