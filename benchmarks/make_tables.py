"""Make the tables that come with the package from the published surfaces.

    python -m benchmarks.make_tables

Anybody's results folder becomes one by ``Table.load(DIR).write(...)`` with a licence and a
provenance (docs/benchmark.md).
"""

from __future__ import annotations

from pathlib import Path

from endedge.allocator import Surface, fit
from endedge.lab.benchmark.table import SHIPPED_TABLES, Table
from endedge.lab.config import load_config

ROOT = Path(__file__).parent.parent
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
}


def main() -> None:
    for name, (path, frames, how) in _ABOUT.items():
        config, surface = load_config(name), Surface.read(ROOT / path)
        seeds = sorted({int(s) for s in surface.seed})
        curves = {s: fit(surface.select(surface.seed != s), replicates=60) for s in seeds}
        about = {
            "licence": "CC0-1.0 (measurements only: no frames, no weights)",
            "evaluated_on": frames,
            "provenance": how,
            "surface": f"{path}, SHA-256 {surface.sha256()}",
        }
        fewest = config.held_back.fewest_frames  # both were measured with the fixed adaptation
        made = Table(name, surface, config.link, fewest, curves, None, about).write(SHIPPED_TABLES)
        size = sum(f.stat().st_size for f in made.iterdir())
        print(f"{made}: {size / 1e3:.0f} kB")


if __name__ == "__main__":
    main()
