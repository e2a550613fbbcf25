"""The grid of an experiment, measured by several processes on one folder."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from endedge.data.storage import write_atomic
from endedge.lab.cell import Cell, Rounds
from endedge.lab.config import Config
from endedge.lab.store import Store
from endedge.lab.workers import how_many, in_processes, one_thread
from endedge.lab.world import World

__all__ = ["grid", "surface_csv", "sweep"]

Progress = Callable[[int, int, str], None]


def grid(config: Config) -> list[Cell]:
    """All cells, budgets innermost."""
    return [
        Cell(seed, frames, codec, budget)
        for seed in config.seeds
        for frames in config.uplink.frames
        for codec in config.uplink.codecs
        for budget in config.downlink.budgets_bytes
    ]


def sweep(
    config: Config, folder: Path, progress: Progress, cells: Sequence[Cell] | None = None
) -> list[dict[str, Any]]:
    """Measure the ``cells`` (all of the grid) that ``folder`` does not hold yet; return all rows.

    Cells of one upload and seed share their trainings and go to one worker; seed by seed, so
    that what there is of an unfinished sweep is a grid, the longest first.
    ``progress(done, total, message)`` hears of each cell and of what is being done. A cell's
    file appears when it is measured, so an interrupted sweep goes on where it was.
    Raises what the first failing cell raised.
    """
    world = World.of(config, folder)  # bad input shows here, before any process is started
    cells = grid(config) if cells is None else cells
    tasks: dict[tuple[int, int, str], list[Cell]] = {}
    for cell in cells:
        tasks.setdefault((cell.seed, cell.frames, cell.codec), []).append(cell)
    ordered = sorted(tasks.values(), key=lambda t: (config.seeds.index(t[0].seed), -t[0].frames))
    rows: dict[Cell, dict[str, Any]] = {}

    def hear(news: Cell | str, row: dict[str, Any] | None = None) -> None:
        if isinstance(news, Cell) and row is not None:
            rows[news] = row
            progress(len(rows), len(cells), f"{news}: mAP {row['map']:.3f}")
        else:
            progress(len(rows), len(cells), str(news))

    workers = min(how_many(config), len(ordered))
    if workers == 1:
        with one_thread():
            for task in ordered:
                _measure(Rounds(world, Store(folder), hear), task, hear)
    else:
        in_processes(workers, _begin, (config, str(folder)), _task, ordered, hear)
    return [rows[cell] for cell in cells]


def _measure(rounds: Rounds, cells: Sequence[Cell], hear: Callable[..., None]) -> None:
    for cell in cells:
        row = rounds.measure(cell)
        name = f"{row['cell'].removeprefix('cell-')}.json"
        write_atomic(rounds.store.folder / "cells" / name, json.dumps(row, indent=1).encode())
        hear(cell, row)


_rounds: Rounds | None = None  # of a worker process: the world is loaded once


def _begin(config: Config, folder: str) -> None:
    global _rounds
    _rounds = Rounds(World.of(config, Path(folder)), Store(Path(folder)), lambda message: None)


def _task(cells: Sequence[Cell], news: Any) -> None:
    assert _rounds is not None
    _rounds.say = lambda message: news.put((message,))
    _measure(_rounds, cells, lambda *what: news.put(what))


def surface_csv(rows: Sequence[Mapping[str, Any]]) -> str:
    """The text of ``surface.csv``: one row a cell, in the order of the grid."""
    out = io.StringIO()
    writer = csv.DictWriter(out, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return out.getvalue()
