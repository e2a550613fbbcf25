"""Checkpoints that Ultralytics' own trainer really wrote, with another number of classes than
the start had, through every stage. Of the families, the two smallest; the others by hand:
``python -m benchmarks.make_checkpoints --out DIR --check``."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from endedge.distill.model import load_detector

SCRIPT = Path(__file__).resolve().parents[2] / "benchmarks" / "make_checkpoints.py"


@pytest.mark.slow
def test_trained_checkpoints_go_through_every_stage(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason="a font for Ultralytics")
    families = ["v9", "10"]
    ran = subprocess.run(
        [sys.executable, SCRIPT, "--out", tmp_path, "--check", "--families", *families],
        capture_output=True,
        text=True,
        timeout=900,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr[-2000:]
    for family in families:
        assert f"{family}: same output" in ran.stdout
        for name in ("finished", "epoch", "interrupted"):
            model = load_detector(tmp_path / family / f"{name}.pt")
            assert len(model.names) == 6
            assert any(p.shape[0] == 80 for p in model.model[-1].parameters())
