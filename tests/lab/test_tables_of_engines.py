"""``latency.csv`` and ``detections.json`` by hand: no figure is another's."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from endedge.end.inference import Detections
from endedge.end.latency import Latency
from endedge.end.metric import CocoScore
from endedge.lab.drawn import _record
from endedge.lab.latency_table import Row, add_rows, read_latencies

TIMED = Latency("openvino", 0.02, 0.01, 0.04, 0.015, 77, 3)


def test_a_row_is_of_the_timing_and_the_score_that_it_is_given(tmp_path: Path) -> None:
    row = Row.of("small.pt", 320, TIMED, CocoScore(0.31, 0.52, 9), "9 frames")
    assert (row.model, row.runtime, row.imgsz, row.threads) == ("small.pt", "openvino", 320, 3)
    assert (row.latency_s, row.low_s, row.high_s, row.network_s) == (0.02, 0.01, 0.04, 0.015)
    assert (row.runs, row.map, row.map50, row.frames) == (77, 0.31, 0.52, "9 frames")
    unlabelled = Row.of("other.pt", 320, TIMED, None, "noise")
    assert (unlabelled.map, unlabelled.map50) == (None, None)
    add_rows(tmp_path, [row, unlabelled])
    assert read_latencies(tmp_path) == [row, unlabelled]


def test_what_is_predicted_keeps_its_names() -> None:
    found = Detections(
        1,
        np.array([[1.0, 2.0, 3.0, 4.0], [5.0, 6.0, 7.0, 8.0]]),
        np.array([0.9, 0.4]),
        np.array([2, 0]),
    )
    assert _record("a.jpg", found, {0: "cat", 1: "dog", 2: "cow"}) == {
        "picture": "a.jpg",
        "boxes": [[1.0, 2.0, 3.0, 4.0], [5.0, 6.0, 7.0, 8.0]],
        "scores": [0.9, 0.4],
        "classes": ["cow", "cat"],
    }
