"""The surfaces of docs/results/plan.md on a GPU, in its order, in slices of time.

    python -m benchmarks.gpu_surface --hituav DIR --coco DIR --weights DIR --out runs/gpu
    python -m benchmarks.gpu_surface --out runs/gpu-tiny --tiny      (dry run on a CPU)

One `endedge run` for each surface of the plan (`--only 1 3`: these of it), all in fp32 as the plan
has it. After ``--minutes`` the running one is interrupted; what is measured is kept, and the same
command goes on (exit status 3 until all is done). Where there is no network: `pip install
--no-index --find-links WHEELS ultralytics pycocotools numba`, these wheels carried there. Prints
what is done, seconds of each stage and for which share of the time workers were busy; `--tables
DIR` copies surface, fits, benchmark and figures (no frames, no weights).
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
from typing import NamedTuple

from endedge.lab.config import load_config
from endedge.lab.sweep.executors import engine_of


class Planned(NamedTuple):
    """A surface of the plan: the shipped configuration that it starts from, and what is other."""

    name: str
    base: str
    changes: tuple[str, ...]


_THIRTEEN = "[12kB,20kB,40kB,46kB,53kB,61kB,70kB,80kB,92kB,106kB,122kB,450kB,2.2MB]"
_NINE = "[9000,12000,16000,22000,32000,45000,64000,90000,120000]"
_PSEUDO = ("weights.teacher=yolov8m.pt", "edge.labels=pseudo")
PLAN = (
    Planned(
        "hituav-n",
        "hituav",
        (
            "uplink.frames=[8,16,32,64,128,256,512,764]",
            f"downlink.budgets_bytes={_THIRTEEN}",
            "seeds=[0,1,2]",
        ),
    ),
    Planned(
        "night-n",
        "coco-night",
        (
            "uplink.frames=[8,16,32,64,256,640,1390]",
            f"downlink.budgets_bytes={_NINE}",
            "seeds=[0,1,2]",
            *_PSEUDO,
        ),
    ),
    Planned(
        "hituav-s",
        "hituav",
        (
            "weights.student=yolov8s.pt",
            "weights.teacher=yolov8m.pt",
            "downlink.budgets_bytes=[20kB,50kB,100kB,200kB,0.45MB,1.6MB,3MB,6MB]",
            "seeds=[0,1]",
        ),
    ),
    Planned(
        "night-s",
        "coco-night",
        (
            "weights.student=yolov8s.pt",
            "uplink.frames=[16,256,1390]",
            "downlink.budgets_bytes=[9000,16000,32000,64000,120000,240000]",
            "seeds=[0,1]",
            *_PSEUDO,
        ),
    ),
    Planned(
        "hituav-mixed",
        "hituav",
        (
            "uplink.frames=[64,256,764]",
            f"downlink.budgets_bytes={_THIRTEEN}",
            "edge.labels=mix-64",
            "seeds=[0]",
        ),
    ),
    Planned(
        "hituav-avif",
        "hituav",
        (
            "uplink.frames=[64,764]",
            "uplink.codecs=[avif-q60-320]",
            f"downlink.budgets_bytes={_THIRTEEN}",
            "seeds=[0]",
        ),
    ),
    Planned(
        "night-truth",
        "coco-night",
        ("uplink.frames=[64,1390]", f"downlink.budgets_bytes={_NINE}", "seeds=[0,1]"),
    ),
)
TABLES = ("config.yaml", "surface.csv", "curves.json", "allocation.csv", "benchmark.csv")
TINY = (
    "device=cpu",
    "workers=1",
    "seeds=[0]",
    "data.source=generated",
    "data.camera.kind=none",
    "data.image_side=64",
    "data.pool_frames=24",
    "data.eval_frames=8",
    "uplink.codecs=[jpeg-q75-64]",
    "uplink.frames=[8,16,24]",
    "downlink.budgets_bytes=[30000,90000]",
    "downlink.mode=full",
    "edge.labels=truth",
    "weights.teacher=endedge:demo/teacher.safetensors",
    "weights.student=endedge:demo/student.safetensors",
    "teacher.steps=2",
    "student.steps=2",
    "adaptation.policy=fixed",
    "held_back.least=2",
    "link.bandwidths=3",
)
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


def stages(folder: Path, since: float, took_s: float, workers: int) -> None:
    """Cells and seconds of each stage, from the nodes of ``folder``; and how long workers were at
    nodes that appeared ``since`` (Unix time), of the ``took_s`` that there were for each."""
    seconds: dict[str, list[float]] = {}
    busy_s = 0.0
    for path in (folder / "nodes").glob("*/record.json"):
        node = json.loads(path.read_text())
        seconds.setdefault(path.parent.name.split("-")[0], []).append(node.get("seconds", 0.0))
        if path.stat().st_mtime >= since:
            busy_s += node.get("seconds", 0.0)
    for stage, each in sorted(seconds.items()):
        print(f"  {stage:8} {len(each):5} x {sum(each) / len(each):7.2f} s = {sum(each):8.1f} s")
    print(f"  cells    {len(list((folder / 'cells').glob('*.json')))}")
    share = busy_s / max(1e-9, took_s * workers)
    print(f"  busy     {busy_s:.0f} s of {workers} x {took_s:.0f} s: {share:.0%}")


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
    parser.add_argument("--hituav", default=".", help="folder of HIT-UAV frames")
    parser.add_argument("--coco", default=".", help="folder of COCO frames")
    parser.add_argument("--weights", default=".", help="folder of checkpoints (weights.root)")
    parser.add_argument("--only", nargs="+", type=int, help="surfaces by their place in the plan")
    parser.add_argument("--per-gpu", type=int, default=12, help="workers on each GPU")
    parser.add_argument("--minutes", type=float, default=9.0)
    parser.add_argument("--tables", type=Path)
    parser.add_argument("--tiny", action="store_true", help="seconds on a CPU, generated frames")
    parser.add_argument("overrides", nargs="*", help="key=value of the configuration")
    o, rest = parser.parse_known_args()
    until = time.monotonic() + 60 * o.minutes
    for surface in [PLAN[i - 1] for i in o.only] if o.only else PLAN:
        folder, data = o.out / surface.name, o.hituav if surface.base == "hituav" else o.coco
        where = [f"data.root={data}", f"weights.root={o.weights}", "device=cuda"]
        where += [f"workers_per_gpu={o.per_gpu}", "precision=fp32"]
        changes = [*surface.changes, *(TINY if o.tiny else where), f"name={surface.name}"]
        changes += [*o.overrides, *rest]
        workers = engine_of(load_config(surface.base, changes))[1]
        since, began = time.time(), time.monotonic()
        status = run(["run", surface.base, "--out", str(folder), *changes], until)
        took_s = time.monotonic() - began
        print(f"\n{surface.name}: {took_s:.0f} s")
        stages(folder, since, took_s, workers)
        if status is None:
            print("time is up; the same command goes on from here")
            return UNFINISHED
        if status:
            return status
        if o.tables:
            tables(folder, o.tables / surface.name)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
