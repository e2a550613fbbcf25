"""Make the tables that come with the package from the published surfaces.

    python -m benchmarks.make_tables [NAME …]

Anybody's results folder becomes one by ``Table.load(DIR).write(...)`` with a licence and a
provenance (docs/benchmark.md).
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from endedge.allocator import Surface, fit
from endedge.lab.benchmark.table import SHIPPED_TABLES, Table
from endedge.lab.config import load_config
from endedge.lab.sweep.replicates import Replicates

ROOT = Path(__file__).parent.parent
_FIXED = ("demo", "coco-infrared")  # measured with ``adaptation.policy=fixed``
_ABOUT = {
    "demo": (
        "docs/results/demo/surface.csv",
        "generated frames (configs/demo.yaml), 128 px; a toy: six classes, one tiny detector",
        "seeds 0, 1; labels: truth; codec jpeg-q75-128; no replicates",
    ),
    "coco-infrared": (
        "docs/results/infrared/surface.csv",
        "460 COCO val2017 frames under a synthetic infrared camera, 320 px; YOLOv8s, YOLOv8n",
        (
            "seeds 0, 1, 2; labels: truth; codec jpeg-q75-320; full packages; no replicates; "
            "control: inverting the input alone, without any training, does better (docs/log.md)"
        ),
    ),
    "hituav": (
        "docs/results/hituav/surface.csv",
        (
            "390 real thermal frames from a drone (HIT-UAV, CC BY 4.0), 11 flights "
            "that no upload is from, 320 px; YOLOv8s, YOLOv8n"
        ),
        (
            "seeds 0, 1; labels: truth; codec jpeg-q75-320; packages as small as they can be "
            "(mode auto); fp32; chosen adaptation; 200 bootstrap replicates over flights"
        ),
    ),
}


def main(names: Sequence[str]) -> None:
    for name in names or _ABOUT:
        path, frames, how = _ABOUT[name]
        config, surface = load_config(name), Surface.read(ROOT / path)
        seeds = sorted({int(s) for s in surface.seed})
        file = (ROOT / path).with_name("replicates.npz")
        replicates = Replicates.read(file) if file.is_file() else None
        curves = {}
        for seed in seeds:
            rest = surface.select(surface.seed != seed)
            drawn = None if replicates is None else replicates.of(rest)
            curves[seed] = fit(rest, replicates=60, drawn=drawn)
        about = {
            "licence": "CC0-1.0 (measurements only: no frames, no weights)",
            "evaluated_on": frames,
            "provenance": how,
            "surface": f"{path}, SHA-256 {surface.sha256()}",
        }
        fewest = (config.held_back if name in _FIXED else config).fewest_frames
        table = Table(name, surface, config.link, fewest, curves, replicates, about)
        made = table.write(SHIPPED_TABLES)
        size = sum(f.stat().st_size for f in made.iterdir())
        print(f"{made}: {size / 1e3:.0f} kB")


if __name__ == "__main__":
    main(sys.argv[1:])
