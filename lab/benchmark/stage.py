"""The benchmark of a results folder: what is there, judged anew, into its files. Without PyTorch:
nothing is trained here, rounds that are made for a decision come from an :class:`Executor`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Protocol

from endedge.allocator import Curves, Points, Split, Surface
from endedge.allocator.csv_files import rows_csv
from endedge.data.errors import BadInput
from endedge.data.storage import write_atomic
from endedge.lab.benchmark.benchmark import (
    BenchmarkRow,
    BenchmarkSetup,
    Decision,
    allocation_csv,
    bandwidths,
    captured,
    executable,
    outcomes,
    rules_of,
    sendable,
    split_sweep,
)
from endedge.lab.benchmark.outcomes import Benchmark
from endedge.lab.benchmark.ranking import RankingRow, standings
from endedge.lab.benchmark.robustness import FILES, Trial, held_out, injected_errors, scenarios
from endedge.lab.config import Config, config_of

__all__ = ["Executor", "bench_folder", "replanned"]

Progress = Callable[[int, int, str], None]


class Executor(Protocol):
    """Rounds made for decisions: the sizes there are (``points``), the one that a split comes
    down to, and all cells after decisions were carried out."""

    @property
    def points(self) -> Points: ...

    def round_down(self, split: Split) -> int | None: ...

    def carry_out(self, decisions: Sequence[Decision], cells: Surface) -> Surface: ...


def replanned(folder: Path, changes: Sequence[str]) -> Config:
    """``config.yaml`` with another link, benchmark or scenarios, which are kept in it, so that the
    report speaks of the same link; the rest was measured as it is. Raises :class:`BadInput`."""
    for change in changes:
        if change.partition(".")[0].partition("=")[0] not in ("link", "benchmark", "scenarios"):
            raise BadInput(
                f"{change!r}: link, benchmark and scenarios can change here; another of the rest "
                "needs another measurement ('endedge measure')"
            )
    changed = config_of(folder, changes)
    if changes:
        write_atomic(folder / "config.yaml", changed.to_yaml().encode())
    return changed


def bench_folder(
    folder: Path,
    config: Config,
    progress: Progress,
    executor: Callable[[Curves], Executor] | None = None,
) -> Path:
    """Curves and surface → ``allocation.csv``, ``benchmark.csv``, ``standings.csv`` and the
    studies, under the link of ``config``; decisions come down to measured rounds, or are carried
    out by ``executor``. Returns ``benchmark.csv``."""
    link = config.link
    surface, curves = Surface.read(folder / "surface.csv"), Curves.load(folder / "curves.json")
    cells = captured(surface, link)
    able = sendable(cells, config.fewest_frames)
    rules, sweep_hz = rules_of(link, surface), bandwidths(able, link, curves)
    points = Points.of(able)
    setup = BenchmarkSetup(curves, link, executable(rules, points), sweep_hz, points)
    allocations = split_sweep(curves, link, setup.rules, sweep_hz)
    write_atomic(folder / "allocation.csv", allocation_csv(allocations).encode())

    if executor is not None:
        made = executor(curves)
        limits = executable(rules, made.points)
        setup = replace(setup, options=made.points, round_down=made.round_down, rules=limits)
        decisions = setup.decisions()
        cells = made.carry_out(decisions, cells)
    else:
        decisions = setup.decisions()
        (folder / "executed.csv").unlink(missing_ok=True)
    rows = outcomes(setup, cells, decisions)
    write_atomic(folder / "benchmark.csv", rows_csv(BenchmarkRow, rows).encode())
    who_wins = standings(Benchmark.read(folder / "benchmark.csv"))
    write_atomic(folder / "standings.csv", rows_csv(RankingRow, who_wins).encode())
    on_grid = replace(setup, options=points, round_down=None, rules=executable(rules, points))
    _studies(config, folder, progress, on_grid, surface)
    return folder / "benchmark.csv"


def _studies(
    config: Config, folder: Path, progress: Progress, setup: BenchmarkSetup, surface: Surface
) -> None:
    """What the benchmark rests on → ``heldout.csv``, ``errors.csv``, ``scenarios.csv``; on the
    measured grid, whose rounds are there."""

    def say(message: str) -> None:
        progress(0, 1, message)

    by_file = {"scenarios.csv": scenarios(config, surface, setup.curves, say)}
    if config.benchmark.studies:
        cells, draws = captured(surface, config.link), config.benchmark.error_draws
        by_file["heldout.csv"] = held_out(
            cells, config.link, setup.bandwidths_hz, say, config.fewest_frames
        )
        by_file["errors.csv"] = injected_errors(setup, cells, draws, say)
    for name in FILES:
        if trials := by_file.get(name):
            write_atomic(folder / name, rows_csv(Trial, trials).encode())
        else:
            (folder / name).unlink(missing_ok=True)
