"""The main job and its stages: measure → fit → allocate → benchmark → report.

Each stage reads what the one before left in the results folder and writes its own file, so
any of them can be run again alone.
"""

from __future__ import annotations

from pathlib import Path

from endedge.allocator import Curves, Points, Rules, Surface, fit
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
from endedge.lab.config import Config, load_config
from endedge.lab.report import write_report
from endedge.lab.sweep import Progress, surface_csv, sweep

__all__ = ["bench_stage", "fit_stage", "measure_stage", "report_stage", "run"]


def run(config: Config, folder: Path, progress: Progress) -> Path:
    """The whole main job; returns the report. Run again, it resumes."""
    measure_stage(config, folder, progress)
    fit_stage(folder)
    bench_stage(folder)
    return report_stage(folder)


def measure_stage(config: Config, folder: Path, progress: Progress) -> Path:
    """Measure the grid → ``config.yaml``, ``cells/``, ``surface.csv``."""
    if folder.exists() and not folder.is_dir():
        raise BadInput(f"--out {folder} is a file; give a folder")
    rows = sweep(config, folder, progress)
    write_atomic(folder / "config.yaml", config.to_yaml().encode())
    write_atomic(folder / "surface.csv", surface_csv(rows).encode())
    return folder / "surface.csv"


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


def report_stage(folder: Path) -> Path:
    """Everything in the folder → ``report.html``."""
    config, _ = _planned(folder)
    return write_report(folder, config)


def _planned(folder: Path) -> tuple[Config, Rules]:
    if not (folder / "config.yaml").is_file():
        raise BadInput(f"{folder} is not a results folder (no config.yaml); run 'endedge measure'")
    config = load_config(folder / "config.yaml")
    return config, Rules(schedule=config.link.schedule)
