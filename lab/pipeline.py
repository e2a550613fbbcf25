"""The main job and its stages: measure → fit → allocate → benchmark → report.

Each stage reads what the one before left in the results folder and writes its own file, so
any of them can be run again alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from endedge.allocator import Curves, Points, Surface, fit
from endedge.data.errors import BadInput
from endedge.data.storage import write_atomic
from endedge.lab.benchmark.benchmark import (
    Contest,
    Decision,
    Outcome,
    allocation_csv,
    bandwidths,
    captured,
    executable,
    outcomes,
    rows_csv,
    rules_of,
    sendable,
    split_sweep,
)
from endedge.lab.benchmark.exact import Ladder, cells_of
from endedge.lab.benchmark.outcomes import Benchmark
from endedge.lab.benchmark.ranking import Standing, standings
from endedge.lab.benchmark.robustness import FILES, Trial, held_out, injected_errors, scenarios
from endedge.lab.config import Config, load_config
from endedge.lab.inputs import World
from endedge.lab.report.compare import write_comparison
from endedge.lab.report.page import write_report
from endedge.lab.report.results import Results
from endedge.lab.store import Store
from endedge.lab.sweep.adaptive import adaptive_sweep
from endedge.lab.sweep.cell import Rounds
from endedge.lab.sweep.grid import Progress, grid, surface_csv, sweep
from endedge.lab.sweep.replicates import Replicates
from endedge.lab.sweep.workers import one_thread

__all__ = [
    "bench_stage",
    "compare_stage",
    "fit_stage",
    "measure_stage",
    "report_stage",
    "run",
]


def run(config: Config, folder: Path, progress: Progress) -> Path:
    """The whole main job; returns the report. Run again, it resumes."""
    measure_stage(config, folder, progress)
    fit_stage(folder)
    bench_stage(folder, progress)
    return report_stage(folder)


def measure_stage(
    config: Config, folder: Path, progress: Progress, width: float | None = None
) -> Path:
    """Measure the grid → ``config.yaml``, ``cells/``, ``surface.csv``, ``replicates.npz``,
    ``examples.json``; with
    ``width`` (mAP) only the cells that the allocation needs for so narrow a regret. Raises
    :class:`BadInput` for levels of upload from which no update could be sent."""
    if folder.exists() and not folder.is_dir():
        raise BadInput(f"--out {folder} is a file; give a folder")
    _check_levels(config)
    if width is None:
        rows = sweep(config, folder, progress)
    else:
        rows = adaptive_sweep(config, folder, progress, width)
    write_atomic(folder / "surface.csv", surface_csv(rows).encode())
    _replicates(config, folder, [str(row["cell"]) for row in rows])
    _examples(config, folder, progress)
    return folder / "surface.csv"


def _check_levels(config: Config) -> None:
    """Raises :class:`BadInput` for uploads whose updates would all be made and none be sent."""
    fewest, held = config.fewest_frames, config.held_back
    if fewest == 0:
        raise BadInput(
            f"held_back.least asks for {held.least} frames to judge an update by and "
            f"held_back.most holds back {held.most}: none would ever be sent"
        )
    if (low := min(config.uplink.frames)) < fewest:
        raise BadInput(
            f"uplink.frames: of {low} frames too few are held back to judge an update by "
            f"(held_back.least is {held.least}), so none would ever be sent; give at least "
            f"{fewest}, a lower held_back.least, or adaptation.policy=chosen"
        )


def _examples(config: Config, folder: Path, progress: Progress) -> None:
    """The largest round on a few frames → ``examples.json``; none when nothing was sent."""
    cells = grid(config)
    largest = max(cells, key=lambda c: (c.frames, c.budget_bytes, -config.seeds.index(c.seed)))
    with one_thread():
        rounds = Rounds(
            World.of(config, folder),
            Store(folder),
            lambda message: progress(len(cells), len(cells), message),
        )
        node = rounds.examples(largest)
    (folder / "examples.json").unlink(missing_ok=True)
    if node is not None:
        write_atomic(folder / "examples.json", (node.folder / "examples.json").read_bytes())


def _replicates(config: Config, folder: Path, cells: Sequence[str]) -> None:
    """mAP of all ``cells`` on the same draws of the evaluation frames → ``replicates.npz``."""
    start = Rounds(World.of(config, folder), Store(folder), lambda message: None).start()
    found = Replicates.gathered(folder / "nodes", start.key, start.record["groups"], cells)
    found.write(folder / "replicates.npz")


def fit_stage(folder: Path) -> Curves:
    """``surface.csv`` → ``curves.json``."""
    curves = fit(Surface.read(folder / "surface.csv"))
    curves.save(folder / "curves.json")
    return curves


def bench_stage(
    folder: Path, progress: Progress, *, exact: bool = False, changes: Sequence[str] = ()
) -> Path:
    """Curves and surface → ``allocation.csv``, ``benchmark.csv`` and the studies.

    ``exact`` (or the configuration's ``benchmark.execute``) trains and packs what the policies
    decided → ``executed.csv``; resumes, as measuring does. ``changes`` to the configuration
    (``link.period_s=30``) are kept in ``config.yaml``, so that the report speaks of the same link.
    Raises :class:`BadInput` for one of what was measured.
    """
    config = _planned(folder)
    if changes:
        config = _replanned(folder, config, changes)
    link = config.link
    surface, curves = Surface.read(folder / "surface.csv"), Curves.load(folder / "curves.json")
    cells = captured(surface, link)
    rules, sweep_hz = (
        rules_of(link, surface),
        bandwidths(sendable(cells, config.fewest_frames), link, curves),
    )
    points = Points.of(sendable(cells, config.fewest_frames))
    contest = Contest(curves, link, executable(rules, points), sweep_hz, points)
    allocations = split_sweep(curves, link, contest.rules, sweep_hz)
    write_atomic(folder / "allocation.csv", allocation_csv(allocations).encode())

    if exact or config.benchmark.execute == "exact":
        ladder = Ladder.of(config, World.of(config, folder), folder, curves)
        contest = replace(
            contest,
            options=ladder.points,
            rounds=ladder.rounds,
            rules=executable(rules, ladder.points),
        )
        decisions = contest.decisions()
        cells = _executed(config, folder, progress, decisions, cells)
    else:
        decisions = contest.decisions()
        (folder / "executed.csv").unlink(missing_ok=True)
    found = outcomes(contest, cells, decisions)
    write_atomic(folder / "benchmark.csv", rows_csv(Outcome, found).encode())
    who_wins = standings(Benchmark.read(folder / "benchmark.csv"))
    write_atomic(folder / "standings.csv", rows_csv(Standing, who_wins).encode())
    on_grid = replace(contest, options=points, rounds=None, rules=executable(rules, points))
    _studies(config, folder, progress, on_grid, surface)
    return folder / "benchmark.csv"


def _studies(
    config: Config, folder: Path, progress: Progress, contest: Contest, surface: Surface
) -> None:
    """What the benchmark rests on → ``heldout.csv``, ``errors.csv``, ``scenarios.csv``; on the
    measured grid, whose rounds are there."""

    def say(message: str) -> None:
        progress(0, 1, message)

    found = {"scenarios.csv": scenarios(config, surface, contest.curves, say)}
    if config.benchmark.studies:
        cells, draws = captured(surface, config.link), config.benchmark.error_draws
        found["heldout.csv"] = held_out(
            cells, config.link, contest.bandwidths_hz, say, config.fewest_frames
        )
        found["errors.csv"] = injected_errors(contest, cells, draws, say)
    for name in FILES:
        if trials := found.get(name):
            write_atomic(folder / name, rows_csv(Trial, trials).encode())
        else:
            (folder / name).unlink(missing_ok=True)


def _executed(
    config: Config, folder: Path, progress: Progress, decisions: Sequence[Decision], cells: Surface
) -> Surface:
    """Run the rounds of ``decisions`` → ``executed.csv``; all measured cells and these."""
    needed, measured = cells_of(decisions, config.seeds), set(grid(config))
    more = [cell for cell in needed if cell not in measured]
    trainings = {(c.seed, c.frames, c.codec) for c in more} - {
        (c.seed, c.frames, c.codec) for c in measured
    }
    progress(0, len(more) or 1, f"{len(more)} rounds beyond the grid, {len(trainings)} trainings")
    if not more:
        return cells
    rows = sweep(config, folder, progress, more)
    write_atomic(folder / "executed.csv", surface_csv(rows).encode())
    measured_too = Surface.read(folder / "surface.csv").joined(Surface.from_rows(rows))
    _replicates(config, folder, [str(name) for name in measured_too.cell])
    return cells.joined(Surface.from_rows(rows))


def report_stage(folder: Path, out: Path | None = None) -> Path:
    """Everything in the folder → ``report.html`` (or ``out``)."""
    return write_report(folder, _planned(folder), out)


def compare_stage(folders: Sequence[Path], out: Path) -> Path:
    """Several results folders → one page that lays them side by side."""
    return write_comparison({str(f): Results.read(f, _planned(f)) for f in folders}, out)


def _replanned(folder: Path, config: Config, changes: Sequence[str]) -> Config:
    """``config.yaml`` with another link, benchmark or scenarios; the rest was measured as it is."""
    for change in changes:
        if change.partition(".")[0].partition("=")[0] not in ("link", "benchmark", "scenarios"):
            raise BadInput(
                f"{change!r}: link, benchmark and scenarios can change here; another of the rest "
                "needs another measurement ('endedge measure')"
            )
    changed = load_config(folder / "config.yaml", changes)
    write_atomic(folder / "config.yaml", changed.to_yaml().encode())
    return changed


def _planned(folder: Path) -> Config:
    if not (folder / "config.yaml").is_file():
        raise BadInput(f"{folder} is not a results folder (no config.yaml); run 'endedge measure'")
    return load_config(folder / "config.yaml")
