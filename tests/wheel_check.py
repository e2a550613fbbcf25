"""Run with the Python of an environment that holds nothing but the wheel: does it work there?

No source folder may be in reach, or the check would test that instead.
"""

from __future__ import annotations

import importlib
import subprocess
import sys
import tempfile
from pathlib import Path

ENDEDGE = Path(sys.executable).with_name("endedge")
TINY = [
    "seeds=[0]",
    "uplink.frames=[8,12,16]",
    "held_back.least=2",
    "downlink.budgets_bytes=[60000,200000]",
    "data.pool_frames=16",
    "data.eval_frames=12",
    "teacher.steps=2",
    "student.steps=2",
]


def main() -> None:
    for name in ("allocator", "configs", "data", "distill", "edge", "end", "lab"):
        module = importlib.import_module(f"endedge.{name}")
        assert "site-packages" in str(module.__file__), f"{name} is not the installed one"
    with tempfile.TemporaryDirectory() as folder:
        out = f"{folder}/run"
        subprocess.run([ENDEDGE, "run", "demo", "--out", out, *TINY], check=True, cwd=folder)
        for name in ("surface.csv", "curves.json", "allocation.csv", "report.html"):
            assert (Path(out) / name).stat().st_size > 0, f"{name} is missing"
        bad = subprocess.run(
            [ENDEDGE, "run", "demo", "--out", out, "sedes=[0]"], cwd=folder, capture_output=True
        )
        assert bad.returncode == 2, bad
    print("the wheel works in a clean environment")


if __name__ == "__main__":
    main()
