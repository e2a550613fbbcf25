from __future__ import annotations

import json
import multiprocessing
import os
import signal
import time
from pathlib import Path
from typing import Any

import pytest

from endedge.data.errors import BadInput
from endedge.data.storage import write_atomic
from endedge.lab.store import Missing, NodeBusy, Peek, Store, digest


def _make(folder: Path) -> dict[str, Any]:
    (folder / "a.bin").write_bytes(b"content")
    return {"value": 3}


def test_a_node_is_made_once(tmp_path: Path) -> None:
    made: list[Path] = []

    def make(folder: Path) -> dict[str, Any]:
        made.append(folder)
        return _make(folder)

    store = Store(tmp_path)
    first, second = (store.node("stage", {"x": 1, "y": [2]}, make) for _ in range(2))
    assert len(made) == 1
    assert first.record == second.record == {"value": 3}
    assert (second.folder / "a.bin").read_bytes() == b"content"
    store.node("stage", {"x": 2, "y": [2]}, make)
    store.node("other", {"x": 1, "y": [2]}, make)
    assert len(made) == 3


def test_names_do_not_depend_on_the_order_of_keys() -> None:
    assert digest({"a": 1, "b": 2}) == digest({"b": 2, "a": 1})
    assert digest({"a": 1}) != digest({"a": 2})
    with pytest.raises(ValueError, match="JSON"):
        digest({"a": float("nan")})


@pytest.mark.parametrize("damage", ["cut", "gone", "record", "record type", "flipped"])
def test_a_damaged_node_is_made_again(tmp_path: Path, damage: str) -> None:
    store = Store(tmp_path)
    node = store.node("stage", {}, _make)
    target = node.folder / "a.bin"
    if damage == "cut":
        target.write_bytes(b"con")
    elif damage == "gone":
        target.unlink()
    elif damage == "flipped":
        target.write_bytes(b"Content")
    else:
        (node.folder / "record.json").write_text("{" if damage == "record" else "[]")
    assert store.find("stage", {}) is None
    again = store.node("stage", {}, _make)
    assert (again.folder / "a.bin").read_bytes() == b"content"
    assert store.find("stage", {}) is not None


@pytest.mark.parametrize("part", ["record", "determinants", "seconds", "sha256", "folder"])
def test_a_record_edited_by_hand_is_made_again(tmp_path: Path, part: str) -> None:
    store = Store(tmp_path)
    node = store.node("stage", {"x": 1}, _make)
    file = node.folder / "record.json"
    document = json.loads(file.read_text())
    if part == "folder":  # somebody else's node under this one's name
        other = store.node("stage", {"x": 2}, _make)
        file.write_bytes((other.folder / "record.json").read_bytes())
    else:
        changed = {"record": {"value": 4}, "determinants": {"x": 2}, "seconds": 0.5, "sha256": "0"}
        file.write_text(json.dumps({**document, part: changed[part]}))
    assert store.find("stage", {"x": 1}) is None
    assert store.node("stage", {"x": 1}, _make).record == {"value": 3}


def test_records_of_older_versions_are_taken_with_one_warning(tmp_path: Path) -> None:
    store = Store(tmp_path)
    for x in range(2):
        file = store.node("stage", {"x": x}, _make).folder / "record.json"
        document = json.loads(file.read_text())
        del document["sha256"]
        file.write_text(json.dumps(document))
    with pytest.warns(UserWarning, match="has no hash") as heard:
        assert len(store.nodes("stage")) == 2
    assert len(heard) == 1


def test_a_failing_node_leaves_nothing(tmp_path: Path) -> None:
    def fail(folder: Path) -> dict[str, Any]:
        (folder / "half").write_text("x")
        raise RuntimeError("no")

    store = Store(tmp_path)
    with pytest.raises(RuntimeError):
        store.node("stage", {}, fail)
    assert [p for p in (tmp_path / "nodes").iterdir() if not p.name.endswith(".lock")] == []
    assert store.node("stage", {}, _make).record == {"value": 3}


def _slow_count(folder: str, log: str) -> None:
    def make(scratch: Path) -> dict[str, Any]:
        with open(log, "a") as file:
            file.write("made\n")
        time.sleep(0.3)
        return _make(scratch)

    Store(Path(folder)).node("stage", {}, make)


def test_two_processes_do_not_do_the_same_work(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    log = tmp_path / "log"
    both = [
        context.Process(target=_slow_count, args=(str(tmp_path / "out"), str(log)))
        for _ in range(2)
    ]
    for process in both:
        process.start()
    for process in both:
        process.join()
        assert process.exitcode == 0
    assert log.read_text() == "made\n"


def _stuck(folder: str) -> None:
    def make(scratch: Path) -> dict[str, Any]:
        (scratch / "half").write_bytes(b"x" * 1000)
        (Path(folder) / "begun").touch()
        time.sleep(60)
        return {}

    Store(Path(folder)).node("stage", {}, make)


def test_a_killed_process_loses_only_its_node_and_its_lock(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    store = Store(tmp_path)
    store.node("before", {}, _make)
    victim = context.Process(target=_stuck, args=(str(tmp_path),))
    victim.start()
    while not (tmp_path / "begun").exists():
        time.sleep(0.02)
    assert victim.pid is not None
    os.kill(victim.pid, signal.SIGKILL)
    victim.join()
    assert store.find("before", {}) is not None
    assert store.find("stage", {}) is None
    assert store.node("stage", {}, _make).record == {"value": 3}  # the kernel freed the lock


def test_write_atomic_replaces_whole_files_and_leaves_no_scratch(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "f.json"
    write_atomic(path, json.dumps({"a": 1}).encode())
    write_atomic(path, b"two")
    assert path.read_bytes() == b"two"
    assert [p.name for p in path.parent.iterdir()] == ["f.json"]


def test_who_does_not_wait_is_told_that_the_node_is_busy_and_who_is_at_it(tmp_path: Path) -> None:
    holder, other = Store(tmp_path), Store(tmp_path, wait=False)

    def make(scratch: Path) -> dict[str, Any]:
        holder.say("half way\nthrough ü" + 300 * "x")
        holder.say("half way")
        with pytest.raises(NodeBusy):
            other.node("stage", {}, _make)
        (running,) = other.running()
        assert (running.key, running.pid, running.says) == (
            f"stage-{digest({})}",
            os.getpid(),
            "half way",
        )
        assert 0 <= time.time() - running.since < 60
        with pytest.raises(Missing, match="stage"):
            Peek(tmp_path).node("stage", {}, _make)
        return _make(scratch)

    holder.node("stage", {}, make)
    assert other.running() == []
    assert other.node("stage", {}, _make).record == {"value": 3}
    peek = Peek(tmp_path)
    assert peek.node("stage", {}, _make).seconds > 0
    assert [node.record for node in peek.seen] == [{"value": 3}]
    assert list((tmp_path / "locks").iterdir()) == []


def test_litter_of_a_killed_process_is_removed_with_its_node(tmp_path: Path) -> None:
    litter = tmp_path / "nodes" / f".stage-{digest({})}.abc"
    litter.mkdir(parents=True)
    (litter / "half").write_bytes(b"x")
    Store(tmp_path).node("stage", {}, _make)
    assert not litter.exists()


def test_nothing_that_is_not_finite_is_kept(tmp_path: Path) -> None:
    store = Store(tmp_path)
    with pytest.raises(BadInput, match="is not a finite number"):
        store.node("s", {"a": 1}, lambda folder: {"losses": {"1": float("nan")}})
    assert not list((tmp_path / "nodes").iterdir())
    made = store.node("s", {"a": 1}, lambda folder: {"map": 0.5})
    record = made.folder / "record.json"
    record.write_text(record.read_text().replace("0.5", "NaN"))  # of an older version
    assert store.find("s", {"a": 1}) is None
    assert store.node("s", {"a": 1}, lambda folder: {"map": 0.25}).record == {"map": 0.25}


def test_a_node_is_as_open_to_others_as_the_umask_says(tmp_path: Path) -> None:
    before = os.umask(0o022)
    try:
        node = Store(tmp_path).node("stage", {"of": 1}, _make)
    finally:
        os.umask(before)
    assert node.folder.stat().st_mode & 0o777 == 0o755
