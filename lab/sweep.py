"""The grid of an experiment, measured by several processes on one folder."""

from __future__ import annotations

import csv
import io
import json
import multiprocessing
import os
import queue
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import torch

from endedge.data.storage import write_atomic
from endedge.lab.cell import Cell, Rounds
from endedge.lab.config import Config
from endedge.lab.store import Store
from endedge.lab.world import World, pick_device

__all__ = ["grid", "one_thread", "surface_csv", "sweep"]

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

    workers = min(_workers(config), len(ordered))
    if workers == 1:
        with one_thread():
            for task in ordered:
                _measure(Rounds(world, Store(folder), hear), task, hear)
    else:
        _in_processes(workers, config, folder, ordered, hear)
    return [rows[cell] for cell in cells]


def _measure(rounds: Rounds, cells: Sequence[Cell], hear: Callable[..., None]) -> None:
    for cell in cells:
        row = rounds.measure(cell)
        name = f"{row['cell'].removeprefix('cell-')}.json"
        write_atomic(rounds.store.folder / "cells" / name, json.dumps(row, indent=1).encode())
        hear(cell, row)


def _in_processes(
    workers: int,
    config: Config,
    folder: Path,
    tasks: Sequence[Sequence[Cell]],
    hear: Callable[..., None],
) -> None:
    """Tasks in worker processes. Raises what the first failing one raised, after the others."""
    context = multiprocessing.get_context("spawn")
    failures: list[BaseException] = []
    with (
        context.Manager() as manager,
        ProcessPoolExecutor(workers, context, _begin, (config, str(folder))) as pool,
    ):
        news = manager.Queue()
        waiting = {pool.submit(_task, task, news) for task in tasks}
        try:
            while waiting:
                over = {future for future in waiting if future.done()}
                failures += [e for future in over if (e := future.exception()) is not None]
                waiting -= over
                with suppress(queue.Empty):
                    while True:  # all that is there; what a finished task said is there already
                        hear(*news.get(timeout=0.2))
        except KeyboardInterrupt:
            for process in list(pool._processes.values()):
                process.terminate()  # what is half done is lost, nothing else
            raise
    if failures:
        raise failures[0]


_rounds: Rounds | None = None  # of a worker process: the world is loaded once


def _begin(config: Config, folder: str) -> None:
    global _rounds
    threading.Thread(target=_end_with, args=(os.getppid(),), daemon=True).start()
    torch.set_num_threads(1)
    _rounds = Rounds(World.of(config, Path(folder)), Store(Path(folder)), lambda message: None)


def _end_with(parent: int) -> None:
    """A worker whose parent was killed has nobody to report to: it ends at once."""
    while os.getppid() == parent:
        time.sleep(0.5)
    os._exit(1)


def _task(cells: Sequence[Cell], news: Any) -> None:
    assert _rounds is not None
    _rounds.say = lambda message: news.put((message,))
    _measure(_rounds, cells, lambda *what: news.put(what))


@contextmanager
def one_thread() -> Iterator[None]:
    """Results then do not depend on the number of workers or cores."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def _workers(config: Config) -> int:
    if config.workers != "auto":
        return config.workers
    if pick_device(config.device) != "cpu":
        return 1
    return max(1, len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 1)


def surface_csv(rows: Sequence[Mapping[str, Any]]) -> str:
    """The text of ``surface.csv``: one row a cell, in the order of the grid."""
    out = io.StringIO()
    writer = csv.DictWriter(out, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return out.getvalue()
