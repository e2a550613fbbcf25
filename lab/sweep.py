"""The grid of an experiment, measured by several processes on one folder."""

from __future__ import annotations

import csv
import io
import json
import multiprocessing
import os
import queue
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from endedge.lab.cell import Cell, Rounds
from endedge.lab.config import Config
from endedge.lab.store import Store, write_atomic
from endedge.lab.world import World, pick_device

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


def sweep(config: Config, folder: Path, progress: Progress) -> list[dict[str, Any]]:
    """Measure every cell of the grid that ``folder`` does not hold yet; return all rows.

    Cells of one upload and seed share their trainings and go to one worker, the longest
    first. ``progress(done, total, message)`` hears of each cell and of what is being done. A
    cell's file appears when it is measured, so an interrupted sweep goes on where it was.
    Raises what the first failing cell raised, after the others are done.
    """
    cells = grid(config)
    tasks: dict[tuple[int, int, str], list[Cell]] = {}
    for cell in cells:
        tasks.setdefault((cell.seed, cell.frames, cell.codec), []).append(cell)
    ordered = sorted(tasks.values(), key=lambda t: (-t[0].frames, t[0].seed))
    workers = min(_workers(config), len(ordered))
    rows: dict[Cell, dict[str, Any]] = {}
    failures: list[BaseException] = []
    context = multiprocessing.get_context("spawn")
    with (
        context.Manager() as manager,
        ProcessPoolExecutor(
            workers, context, initializer=_begin, initargs=(config, str(folder))
        ) as pool,
    ):
        news = manager.Queue()
        waiting: set[Future[list[dict[str, Any]]]] = {
            pool.submit(_measure, task, news) for task in ordered
        }
        while waiting:
            try:
                kind, content = news.get(timeout=0.5)
            except queue.Empty:
                kind, content = "", None
            if kind == "row":
                rows[Cell(**content[0])] = content[1]
                progress(
                    len(rows),
                    len(cells),
                    str(Cell(**content[0])) + f": mAP {content[1]['map']:.3f}",
                )
            elif kind == "say":
                progress(len(rows), len(cells), content)
            else:
                over = {f for f in waiting if f.done()}
                failures += [e for f in over if (e := f.exception()) is not None]
                waiting -= over
    if failures:
        raise failures[0]
    return [rows[cell] for cell in cells]


_worker: Rounds | None = None


def _begin(config: Config, folder: str) -> None:
    global _worker
    # One thread each: results then do not depend on the number of workers or cores.
    torch.set_num_threads(1)
    world = World.of(config, Path(folder))
    _worker = Rounds(world, Store(Path(folder)), lambda message: None)


def _measure(cells: Sequence[Cell], news: Any) -> list[dict[str, Any]]:
    assert _worker is not None
    _worker.say = lambda message: news.put(("say", message))
    rows = []
    for cell in cells:
        row = _worker.measure(cell)
        write_atomic(
            _worker.store.folder / "cells" / f"{row['cell'].removeprefix('cell-')}.json",
            json.dumps(row, indent=1),
        )
        rows.append(row)
        news.put(("row", (asdict(cell), row)))
    return rows


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
