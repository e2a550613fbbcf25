"""Every column of ``surface.csv`` by hand: no stage's record says a figure of another's."""

from __future__ import annotations

import csv
import io
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from endedge.allocator.csv_files import dicts_csv
from endedge.allocator.fitting.surface import COLUMNS
from endedge.edge.edge import Student
from endedge.lab.store import Node
from endedge.lab.sweep.cell import Cell, CellRunner

RECORDS: dict[str, dict[str, Any]] = {
    "start": {"map": 0.11, "map50": 0.12, "teacher_map": 0.13, "seconds": 1.0},
    "upload": {"upload_bytes": 21},
    "taught": {"map": 0.31, "map50": 0.32, "seconds": 128.0},
    "teacher": {"seconds": 2.0, "share": 0.5, "steps": 33},
    "other": {"map": 0.41, "seconds": 4.0, "share": 0.25, "candidate": "adapter", "steps": 43},
    "whole": {"map": 0.42, "seconds": 8.0, "share": 0.75, "candidate": "front", "steps": 44},
    "cut": {"seconds": 64.0, "steps": 53},
    "package": {
        "update_bytes": 61,
        "params": 62,
        "transmitted": 59,
        "bits": 6.3,
        "prune": 0.64,
        "mode": "delta",
        "seconds": 16.0,
        "student": "small.pt",
        "keep": 0.5,
    },
    "cell": {"map": 0.71, "map50": 0.72, "seconds": 32.0, "adapter": "fixed"},
}
# Two architectures, and the second one cut to a half, which is what the package is of.
MENU = (Student("medium.pt"), Student("small.pt"), Student("small.pt", 0.5))
CELL = Cell(seed=7, frames=5, codec="webp-q50-96", budget_bytes=99)
WANTED = {
    "cell": "cell-key",
    "seed": 7,
    "frames": 5,
    "codec": "webp-q50-96",
    "budget_bytes": 99,
    "upload_bytes": 21,
    "update_bytes": 61,
    "params": 62,
    "transmitted": 59,
    "bits": 6.3,
    "prune": 0.64,
    "mode": "delta",
    "map": 0.71,
    "map50": 0.72,
    "m0": 0.11,
    "teacher_map": 0.31,
    "decoded_map": 0.71,
    "seconds_teacher": 2.0,
    "seconds_student": 76.0,  # of all students
    "seconds_pack": 16.0,
    "seconds_eval": 32.0,
    "sent": 1,
    "student": "small.pt",
    "keep": 0.5,
    "latency_s": 0.9,
    "labels": "mix-9",
    "precision": "bf16",
    "candidate": "front",  # of the whole one, which the one that is sent was cut from
    "share": 0.75,
    "adapter": "fixed",
}


def _node(name: str, **more: Any) -> Node:
    return Node(f"{name}-key", Path("nowhere"), {**RECORDS.get(name, {}), **more}, 0.0)


class ByHand(CellRunner):
    """Rounds whose stages were written down; ``asked`` hears what each was given."""

    def __init__(self, sent: bool) -> None:
        self.sent = sent
        times = SimpleNamespace(latency_s={MENU[2]: 0.9, MENU[1]: 0.8})
        plan = SimpleNamespace(menu=MENU, labels="mix-9")
        inputs: Any = SimpleNamespace(plan=plan, menu=times, precision="bf16")
        self.inputs = inputs
        self.asked: dict[str, tuple[str, ...]] = {}

    def _given(self, name: str, *nodes: Node) -> Node:
        self.asked[name] = tuple(node.key for node in nodes)
        return _node(name)

    def start(self) -> Node:
        return self._given("start")

    def upload(self, cell: Cell) -> Node:
        return self._given("upload")

    def teacher(self, cell: Cell, upload: Node) -> Node:
        return self._given("teacher", upload)

    def taught(self, teacher: Node, start: Node) -> Node:
        return self._given("taught", teacher, start)

    def students(self, cell: Cell, upload: Node, teacher: Node) -> list[Node]:
        return [self._given(name, upload, teacher) for name in ("other", "whole", "cut")]

    def package(self, cell: Cell, upload: Node, students: Any) -> Node:
        return self._given("package", *students)

    def verdict(self, cell: Cell, package: Node, student: Node) -> Node:
        self.asked["verdict"] = (package.key, student.key)
        return _node("verdict", sent=self.sent)

    def applied(self, package: Node, start: Node) -> Node:
        return self._given("cell", package, start)


def _measured(sent: bool) -> dict[str, Any]:
    return {name: value for name, value in ByHand(sent).measure(CELL).items() if name in WANTED}


@pytest.mark.parametrize("column", WANTED)
def test_a_column_is_of_the_stage_that_it_names(column: str) -> None:
    assert _measured(sent=True)[column] == WANTED[column]


def test_of_an_update_that_is_not_sent_the_device_keeps_what_it_had() -> None:
    kept = {"map": 0.11, "map50": 0.12, "sent": 0}  # what it would have given stays on record
    assert _measured(sent=False) == WANTED | kept


def test_stages_get_what_the_stages_before_made() -> None:
    runner = ByHand(sent=True)
    runner.measure(CELL)
    assert runner.asked == {
        "start": (),
        "upload": (),
        "teacher": ("upload-key",),
        "taught": ("teacher-key", "start-key"),
        "other": ("upload-key", "teacher-key"),
        "whole": ("upload-key", "teacher-key"),
        "cut": ("upload-key", "teacher-key"),
        "package": ("other-key", "whole-key", "cut-key"),
        "verdict": ("package-key", "whole-key"),  # of the architecture that won
        "cell": ("package-key", "start-key"),
    }


def test_the_file_has_these_columns_and_figures() -> None:
    (row,) = csv.DictReader(io.StringIO(dicts_csv([ByHand(True).measure(CELL)])))
    assert {name: row[name] for name in WANTED} == {k: str(v) for k, v in WANTED.items()}
    assert set(COLUMNS) <= set(row)
