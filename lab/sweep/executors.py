"""Where a sweep runs: in this process, in local processes, on Ray, on a SLURM cluster.

An engine is a context manager that takes a :class:`SweepJob` and gives a
:class:`~endedge.lab.sweep.scheduler.Pool`: a function from a task to the promise of its
results. Nothing else differs, and every node is computed by one thread from its own seed, so
results are equal whichever engine ran them. All workers see the results folder (on a cluster: a
shared file system with ``flock``); frames and models go by path.
"""

from __future__ import annotations

import importlib
import logging
import math
import os
import shutil
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import BrokenExecutor, Future
from concurrent.futures.process import BrokenProcessPool
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from endedge.data.errors import BadInput
from endedge.distill.memory import release
from endedge.lab.config import Config
from endedge.lab.devices import check_device
from endedge.lab.inputs import Inputs
from endedge.lab.store import Store
from endedge.lab.sweep.cell import CellRunner
from endedge.lab.sweep.scheduler import Pool, Result, Task, work
from endedge.lab.sweep.workers import (
    compute_alone,
    cores,
    how_many,
    one_thread,
    spawned,
    terminate,
)

__all__ = ["ENGINES", "Engine", "SweepJob", "engine_of"]


_log = logging.getLogger("endedge")
_QUEUED = 64  # jobs handed to SLURM at a time unless told
_RAY_BYTES = 2**27  # of its object store, which would take 30 % of the machine's memory


@dataclass(frozen=True, eq=False)
class SweepJob:
    """One sweep: its inputs, its results folder, how many work at a time, and who hears what a
    worker in this process is doing."""

    inputs: Inputs
    folder: Path
    slots: int
    say: Callable[[str], None]

    @property
    def config(self) -> Config:
        return self.inputs.config

    @property
    def gpu_share(self) -> float:
        """The share of one GPU for each worker."""
        return 1 / self.config.workers_per_gpu if self.inputs.kind == "cuda" else 0.0

    @property
    def given(self) -> Config:
        """What a worker is told: the kind of device. Which of several GPUs it has is masked."""
        return self.config.model_copy(update={"device": self.inputs.kind})


Engine = Callable[[SweepJob], AbstractContextManager[Pool]]


@contextmanager
def here(job: SweepJob) -> Iterator[Pool]:
    """In this process, one after the other."""
    check_device(job.inputs.device)
    store = Store(job.folder, wait=False)

    def say(message: str) -> None:
        store.say(message)
        job.say(message)

    runner = CellRunner(job.inputs, store, say)

    def submit(task: Task) -> Future[list[Result]]:
        done: Future[list[Result]] = Future()
        done.set_result(work(runner, task))
        return done

    with one_thread():
        yield Pool(submit, 1)


@contextmanager
def processes(job: SweepJob) -> Iterator[Pool]:
    """Processes of this machine, dealt out among its GPUs. When one is killed the rest are
    replaced with it."""
    check_device(job.inputs.device)
    pool = spawned(job.slots, job.inputs.device)

    def submit(task: Task) -> Future[list[Result]]:
        nonlocal pool
        try:
            return pool.submit(_work_in, job.given, str(job.folder), task)
        except BrokenProcessPool:
            pool.shutdown()
            pool = spawned(job.slots, job.inputs.device)
            return pool.submit(_work_in, job.given, str(job.folder), task)

    try:
        yield Pool(submit, job.slots)
    except BaseException:
        terminate(pool)
        raise
    finally:
        pool.shutdown(cancel_futures=True)


@contextmanager
def ray(job: SweepJob) -> Iterator[Pool]:
    """A Ray cluster: the one at ``RAY_ADDRESS`` (``auto``: the one that was started here), else
    one of this machine's cores and GPUs.

    Workers share a GPU by ``workers_per_gpu``; each has its GPU, frames and detectors for as long
    as the sweep lasts. A task whose worker dies is given to another.
    """
    library = _library("ray")
    ours = not library.is_initialized()
    if ours:
        _start_ray(library, min(job.slots, cores()))
    share = job.gpu_share
    start = library.remote(num_cpus=1, num_gpus=share)(_Worker).remote
    there = library.cluster_resources()
    slots = int(there.get("CPU", 1))
    if share:
        slots = min(slots, math.floor(there.get("GPU", 0) / share + 1e-9))
    if slots < 1:
        raise BadInput(f"engine ray: the cluster has no room for one worker: {there}")
    if job.config.workers != "auto":
        slots = min(slots, job.slots)
    free: list[Any] = []

    def submit(task: Task) -> Future[list[Result]]:
        worker = free.pop() if free else start()
        promise: Future[list[Result]] = Future()

        def over(done: Future[list[Result]]) -> None:
            error = done.exception()
            if isinstance(error, library.exceptions.RayActorError):
                promise.set_exception(BrokenExecutor(" ".join(str(error).split())[:200]))
                return
            free.append(worker)
            if error is None:
                promise.set_result(done.result())
            else:
                promise.set_exception(error)

        given = worker.work.remote(job.given, str(job.folder.resolve()), task)
        given.future().add_done_callback(over)
        return promise

    def ease() -> None:
        while free:
            library.kill(free.pop())

    try:
        yield Pool(submit, slots, ease=ease)
    finally:
        ease()
        if ours:
            library.shutdown()


def _start_ray(library: Any, workers: int) -> None:
    """Join a cluster, or start a small one: no more Python processes than ``workers``, no
    dashboard, and memory for messages alone, since frames and detectors go by path. Raises
    :class:`BadInput` where Ray does not come up."""
    os.environ.setdefault("RAY_worker_niceness", "0")  # 15 by itself: they starve beside others
    address = os.environ.get("RAY_ADDRESS", "local")
    room = {"num_cpus": workers, "object_store_memory": _RAY_BYTES} if address == "local" else {}
    try:
        library.init(
            address,
            include_dashboard=False,
            log_to_driver=False,
            logging_level="warning",
            **room,
        )
    except Exception as error:  # of many classes, a bare Exception where its node is too slow
        said = " ".join(str(error).split())[:200]
        raise BadInput(
            f"engine ray: {said}; Ray gives its node 30 s to start, which a busy machine may not "
            "manage: try again, start it before (ray start --head) and set RAY_ADDRESS=auto, or "
            "use engine=processes"
            if "timed out during startup" in said
            else f"engine ray: no cluster at {address}: {said}"
        ) from None


@contextmanager
def slurm(job: SweepJob) -> Iterator[Pool]:
    """Jobs of a SLURM cluster through submitit: one job a trunk with all its cells. ``slurm:`` of
    the configuration holds submitit's parameters (``slurm_partition: gpu``). Where there is no
    ``sbatch``: processes of this machine, no more than it has cores, which is said."""
    library = _library("submitit")
    slots = job.slots
    if not _has_slurm():
        if job.gpu_share:
            raise BadInput(
                "engine slurm: there is no sbatch here to ask for GPUs; start it on a login node, "
                "or use engine=processes"
            )
        slots = min(slots, cores())
        _log.warning(
            "note: engine slurm: there is no sbatch here; %d processes of this machine instead",
            slots,
        )
    executor = library.AutoExecutor(folder=job.folder / "slurm")
    executor.update_parameters(
        **{
            "name": job.config.name,
            "timeout_min": 240,
            "cpus_per_task": 1,
            "gpus_per_node": math.ceil(job.gpu_share),
            **job.config.slurm,
        }
    )
    waiting: list[tuple[Any, Future[list[Result]]]] = []
    closing = threading.Event()

    def watch() -> None:
        while not closing.wait(0.5):
            for entry in list(waiting):
                given, promise = entry
                if given.done():
                    waiting.remove(entry)
                    try:
                        promise.set_result(given.result())
                    except Exception as error:  # _work_in returns failures: the job itself died
                        promise.set_exception(BrokenExecutor(" ".join(str(error).split())[:200]))

    def submit(task: Task) -> Future[list[Result]]:
        promise: Future[list[Result]] = Future()
        given = executor.submit(_work_in, job.given, str(job.folder.resolve()), task)
        waiting.append((given, promise))
        return promise

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        yield Pool(submit, slots, whole=True)
    finally:
        closing.set()
        watcher.join()
        for given, _ in waiting:
            given.cancel()


ENGINES: dict[str, Engine] = {"here": here, "processes": processes, "ray": ray, "slurm": slurm}


def engine_of(config: Config) -> tuple[Engine, int]:
    """The engine that ``config`` asks for, and how many workers."""
    name = config.engine
    queued = name == "slurm" and config.workers == "auto" and _has_slurm()
    workers = _QUEUED if queued else how_many(config)
    if name == "auto":
        name = "here" if workers == 1 else "processes"
    return ENGINES[name], workers


def _has_slurm() -> bool:
    return shutil.which("sbatch") is not None


def _library(name: str) -> Any:
    extra = {"submitit": "slurm"}.get(name, name)
    try:
        return importlib.import_module(name)
    except ImportError:
        raise BadInput(
            f"engine {extra} needs the package {name}: pip install 'endedge[{extra}]'"
        ) from None


# In a worker ---------------------------------------------------------------------------------

_held: tuple[Config, str, CellRunner] | None = None  # loaded once


def _work_in(config: Config, folder: str, task: Task) -> list[Result]:
    global _held
    compute_alone()
    if _held is None or _held[:2] != (config, folder):
        logging.getLogger("endedge").setLevel(logging.ERROR)  # the parent has noted it
        store = Store(Path(folder), wait=False)
        inputs = Inputs.of(config, store.folder)
        check_device(inputs.device)
        _held = (config, folder, CellRunner(inputs, store, store.say))
    try:
        return work(_held[2], task)
    finally:
        release()  # until the next task, others may have what this one needed


class _Worker:
    """Lives for a sweep in a process of its own."""

    def work(self, config: Config, folder: str, task: Task) -> list[Result]:
        return _work_in(config, folder, task)
