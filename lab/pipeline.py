"""The main job and its stages: measure → fit → allocate → benchmark → report.

Each stage reads what the one before left in the results folder and writes its own file, so
any of them can be run again alone.
"""

from __future__ import annotations

import runpy
from collections.abc import Sequence
from pathlib import Path

from endedge.allocator import Curves, Points, Rules, Surface, fit, registry
from endedge.data.storage import write_atomic
from endedge.data.units import BadInput
from endedge.lab.benchmark import (
    allocation_csv,
    bandwidths,
    benchmark,
    executable,
    outcomes_csv,
    split_sweep,
)
from endedge.lab.cell import Rounds
from endedge.lab.compare import write_comparison
from endedge.lab.config import Config, load_config
from endedge.lab.report import write_report
from endedge.lab.results import Results
from endedge.lab.store import Store
from endedge.lab.sweep import Progress, grid, one_thread, surface_csv, sweep
from endedge.lab.world import World

__all__ = [
    "bench_stage", "compare_stage", "fit_stage", "measure_stage", "own_policies", "report_stage",
    "run",
]  # fmt: skip


def run(config: Config, folder: Path, progress: Progress) -> Path:
    """The whole main job; returns the report. Run again, it resumes."""
    measure_stage(config, folder, progress)
    fit_stage(folder)
    bench_stage(folder)
    return report_stage(folder)


def measure_stage(config: Config, folder: Path, progress: Progress) -> Path:
    """Measure the grid → ``config.yaml``, ``cells/``, ``surface.csv``,
    ``examples.json``."""
    if folder.exists() and not folder.is_dir():
        raise BadInput(f"--out {folder} is a file; give a folder")
    rows = sweep(config, folder, progress)
    write_atomic(folder / "config.yaml", config.to_yaml().encode())
    write_atomic(folder / "surface.csv", surface_csv(rows).encode())
    _examples(config, folder, progress)
    return folder / "surface.csv"


def _examples(config: Config, folder: Path, progress: Progress) -> None:
    """The largest round on a few frames → ``examples.json``; none when nothing was sent."""
    cells = grid(config)
    largest = max(cells, key=lambda c: (c.frames, c.budget_bytes, -config.seeds.index(c.seed)))
    with one_thread():
        rounds = Rounds(
            World.of(config, folder), Store(folder),
            lambda message: progress(len(cells), len(cells), message),
        )  # fmt: skip
        node = rounds.examples(largest)
    (folder / "examples.json").unlink(missing_ok=True)
    if node is not None:
        write_atomic(folder / "examples.json", (node.folder / "examples.json").read_bytes())


def fit_stage(folder: Path) -> Curves:
    """``surface.csv`` → ``curves.json``."""
    curves = fit(Surface.read(folder / "surface.csv"))
    curves.save(folder / "curves.json")
    return curves


def bench_stage(folder: Path) -> Path:
    """Curves and surface → ``allocation.csv``, ``benchmark.csv``."""
    config, rules = _planned(folder)
    surface, curves = Surface.read(folder / "surface.csv"), Curves.load(folder / "curves.json")
    rules = executable(rules, Points.of(surface))
    sweep_hz = bandwidths(surface, config.link)
    allocations = split_sweep(curves, config.link, rules, sweep_hz)
    write_atomic(folder / "allocation.csv", allocation_csv(allocations).encode())
    outcomes = benchmark(surface, curves, config.link, rules, sweep_hz)
    write_atomic(folder / "benchmark.csv", outcomes_csv(outcomes).encode())
    return folder / "benchmark.csv"


def report_stage(folder: Path, out: Path | None = None) -> Path:
    """Everything in the folder → ``report.html`` (or ``out``)."""
    config, _ = _planned(folder)
    return write_report(folder, config, out)


def compare_stage(folders: Sequence[Path], out: Path) -> Path:
    """Several results folders → one page that lays them side by side."""
    return write_comparison({str(f): Results.read(f, _planned(f)[0]) for f in folders}, out)


def own_policies(file: Path) -> None:
    """Run a Python file of the user's that registers policies (``endedge.allocator.register``).

    Raises :class:`BadInput` when it is not there, does not run, or registers none.
    """
    before = set(registry())
    try:
        runpy.run_path(str(file))
    except BadInput:
        raise
    except Exception as error:
        raise BadInput(f"{file} does not run: {type(error).__name__}: {error}") from None
    if set(registry()) == before:
        raise BadInput(f'{file} registers no policy; decorate one with @register("its-name")')


def _planned(folder: Path) -> tuple[Config, Rules]:
    if not (folder / "config.yaml").is_file():
        raise BadInput(f"{folder} is not a results folder (no config.yaml); run 'endedge measure'")
    config = load_config(folder / "config.yaml")
    return config, Rules(schedule=config.link.schedule)
