"""The order of a sweep, and what it does when workers die, without any training."""

from __future__ import annotations

import heapq
from collections.abc import Callable
from concurrent.futures import BrokenExecutor, Future
from itertools import count

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from endedge.lab.sweep.cell import Cell
from endedge.lab.sweep.scheduler import Pool, Result, Scheduler, Task, drive


def _never(task: Task) -> Future[list[Result]]:
    raise AssertionError(task)


def _cells(trunks: int, budgets: int) -> list[Cell]:
    return [
        Cell(0, 4 * (t + 1), "jpeg-q75-64", 10 * b + 10)
        for t in range(trunks)
        for b in range(budgets)
    ]


def _answer(task: Task) -> list[Result]:
    return [] if task.trunk else [Result(cell, {"cell": str(cell)}) for cell in task.cells]


def _simulated(
    missing: dict[Cell, str], slots: int, seconds: Callable[[Task], float], *, whole: bool = False
) -> tuple[float, float, list[Cell]]:
    """(makespan, busy time, cells in the order in which they were done) of a simulated pool."""
    scheduler = Scheduler(missing, lambda c: c.frames, Pool(_never, slots, whole), start=True)
    clock, busy, order = 0.0, 0.0, count()
    done: list[Cell] = []
    running: list[tuple[float, int, Task]] = []
    while True:
        while len(running) < slots and (task := scheduler.next()):
            heapq.heappush(running, (clock + seconds(task), next(order), task))
            busy += seconds(task)
        if not running:
            return clock, busy, done
        clock, _, task = heapq.heappop(running)
        done += [] if task.trunk else task.cells
        scheduler.over(task, [])


def _seconds(task: Task) -> float:
    if not task.cells:
        return 2.0
    return float(task.cells[0].frames) if task.trunk else 1.5 * len(task.cells)


@settings(deadline=None)
@given(
    st.integers(1, 6),
    st.integers(1, 5),
    st.integers(1, 8),
    st.booleans(),
    st.randoms(use_true_random=False),
)
def test_every_cell_is_done_once_within_the_bound_of_list_scheduling(
    trunks: int, budgets: int, slots: int, whole: bool, rng: object
) -> None:
    cells = _cells(trunks, budgets)
    stages = ["upload", "teacher", "student", "package", "start", "cell"]
    missing = {c: rng.choice(stages) for c in cells}  # type: ignore[attr-defined]
    makespan, busy, done = _simulated(missing, slots, _seconds, whole=whole)
    assert sorted(map(str, done)) == sorted(map(str, cells))
    chain = 2.0 + 4.0 * trunks + 1.5 * budgets  # start, longest trunk, its leaves one by one
    assert makespan <= busy / slots + chain


def test_longest_trunk_first_and_leaves_are_dealt_out_at_the_end() -> None:
    cells = _cells(3, 4)
    scheduler = Scheduler(
        dict.fromkeys(cells, "upload"), lambda c: c.frames, Pool(_never, 2), start=True
    )
    begin, longest, none = scheduler.next(), scheduler.next(), None
    assert begin == Task()
    assert longest is not None
    assert longest.trunk
    assert longest.cells[0].frames == 12
    scheduler.over(begin, [])
    second = scheduler.next()
    scheduler.over(longest, [])
    assert second is not None
    assert second.cells[0].frames == 8
    leaves = [scheduler.next(), scheduler.next()]  # one trunk waits, two workers: half each
    assert [len(task.cells) if task else 0 for task in leaves] == [2, 1]
    last = scheduler.next()
    assert last is not none


def test_leaves_wait_for_the_evaluation_of_the_start_and_not_for_trunks() -> None:
    cells = _cells(1, 2)
    scheduler = Scheduler(dict.fromkeys(cells, "package"), lambda c: 0, Pool(_never, 4), start=True)
    begin = scheduler.next()
    assert begin == Task()
    assert scheduler.next() is None
    scheduler.over(begin, [])
    assert scheduler.next() == Task((cells[0],)) or scheduler.next() is not None


class _Dying:
    """A pool whose worker dies at the first ``deaths`` attempts at every task."""

    def __init__(self, deaths: int) -> None:
        self.deaths, self.tried = deaths, dict[Task, int]()

    def submit(self, task: Task) -> Future[list[Result]]:
        promise: Future[list[Result]] = Future()
        self.tried[task] = self.tried.get(task, 0) + 1
        if self.tried[task] <= self.deaths:
            promise.set_exception(BrokenExecutor("killed"))
        else:
            promise.set_result(_answer(task))
        return promise


@pytest.mark.parametrize(("deaths", "measured"), [(0, 6), (2, 6), (3, 0)])
def test_an_item_whose_worker_dies_is_tried_again(deaths: int, measured: int) -> None:
    cells = _cells(2, 3)
    pool = Pool(_Dying(deaths).submit, 2)
    heard: list[Result] = []
    scheduler = Scheduler(dict.fromkeys(cells, "teacher"), lambda c: c.frames, pool, start=False)
    drive(scheduler, pool, heard.append, lambda: None)
    assert sum(r.row is not None for r in heard) == measured
    failed = [r for r in heard if r.row is None]
    assert len(failed) == 6 - measured
    assert all("its worker died 3 times (killed)" in r.failure for r in failed)


def test_a_trunk_that_fails_takes_its_cells_along_and_no_others() -> None:
    cells = _cells(2, 2)

    def submit(task: Task) -> Future[list[Result]]:
        promise: Future[list[Result]] = Future()
        if task.trunk and task.cells[0].frames == 8:
            promise.set_result([Result(cell, None, "no") for cell in task.cells])
        elif task.cells[0].frames == 4 and task.trunk:
            promise.set_result([])
        else:
            promise.set_exception(ValueError("odd"))  # an engine's own error: a failure, too
        return promise

    pool, heard = Pool(submit, 1), list[Result]()
    scheduler = Scheduler(dict.fromkeys(cells, "upload"), lambda c: c.frames, pool, start=False)
    drive(scheduler, pool, heard.append, lambda: None)
    assert [r.cell for r in heard] == [cells[2], cells[3], cells[0], cells[1]]
    assert heard[0].failure == "no"
    assert heard[2].failure.startswith("odd (ValueError on ")


def test_what_another_command_is_at_is_put_off_and_not_waited_for() -> None:
    cells = _cells(3, 2)
    asked: list[Task] = []

    def submit(task: Task) -> Future[list[Result]]:
        promise: Future[list[Result]] = Future()
        asked.append(task)
        busy = asked.count(task) == 1 and (
            not task.cells or (task.trunk and task.cells[0].frames == 12) or cells[0] in task.cells
        )
        results = [Result(c, busy=True) for c in task.cells or (None,)] if busy else _answer(task)
        promise.set_result(results)
        return promise

    pool, heard = Pool(submit, 1), list[Result]()
    scheduler = Scheduler(dict.fromkeys(cells, "upload"), lambda c: c.frames, pool, start=True)
    drive(scheduler, pool, heard.append, lambda: None)
    assert sorted(str(r.cell) for r in heard) == sorted(map(str, cells))
    assert all(r.row for r in heard)
    again = [task for task in asked if asked.count(task) == 2]
    first = [asked.index(task) for task in again]
    others = [i for i, task in enumerate(asked) if task not in again and task.trunk]
    assert min(first) == 0
    assert max(others) < min(i for i, task in enumerate(asked) if task in asked[:i])
