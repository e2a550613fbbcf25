"""Independent tasks in several processes that work on one results folder."""

from __future__ import annotations

import multiprocessing
import os
import queue
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager, suppress
from multiprocessing.context import SpawnContext
from typing import Any, TypeAlias

import torch
from threadpoolctl import threadpool_limits

from endedge.lab.config import Config
from endedge.lab.devices import masks

__all__ = [
    "begin_worker",
    "compute_alone",
    "cores",
    "how_many",
    "in_processes",
    "masks_of",
    "one_thread",
]

Masks: TypeAlias = "multiprocessing.queues.SimpleQueue[str]"


def how_many(config: Config) -> int:
    """Processes: as the configuration says; by itself one a core, or ``workers_per_gpu`` on each
    GPU that is seen (on a machine without any, and on a Mac's, so many in all)."""
    if config.workers != "auto":
        return config.workers
    if config.device in ("auto", "cpu"):
        return cores()
    return max(1, len(masks(config.device, 1))) * config.workers_per_gpu


def cores() -> int:
    """That this process may use."""
    return max(1, len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 1)


def masks_of(config: Config, workers: int, context: SpawnContext) -> Masks:
    """For each of ``workers`` which GPU it may see, in turns; '' on other devices. A worker takes
    one as it begins."""
    found = masks(config.device, 1) or [""]
    queue = context.SimpleQueue()
    for k in range(workers):
        queue.put(found[k % len(found)])
    return queue


def in_processes(
    config: Config,
    workers: int,
    begin: Callable[..., None],
    arguments: tuple[Any, ...],
    work: Callable[[Any, Any], None],
    tasks: Sequence[Any],
    on_news: Callable[..., None],
) -> None:
    """Run ``work(task, news)`` for every task, in ``workers`` processes that each see the device
    of ``config`` and called ``begin(*arguments)`` once; ``on_news`` is called here with each tuple
    put into ``news``.

    Raises what the first failing task raised, after the others have ended.
    """
    context = multiprocessing.get_context("spawn")
    masks = masks_of(config, workers, context)
    failures: list[BaseException] = []
    with (
        context.Manager() as manager,
        ProcessPoolExecutor(workers, context, _begin, (masks, begin, arguments)) as pool,
    ):
        news = manager.Queue()
        waiting = {pool.submit(work, task, news) for task in tasks}
        try:
            while waiting:
                over = {future for future in waiting if future.done()}
                failures += [e for future in over if (e := future.exception()) is not None]
                waiting -= over
                with suppress(queue.Empty):
                    while True:  # all that is there; what a finished task said is there already
                        on_news(*news.get(timeout=0.2))
        except KeyboardInterrupt:
            for process in list(pool._processes.values()):
                process.terminate()  # what is half done is lost, nothing else
            raise
    if failures:
        raise failures[0]


def _begin(masks: Masks, begin: Callable[..., None], arguments: tuple[Any, ...]) -> None:
    begin_worker(os.getppid(), masks)
    compute_alone()
    begin(*arguments)


def begin_worker(parent: int, masks: Masks) -> None:
    """For the start of a worker, before it touches a GPU: it takes its mask. Ctrl-C on a terminal
    reaches all processes: the parent ends this one, which says nothing. A worker whose parent was
    killed has nobody to report to: it ends."""
    if mask := masks.get():
        os.environ["CUDA_VISIBLE_DEVICES"] = mask
    signal.signal(signal.SIGINT, signal.SIG_IGN)

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(0.5)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def compute_alone() -> None:
    """For the start of a worker: one thread in PyTorch and in BLAS, whose threads would spin on
    cores that are others' (rounding a package then costs 4 to 9 times the processor time)."""
    torch.set_num_threads(1)
    threadpool_limits(1, user_api="blas")


@contextmanager
def one_thread() -> Iterator[None]:
    """Results then do not depend on the number of workers or cores."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with threadpool_limits(1, user_api="blas"):
            yield
    finally:
        torch.set_num_threads(threads)
