"""What the operator sees: lines, metrics, and the board that draws them."""

from __future__ import annotations

import json
import re
from pathlib import Path

from endedge.edge.server.monitor import DeviceRow, line, metrics_text

DEPLOY = Path(__file__).parents[3] / "docs" / "deploy"
ROW = DeviceRow("cam", True, 1, 2, 3, 4, 5, 0, 1.5, 3, 0, 0.25, "away (\x1b[2J\nx)")


def test_a_line_steers_no_terminal() -> None:
    assert line(ROW) == "cam: away (?[2J?x), round 3, missed 0, mAP 25.0 %"


def test_the_board_draws_metrics_that_exist() -> None:
    text = metrics_text([ROW], {"refused": 2})
    known = set(re.findall(r"^# TYPE (\w+)", text, re.M))
    assert "endedge_quarantined" in known
    board = (DEPLOY / "grafana.json").read_text()
    drawn = [t["expr"] for panel in json.loads(board)["panels"] for t in panel["targets"]]
    used = {name for expression in drawn for name in re.findall(r"endedge_\w+", expression)}
    assert used <= known
    assert known - used <= {"endedge_batches_total", "endedge_frames_total"}


def test_the_unit_and_the_image_start_the_verb() -> None:
    unit = (DEPLOY / "endedge.service").read_text()
    assert "bin/endedge serve /etc/endedge/edge.yaml --out /var/lib/endedge" in unit
    assert "RestartPreventExitStatus=2" in unit
    assert 'ENTRYPOINT ["endedge"]' in (DEPLOY / "Dockerfile").read_text()


def test_every_metric_is_of_the_field_that_it_names() -> None:
    """A row in which no two figures are the same."""
    figures = {
        "received_bytes": 11,
        "sent_bytes": 12,
        "batches": 13,
        "frames": 14,
        "upload_bytes": 15,
        "jobs": 16,
        "compute_s": 17.5,
        "applied_round": 18,
        "missed": 19,
        "map50_95": 0.25,
    }
    row = DeviceRow("cam", connected=True, doing="", **figures)  # type: ignore[arg-type]
    shown = dict(
        line.removeprefix("endedge_").split('{device="cam"} ')
        for line in metrics_text([row], {}).splitlines()
        if '{device="cam"}' in line
    )
    assert {name: float(value) for name, value in shown.items()} == {
        "connected": 1,
        "received_bytes_total": 11,
        "sent_bytes_total": 12,
        "batches_total": 13,
        "frames_total": 14,
        "upload_bytes_total": 15,
        "jobs": 16,
        "compute_seconds_total": 17.5,
        "applied_round": 18,
        "missed_rounds_total": 19,
        "quarantined": 0,
        "map50_95": 0.25,
    }
    assert 'endedge_events_total{event="missed"} 3' in metrics_text([], {"missed": 3})
