"""The grid of an experiment, measured on one folder by whichever engine."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

from endedge.data.errors import BadInput, Unfinished
from endedge.data.storage import write_atomic
from endedge.lab.config import Config
from endedge.lab.inputs import Inputs
from endedge.lab.store import Missing, Node, Peek, Store, digest
from endedge.lab.sweep.cell import Cell, CellRunner
from endedge.lab.sweep.executors import SweepJob, engine_of
from endedge.lab.sweep.precision import Paces, settled, warn_if_slow
from endedge.lab.sweep.scheduler import Result, Scheduler, Task, drive

__all__ = ["Survey", "decided", "failure_file", "grid", "length", "sweep"]

Progress = Callable[[int, int, str], None]


def grid(config: Config) -> list[Cell]:
    """All cells, budgets innermost."""
    return [
        Cell(seed, frames, codec, budget)
        for seed in config.seeds
        for frames in config.uplink.frames
        for codec in config.uplink.codecs
        for budget in config.downlink.budgets
    ]


class Survey:
    """What a results folder holds of a grid: ``rows`` of measured cells, and of every other cell
    the first stage that is ``missing``."""

    def __init__(
        self, inputs: Inputs, folder: Path, cells: Iterable[Cell], store: Peek | None = None
    ) -> None:
        self._store = store or Peek(folder)
        runner = CellRunner(inputs, self._store, lambda message: None)
        self.rows: dict[Cell, dict[str, Any]] = {}
        self.missing: dict[Cell, str] = {}
        for cell in cells:
            try:
                self.rows[cell] = runner.measure(cell)
            except Missing as absent:
                self.missing[cell] = absent.stage
        try:
            runner.start()
            self.started = True
        except Missing:
            self.started = False

    @property
    def nodes(self) -> list[Node]:
        """The finished nodes of these cells."""
        return self._store.seen


def sweep(
    config: Config, folder: Path, progress: Progress, cells: Sequence[Cell] | None = None
) -> list[dict[str, Any]]:
    """Measure the ``cells`` (all of the grid) that ``folder`` does not hold yet; return all rows.

    ``progress(done, total, message)`` hears of each cell and of what is being done. A cell's
    file appears when it is measured, so an interrupted sweep goes on where it was. A cell that
    fails is written down with its reason (``failed/``) and the others go on.
    Raises :class:`Unfinished` at the end if any did (:class:`BadInput` if all of it was that).
    """
    inputs = Inputs.of(config, folder)  # bad input shows here, before any process is started
    write_atomic(folder / "config.yaml", config.to_yaml().encode())
    cells = grid(config) if cells is None else cells
    found = Survey(inputs, folder, cells)
    failed: list[Result] = []

    def on_result(result: Result) -> None:
        if result.row is None:
            failed.append(result)
            says = f"{result.cell or 'evaluation of the detectors as they are'} failed"
            progress(len(found.rows), len(cells), f"{says}: {result.failure}")
        elif result.cell is not None:
            found.rows[result.cell] = result.row
            says = f"{result.cell}: mAP {100 * result.row['map']:.1f} %"
            progress(len(found.rows), len(cells), says)
        if result.cell is not None:
            _file(folder, result)

    for cell, row in found.rows.items():  # a killed sweep may have measured it and not said so
        _file(folder, Result(cell, row))
    watched = Store(folder)

    def idle() -> None:
        if running := watched.running():
            rest = f" · and {len(running) - 2} more" if len(running) > 2 else ""
            says = " · ".join(r.says for r in running[:2] if r.says)
            progress(len(found.rows), len(cells), says + rest)

    if found.missing:
        warn_if_slow(config, folder, lambda: _timed(inputs, folder))
        engine, slots = engine_of(config)
        say = lambda message: progress(len(found.rows), len(cells), message)  # noqa: E731
        with engine(SweepJob(inputs, folder, slots, say)) as pool:
            scheduler = Scheduler(
                found.missing, lambda c: length(config, c), pool, not found.started
            )
            drive(scheduler, pool, on_result, idle)
    if failed:
        kind = BadInput if all(result.bad_input for result in failed) else Unfinished
        raise kind(
            f"{len(cells) - len(found.rows)} of {len(cells)} cells failed, the others are "
            f"measured. First: {failed[0].failure} ('endedge status {folder}' lists them, the same "
            "command tries them again)"
        )
    return [found.rows[cell] for cell in cells]


def decided(config: Config, folder: Path) -> Config:
    """``config`` with the precision that ``folder`` has or, by a worker's measurement, gets."""
    return settled(config, folder, lambda: _timed(Inputs.of(config, folder), folder))


def _timed(inputs: Inputs, folder: Path) -> Paces:
    """How long a step takes in each precision on one of the workers."""
    engine, _ = engine_of(inputs.config)
    with engine(SweepJob(inputs, folder, 1, lambda message: None)) as pool:
        [result] = pool.submit(Task(timing=True)).result()
    assert result.row is not None
    return result.row


def failure_file(folder: Path, cell: Cell) -> Path:
    """Where the reason is written down when ``cell`` fails."""
    return folder / "failed" / f"{digest(asdict(cell))}.json"


def _file(folder: Path, result: Result) -> None:
    assert result.cell is not None
    failure = failure_file(folder, result.cell)
    if result.row is None:
        said = {**asdict(result.cell), "reason": result.failure, "trace": result.trace}
        write_atomic(failure, json.dumps(said, indent=1).encode())
        return
    path = folder / "cells" / f"{result.row['cell'].removeprefix('cell-')}.json"
    if not path.is_file():
        write_atomic(path, json.dumps(result.row, indent=1).encode())
    with suppress(FileNotFoundError):
        failure.unlink()


def length(config: Config, cell: Cell) -> float:
    """The length of the trainings of a cell, for comparison only: steps, then frames to encode."""
    steps = (
        config.teacher.recipe(cell.frames, cell.seed).steps
        + config.student.recipe(cell.frames, cell.seed).steps
    )
    return steps + 1e-3 * cell.frames
