"""How long `endedge bench` takes on a large table: 20 uploads x 32 budgets x 5 seeds by default.

    python -m benchmarks.bench_size [--uploads 20] [--budgets 32] [--seeds 5]

Cells are drawn from a known surface, so nothing is trained; curves are fitted and kept before the
clock starts, as a table keeps them. Processor and wall seconds, imports left out: `score`, what
`endedge bench TABLE` runs, and `bench_folder`, what `endedge bench DIR` writes, without studies.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import yaml

from endedge.allocator import Joint, Kind, fit
from endedge.allocator.fitting.synthetic import sample_surface
from endedge.lab.benchmark.score import score
from endedge.lab.benchmark.stage import bench_folder
from endedge.lab.benchmark.table import Table
from endedge.lab.config import config_of

TRUTH = Joint(Kind("share", "power", "hill"), 0.11, 0.08, 0.13, 3e5, 0.9, 1e5, 2.5)


def write(folder: Path, uploads: int, budgets: int, seeds: int) -> int:
    """A results folder without rounds; how many cells it has."""
    frames = np.unique(np.geomspace(16, 1024, uploads).astype(int)).tolist()
    sizes = np.geomspace(3e4, 1e6, budgets).round().tolist()
    surface = sample_surface(
        TRUTH, np.random.default_rng(0), seeds=seeds, frames=frames, budgets=sizes
    )
    surface.write(folder / "surface.csv")
    fit(surface, kinds=[TRUTH.kind], replicates=60).save(folder / "curves.json")
    config = {
        "name": "large",
        "seeds": list(range(seeds)),
        "weights": {"teacher": "none.pt", "student": "none.pt"},
        "data": {"root": "."},
        "uplink": {"frames": frames},
        "teacher": {},
        "student": {},
        "downlink": {"budgets_bytes": [int(s) for s in sizes]},
        "benchmark": {"studies": False},
    }
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    return len(surface)


def timed(what: str, work: Callable[[], object]) -> None:
    """Run ``work`` once and print what it took."""
    cpu, wall = time.process_time(), time.perf_counter()
    work()
    print(
        f"{what:28} {time.process_time() - cpu:6.1f} s of processor, "
        f"{time.perf_counter() - wall:6.1f} s"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--uploads", type=int, default=20)
    parser.add_argument("--budgets", type=int, default=32)
    parser.add_argument("--seeds", type=int, default=5)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        cells = write(folder, args.uploads, args.budgets, args.seeds)
        print(f"{cells} cells")
        timed("curves for each seed (once)", lambda: Table.load(folder))
        timed("read", lambda: Table.load(folder))
        table = Table.load(folder)
        timed("score", lambda: score(table))
        config = config_of(folder)
        timed("bench_folder", lambda: bench_folder(folder, config, lambda *_: None))


if __name__ == "__main__":
    main()
