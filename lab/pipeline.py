"""The main job and its stages: measure → fit → allocate → benchmark → report.

Each stage reads what the one before left in the results folder and writes its own file, so
any of them can be run again alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from endedge.allocator import Curves, Points, Split, Surface, fit
from endedge.allocator.csv_files import dicts_csv
from endedge.data.errors import BadInput
from endedge.data.storage import write_atomic
from endedge.lab.benchmark.benchmark import Decision
from endedge.lab.benchmark.exact import Ladder, cells_of
from endedge.lab.benchmark.stage import bench_folder, replanned
from endedge.lab.config import Config
from endedge.lab.inputs import Inputs
from endedge.lab.report.class_table import class_rows, write_classes
from endedge.lab.report.compare import write_comparison
from endedge.lab.report.page import write_report
from endedge.lab.report.results import Results
from endedge.lab.store import Node, Store
from endedge.lab.sweep.adaptive import adaptive_sweep
from endedge.lab.sweep.cell import CellRunner
from endedge.lab.sweep.grid import Progress, decided, grid, sweep
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
    ``classes.csv``, ``examples.json``; with ``width`` (mAP) only the cells that the allocation
    needs for so narrow a regret. Raises :class:`BadInput` for levels of upload from which no
    update could be sent."""
    if folder.exists() and not folder.is_dir():
        raise BadInput(f"--out {folder} is a file; give a folder")
    _check_levels(config)
    config = decided(config, folder)
    if width is None:
        rows = sweep(config, folder, progress)
    else:
        rows = adaptive_sweep(config, folder, progress, width)
    write_atomic(folder / "surface.csv", dicts_csv(rows).encode())
    inputs = Inputs.of(config, folder)
    before = CellRunner(inputs, Store(folder), lambda message: None).start()
    _replicates(before, folder, [str(row["cell"]) for row in rows])
    _classes(before, folder, rows)
    _examples(inputs, folder, progress)
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


def _classes(before: Node, folder: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """What was evaluated, class by class → ``classes.csv``; not of cells of an older version."""
    store = Store(folder)
    cells = [(row, store.open(str(row["cell"]))) for row in rows]
    found = [r for row, cell in cells if cell for r in class_rows(row, before.record, cell.record)]
    write_classes(folder, found)


def _examples(inputs: Inputs, folder: Path, progress: Progress) -> None:
    """The largest round on some frames → ``examples.json``; none when nothing was sent."""
    cells, seeds = grid(inputs.config), inputs.config.seeds
    largest = max(cells, key=lambda c: (c.frames, c.budget_bytes, -seeds.index(c.seed)))
    with one_thread():
        runner = CellRunner(
            inputs,
            Store(folder),
            lambda message: progress(len(cells), len(cells), message),
        )
        node = runner.examples(largest)
    (folder / "examples.json").unlink(missing_ok=True)
    if node is not None:
        write_atomic(folder / "examples.json", (node.folder / "examples.json").read_bytes())


def _replicates(before: Node, folder: Path, cells: Sequence[str]) -> None:
    """mAP of all ``cells`` on the same draws of the evaluation frames → ``replicates.npz``."""
    found = Replicates.gathered(folder / "nodes", before.key, before.record["groups"], cells)
    found.write(folder / "replicates.npz")


def fit_stage(folder: Path) -> Curves:
    """``surface.csv`` (and ``replicates.npz``, where it is there) → ``curves.json``."""
    surface, draws = Surface.read(folder / "surface.csv"), folder / "replicates.npz"
    drawn = Replicates.read(draws).of(surface) if draws.is_file() else None
    curves = fit(surface, drawn=drawn)
    curves.save(folder / "curves.json")
    return curves


def bench_stage(
    folder: Path, progress: Progress, *, exact: bool = False, changes: Sequence[str] = ()
) -> Path:
    """Curves and surface → ``allocation.csv``, ``benchmark.csv`` and the studies
    (:func:`endedge.lab.benchmark.stage.bench_folder`).

    ``exact`` (or the configuration's ``benchmark.execute``) trains and packs what the policies
    decided → ``executed.csv``; resumes, as measuring does. ``changes`` to the configuration
    (``link.period_s=30``) are kept in ``config.yaml``, so that the report speaks of the same link.
    Raises :class:`BadInput` for one of what was measured.
    """
    config = replanned(folder, changes)
    if not exact and config.benchmark.execute == "measured":
        return bench_folder(folder, config, progress)
    return bench_folder(
        folder, config, progress, lambda c: _Exactly.of(config, folder, progress, c)
    )


@dataclass(frozen=True)
class _Exactly:
    """Trains, packs and evaluates what was decided, on a ladder of sizes."""

    config: Config
    folder: Path
    progress: Progress
    ladder: Ladder

    @classmethod
    def of(cls, config: Config, folder: Path, progress: Progress, curves: Curves) -> _Exactly:
        ladder = Ladder.of(config, Inputs.of(config, folder), folder, curves)
        return cls(config, folder, progress, ladder)

    @property
    def points(self) -> Points:
        return self.ladder.points

    def round_down(self, split: Split) -> int | None:
        return self.ladder.round_down(split)

    def carry_out(self, decisions: Sequence[Decision], cells: Surface) -> Surface:
        """Run the rounds of ``decisions`` → ``executed.csv``; all measured cells and these."""
        config, folder = self.config, self.folder
        needed, measured = cells_of(decisions, config.seeds), set(grid(config))
        more = [cell for cell in needed if cell not in measured]
        trainings = {(c.seed, c.frames, c.codec) for c in more} - {
            (c.seed, c.frames, c.codec) for c in measured
        }
        said = f"{len(more)} rounds beyond the grid, {len(trainings)} trainings"
        self.progress(0, len(more) or 1, said)
        if not more:
            return cells
        rows = sweep(config, folder, self.progress, more)
        write_atomic(folder / "executed.csv", dicts_csv(rows).encode())
        every = Surface.read(folder / "surface.csv").joined(Surface.from_rows(rows))
        before = CellRunner(Inputs.of(config, folder), Store(folder), lambda message: None).start()
        _replicates(before, folder, [str(name) for name in every.cell])
        return cells.joined(Surface.from_rows(rows))


def report_stage(
    where: str | Path,
    out: Path | None = None,
    *,
    changes: Sequence[str] = (),
    progress: Progress = lambda done, total, message: None,
) -> Path:
    """Everything in a results folder → its ``report.html`` (or ``out``), of a shipped table →
    ``out``, or ``report.html`` here; with ``changes`` (of the link, say) it is benchmarked anew
    first."""
    folder = Path(where)
    target = out or (folder / "report.html" if folder.is_dir() else Path("report.html"))
    return write_report(_found(where, changes, progress), target)


def compare_stage(
    places: Sequence[str | Path],
    out: Path,
    *,
    changes: Sequence[str] = (),
    progress: Progress = lambda done, total, message: None,
) -> Path:
    """Several results folders or shipped tables → one page that lays them side by side, each
    benchmarked anew first where there are ``changes``."""
    found = {str(place): _found(place, changes, progress) for place in places}
    return write_comparison(found, out)


def _found(where: str | Path, changes: Sequence[str], progress: Progress) -> Results:
    if changes and Path(where).is_dir():
        bench_stage(Path(where), progress, changes=changes)
        return Results.find(where)
    return Results.find(where, changes)
