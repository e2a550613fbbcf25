"""The surface of `configs/gpu-infrared.yaml` under several camera shifts, in slices of time.

    python -m benchmarks.gpu_surface --data DIR --weights DIR --out runs/gpu --minutes 9
    python -m benchmarks.gpu_surface --out runs/gpu-tiny --tiny      (dry run on a CPU)

One `endedge run` for each shift. After ``--minutes`` the running one is interrupted; what is
measured is kept, and the same command goes on (exit status 3 until all is done). Where there is no
network: `pip install --no-index --find-links WHEELS ultralytics pycocotools numba`,
these wheels carried there. Prints what is done, seconds of each stage and how long workers were
busy; `--tables DIR` copies surface, fits, benchmark and figures (no frames, no weights).
"""

from __future__ import annotations

import argparse
import csv
import json
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

TABLES = ("config.yaml", "surface.csv", "curves.json", "allocation.csv", "benchmark.csv")
TINY = [
    "device=cpu",
    "workers=1",
    "seeds=[0]",
    "data.source=generated",
    "data.image_side=64",
    "data.pool_frames=24",
    "data.eval_frames=8",
    "uplink.codecs=[jpeg-q75-64]",
    "uplink.frames=[8,16,24]",
    "downlink.budgets_bytes=[30000,90000]",
    "downlink.mode=full",
    "weights.teacher=endedge:demo/teacher.safetensors",
    "weights.student=endedge:demo/student.safetensors",
    "teacher.steps=2",
    "student.steps=2",
    "link.bandwidths=3",
]
UNFINISHED = 3


def run(verb: list[str], until: float) -> int | None:
    """One command of endedge; ``None`` when time ran out and it was interrupted."""
    code = "from endedge.lab.cli.main import main; raise SystemExit(main())"
    job = subprocess.Popen([sys.executable, "-c", code, *verb])
    try:
        return job.wait(timeout=max(1.0, until - time.monotonic()))
    except subprocess.TimeoutExpired:
        job.send_signal(signal.SIGINT)
        try:
            job.wait(timeout=20)
        except subprocess.TimeoutExpired:
            job.kill()
        return None


def stages(folder: Path) -> None:
    """Cells and seconds of each stage, from the nodes of ``folder``."""
    seconds: dict[str, list[float]] = {}
    for path in (folder / "nodes").glob("*/record.json"):
        node = json.loads(path.read_text())
        seconds.setdefault(path.parent.name.split("-")[0], []).append(node.get("seconds", 0.0))
    for stage, each in sorted(seconds.items()):
        print(f"  {stage:8} {len(each):5} x {sum(each) / len(each):7.2f} s = {sum(each):8.1f} s")
    print(f"  cells    {len(list((folder / 'cells').glob('*.json')))}")


def tables(folder: Path, to: Path) -> None:
    to.mkdir(parents=True, exist_ok=True)
    for name in TABLES:
        shutil.copy(folder / name, to / name)
    for what in ("curves", "share", "policies"):
        run(["plot", str(folder), "--what", what, "-o", str(to / f"{what}.svg")], float("inf"))
    with (to / "surface.csv").open(newline="") as file:
        print(f"{to}: {sum(1 for _ in csv.DictReader(file))} cells")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--data", default=".", help="folder of COCO frames (data.root)")
    parser.add_argument("--weights", default=".", help="folder of checkpoints (weights.root)")
    parser.add_argument("--shifts", nargs="+", default=["infrared", "night"])
    parser.add_argument("--minutes", type=float, default=9.0)
    parser.add_argument("--tables", type=Path)
    parser.add_argument("--tiny", action="store_true", help="seconds on a CPU, generated frames")
    parser.add_argument("overrides", nargs="*", help="key=value of the configuration")
    o, rest = parser.parse_known_args()
    until, began = time.monotonic() + 60 * o.minutes, time.monotonic()
    for shift in o.shifts:
        folder = o.out / shift
        where = TINY if o.tiny else [f"data.root={o.data}", f"weights.root={o.weights}"]
        status = run(
            [
                "run",
                "gpu-infrared",
                "--out",
                str(folder),
                f"data.camera.kind={shift}",
                f"name=gpu-{shift}",
                *where,
                *o.overrides,
                *rest,
            ],
            until,
        )
        print(f"\n{shift}: {time.monotonic() - began:.0f} s since the start")
        stages(folder)
        if status is None:
            print("time is up; the same command goes on from here")
            return UNFINISHED
        if status:
            return status
        if o.tables:
            tables(folder, o.tables / shift)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
