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
from typing import Any, TypeAlias

import torch
from threadpoolctl import threadpool_limits

from endedge.lab.config import Config
from endedge.lab.devices import masks

__all__ = [
    "compute_alone",
    "cores",
    "how_many",
    "in_processes",
    "one_thread",
    "spawned",
    "terminate",
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


def in_processes(
    workers: int,
    device: str,
    begin: Callable[..., None],
    arguments: tuple[Any, ...],
    work: Callable[[Any, Any], None],
    tasks: Sequence[Any],
    on_news: Callable[..., None],
) -> None:
    """Run ``work(task, news)`` for every task, in ``workers`` processes that share ``device`` (see
    :func:`spawned`) and each called ``begin(*arguments)`` once; ``on_news`` is called here with
    each tuple put into ``news``.

    Raises what the first failing task raised, after the others have ended.
    """
    failures: list[BaseException] = []
    manager = multiprocessing.get_context("spawn").Manager()
    with manager, spawned(workers, device, begin, arguments) as pool:
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
            terminate(pool)
            raise
    if failures:
        raise failures[0]


def spawned(
    workers: int,
    device: str = "cpu",
    begin: Callable[..., None] | None = None,
    arguments: tuple[Any, ...] = (),
) -> ProcessPoolExecutor:
    """Worker processes that compute with one thread, end with this one, and each begin with
    ``begin(*arguments)``. Those on GPUs see one each, in turns, and call it ``cuda``."""
    context = multiprocessing.get_context("spawn")
    seen, dealt = masks(device, 1) or [""], context.SimpleQueue()
    for k in range(workers):
        dealt.put(seen[k % len(seen)])
    return ProcessPoolExecutor(workers, context, _begin, (os.getpid(), dealt, begin, arguments))


def terminate(pool: ProcessPoolExecutor) -> None:
    """End the workers at once: what is half done is lost, nothing else."""
    for process in list((pool._processes or {}).values()):
        process.terminate()


def _begin(
    parent: int, dealt: Masks, begin: Callable[..., None] | None, arguments: tuple[Any, ...]
) -> None:
    if mask := dealt.get():  # before anything here touches a GPU: later it would be ignored
        os.environ["CUDA_VISIBLE_DEVICES"] = mask
    _exit_with_parent(parent)
    compute_alone()
    if begin is not None:
        begin(*arguments)


def _exit_with_parent(parent: int) -> None:
    """For the start of a worker. Ctrl-C on a terminal reaches all processes: the parent ends this
    one, which says nothing. A worker whose parent was killed has nobody to report to: it ends."""
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
