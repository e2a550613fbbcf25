"""The same sweep on every engine, with a worker killed in the middle of it."""

from __future__ import annotations

import importlib.util
import os
import signal
import threading
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from threadpoolctl import threadpool_info, threadpool_limits

from endedge.data.errors import BadInput
from endedge.lab.config import Config, load_config
from endedge.lab.store import Store
from endedge.lab.sweep import executors
from endedge.lab.sweep.executors import engine_of
from endedge.lab.sweep.grid import sweep
from endedge.lab.sweep.workers import compute_alone, one_thread

NEEDS = {"ray": "ray", "slurm": "submitit"}


def _config(place: Path, *more: str) -> Config:
    return load_config(
        place / "c.yaml", ["uplink.frames=[4,6]", "downlink.budgets_bytes=[200000]", *more]
    )


def _swept(config: Config, folder: Path) -> list[dict[str, Any]]:
    rows = sweep(config, folder, lambda done, total, message: None)
    return [{k: v for k, v in r.items() if not k.startswith("seconds")} for r in rows]


def test_a_worker_has_one_thread_in_blas_too() -> None:
    """Else rounding a package spins on all cores, for nothing."""

    def threads() -> set[int]:
        return {lib["num_threads"] for lib in threadpool_info() if lib["user_api"] == "blas"}

    with threadpool_limits(2, user_api="blas"):
        assert threads() == {2}
        with one_thread():
            assert threads() == {1}
        assert threads() == {2}
        compute_alone()
        assert threads() == {1}


def _kill_one_worker(folder: Path, killed: list[int], stop: threading.Event) -> None:
    """SIGKILL to the first process other than this one that is seen at work on ``folder``."""
    store = Store(folder)
    while not stop.is_set():
        for node in store.running():
            if node.pid != os.getpid():
                os.kill(node.pid, signal.SIGKILL)
                killed.append(node.pid)
                return
        time.sleep(0.002)


@pytest.mark.filterwarnings("ignore")  # of the engines' own code
@pytest.mark.parametrize(
    "engine",
    [
        "processes",
        pytest.param("ray", marks=pytest.mark.slow),
        pytest.param("slurm", marks=pytest.mark.slow),
    ],
)
def test_every_engine_gives_the_same_bits_and_survives_a_killed_worker(
    place: Path, engine: str
) -> None:
    needs = NEEDS.get(engine)
    if needs and importlib.util.find_spec(needs) is None:
        pytest.skip(f"{needs} is not installed: pip install 'endedge[{engine}]'")
    calm = _swept(_config(place), place / "calm")
    killed: list[int] = []
    stop = threading.Event()
    killer = threading.Thread(target=_kill_one_worker, args=(place / "out", killed, stop))
    killer.start()
    try:
        rows = _swept(_config(place, f"engine={engine}", "workers=2"), place / "out")
    finally:
        stop.set()
        killer.join()
    assert rows == calm
    assert len(killed) == 1
    assert not list((place / "out" / "failed").glob("*"))
    assert Store(place / "out").running() == []
    # What SLURM would be given: without sbatch submitit runs the same files on this machine.
    assert bool(list((place / "out").glob("slurm/*_submitted.pkl"))) is (engine == "slurm")


@pytest.mark.parametrize(
    ("keys", "name", "workers"),
    [
        (["workers=1"], "here", 1),
        (["workers=3"], "processes", 3),
        (["engine=here", "workers=3"], "here", 3),
        (["engine=slurm", "workers=auto"], "slurm", 64),
        (["engine=ray", "workers=5"], "ray", 5),
    ],
)
def test_which_engine(
    place: Path, keys: list[str], name: str, workers: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("endedge.lab.sweep.executors._has_slurm", lambda: True)
    engine, slots = engine_of(_config(place, *keys))
    assert engine.__name__ == name
    assert slots == workers


def test_an_engine_that_is_not_installed_says_what_to_install(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "submitit", None)  # as if it were not there
    with pytest.raises(BadInput, match=r"pip install 'endedge\[slurm\]'"):
        sweep(_config(place, "engine=slurm"), place / "out", lambda *news: None)
    with pytest.raises(BadInput, match="engine"):
        _config(place, "engine=dask")


@pytest.mark.parametrize(
    ("address", "says", "wanted"),
    [
        (None, "The current node timed out\nduring startup.", "busy machine .* RAY_ADDRESS=auto"),
        ("10.0.0.9:6379", "Failed to connect", r"no cluster at 10\.0\.0\.9:6379: Failed to conn"),
    ],
)
def test_a_cluster_that_does_not_come_up_is_one_line(
    place: Path, monkeypatch: pytest.MonkeyPatch, address: str | None, says: str, wanted: str
) -> None:
    given: dict[str, Any] = {}

    def init(address: str, **more: Any) -> None:
        given.update(more, address=address, niceness=dict(os.environ)["RAY_worker_niceness"])
        raise Exception(says)

    monkeypatch.setenv("RAY_worker_niceness", "")  # so that it is as before at the end
    monkeypatch.delenv("RAY_worker_niceness")
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    if address is not None:
        monkeypatch.setenv("RAY_ADDRESS", address)
    library = SimpleNamespace(init=init, is_initialized=lambda: False)
    monkeypatch.setattr(executors, "_library", lambda name: library)
    monkeypatch.setattr(executors, "cores", lambda: 3)
    job = SimpleNamespace(slots=40)
    with pytest.raises(BadInput, match=wanted) as refused, executors.ray(job):  # type: ignore[arg-type]
        pass
    assert "\n" not in str(refused.value)
    assert given["address"] == (address or "local")
    assert given["niceness"] == "0"
    assert given.get("num_cpus") == (None if address else 3)  # Ray refuses it of a cluster
