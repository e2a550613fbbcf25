"""What is left of a sweep and in which order: a small graph whose nodes are shared.

All budgets of one upload and seed share its teacher and its student (the *trunk*), so those
come first and once; the budgets (*leaves*) are then independent of each other. Longest trunk
first: a list schedule in that order is at most 4/3 of the best one (R. L. Graham, *Bounds on
Multiprocessing Timing Anomalies*, 1969). Leaves go before the next trunk and to the worker that
has just become free, which still holds their upload; when no trunk waits any more they are
dealt out among the workers. What another command on the same folder is making is put off, not
waited for.
"""

from __future__ import annotations

import socket
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, BrokenExecutor, Future, wait
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

from endedge.data.errors import BadInput
from endedge.distill.memory import short_of_memory
from endedge.lab.store import NodeBusy
from endedge.lab.sweep.cell import Cell, CellRunner
from endedge.lab.sweep.precision import step_seconds

__all__ = ["Pool", "Result", "Scheduler", "Task", "drive", "work"]

TRUNK_STAGES = ("upload", "teacher", "student", "pruned")
_PAUSE_S = 0.2
_ATTEMPTS = 3  # of a task whose worker dies; an exception is an answer and not tried again


@dataclass(frozen=True)
class Task:
    """What a worker does in one go: the part that ``cells`` of one upload share (``trunk``), or
    these cells; without cells the evaluation of the detectors as they are, or (``timing``) how
    long a training step takes there in each precision: the ``row`` of the result."""

    cells: tuple[Cell, ...] = ()
    trunk: bool = False
    timing: bool = False


@dataclass(frozen=True)
class Result:
    """A cell that was measured (``row``), that another process is at (``busy``), or that failed
    (``failure``: one line, ``trace``; or bad input, which is nobody's bug)."""

    cell: Cell | None
    row: dict[str, Any] | None = None
    failure: str = ""
    trace: str = ""
    bad_input: bool = False
    busy: bool = False
    short: bool = False  # a failure, because a GPU's memory was too small


class Pool(NamedTuple):
    """Where tasks run: ``submit`` starts one and promises its results; ``slots`` run at a time;
    ``whole``: a worker is dear to start, so one task is a trunk with all its cells; ``ease`` ends
    workers that wait for work, where they hold memory that others need."""

    submit: Callable[[Task], Future[list[Result]]]
    slots: int
    whole: bool = False
    ease: Callable[[], None] = lambda: None


class Scheduler:
    """``missing``: the first stage that each unfinished cell lacks; ``weight(cell)`` orders
    trunks; ``start``: whether the detectors as they are must be evaluated, too."""

    def __init__(
        self, missing: Mapping[Cell, str], weight: Callable[[Cell], float], pool: Pool, start: bool
    ) -> None:
        self._pool, self._start = pool, start
        trunks: dict[tuple[int, int, str], list[Cell]] = {}
        for cell in missing:
            trunks.setdefault((cell.seed, cell.frames, cell.codec), []).append(cell)
        groups = sorted(trunks.values(), key=lambda cells: weight(cells[0]))
        lacking = [any(missing[c] in TRUNK_STAGES for c in cells) for cells in groups]
        self._trunks = [g for g, lacks in zip(groups, lacking, strict=True) if lacks]
        self._leaves = [g for g, lacks in zip(groups, lacking, strict=True) if not lacks]
        self._evaluating = False
        self._later: list[Task] = []

    def next(self) -> Task | None:
        """The next task; ``None`` when there is nothing, or nothing before others are done."""
        if self._start:
            self._start, self._evaluating = False, True
            return Task()
        if self._leaves and not self._evaluating:
            cells = self._leaves.pop()
            busy = len(self._trunks) >= self._pool.slots
            share = len(cells) if busy or self._pool.whole else -(-len(cells) // self._pool.slots)
            if cells[share:]:
                self._leaves.append(cells[share:])
            return Task(tuple(cells[:share]))
        if self._trunks:
            return Task(tuple(self._trunks.pop()), trunk=not self._pool.whole)
        return self._later.pop(0) if self._later else None

    def over(self, task: Task, results: Sequence[Result]) -> None:
        """``task`` is over; a good trunk's cells are next, what was busy or short of memory comes
        again later."""
        put_off = [r for r in results if r.busy or r.short]
        busy = tuple(r.cell for r in put_off if r.cell is not None)
        if not task.cells:
            self._evaluating = False
        if put_off:
            self._later.append(Task(busy, task.trunk))
        elif task.trunk and not results:
            self._leaves.append(list(task.cells))


def drive(
    scheduler: Scheduler, pool: Pool, on_result: Callable[[Result], None], idle: Callable[[], None]
) -> None:
    """Keep every slot at work until the scheduler is empty; ``on_result`` gets every result, and
    ``idle`` is called now and then meanwhile. A task whose worker dies is tried again; one for
    which a GPU's memory was too small comes again beside half as many others, and fails if it was
    alone."""
    running: dict[Future[list[Result]], Task] = {}
    beside: dict[Future[list[Result]], int] = {}
    room = pool.slots
    attempts: dict[Task, int] = {}
    again: list[Task] = []
    put_off = False
    while True:
        while len(running) < room and (task := again.pop() if again else scheduler.next()):
            future = pool.submit(task)
            running[future], beside[future] = task, room
        if not running:
            return
        over, _ = wait(running, timeout=0.5, return_when=FIRST_COMPLETED)
        for future in over:
            task, were = running.pop(future), beside.pop(future)
            try:
                results = future.result()
            except BrokenExecutor as error:
                attempts[task] = attempts.get(task, 0) + 1
                if attempts[task] < _ATTEMPTS:
                    again.append(task)
                    continue
                reason = f"its worker died {_ATTEMPTS} times ({error}); out of memory?"
                results = [Result(cell, None, reason) for cell in task.cells or (None,)]
            except Exception as error:  # of the engine, or of a worker before its first cell
                results = [_failed(cell, error) for cell in task.cells or (None,)]
            if any(result.short for result in results):
                if were == 1:
                    results = [_alone(result) for result in results]
                else:
                    room = max(1, min(room, were // 2))
                    pool.ease()
            for result in results:
                if not (result.busy or result.short):
                    on_result(result)
            scheduler.over(task, results)
            put_off = any(result.busy for result in results)
            if put_off:
                time.sleep(_PAUSE_S)  # if all that is left is busy, ask gently
        if not over or put_off:
            idle()


def work(runner: CellRunner, task: Task) -> list[Result]:
    """Do ``task``; what fails is a result."""
    if task.timing:
        return [Result(None, dict(step_seconds(runner.inputs)))]
    if not task.cells or task.trunk:
        try:
            runner.trunk(task.cells[0]) if task.cells else runner.start()
        except NodeBusy:
            return [Result(cell, busy=True) for cell in task.cells or (None,)]
        except Exception as error:
            return [_failed(cell, error) for cell in task.cells or (None,)]
        return []
    results = []
    for cell in task.cells:
        try:
            results.append(Result(cell, runner.measure(cell)))
        except NodeBusy:
            results.append(Result(cell, busy=True))
        except Exception as error:
            results.append(_failed(cell, error))
    return results


def _alone(result: Result) -> Result:
    """A failure for good of what was ``short`` of memory with no other worker beside it."""
    if not result.short:
        return result
    says = f"{result.failure}: with no other worker beside it; a smaller batch would fit"
    return replace(result, short=False, failure=says)


def _failed(cell: Cell | None, error: Exception) -> Result:
    says = " ".join(str(error).split()) or "no message"
    where = f"{type(error).__name__} on {socket.gethostname()}, {time.strftime('%F %T')}"
    bad = isinstance(error, BadInput)
    says = says if bad else f"{says} ({where})"
    return Result(cell, None, says, traceback.format_exc(), bad, short=short_of_memory(error))
