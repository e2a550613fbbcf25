"""Files whole or absent, alone, and for their owner."""

from __future__ import annotations

import multiprocessing
import os
import stat
import subprocess
import sys
from collections.abc import Iterator
from multiprocessing.synchronize import Barrier
from pathlib import Path

import pytest

from endedge.data.generated import generate
from endedge.data.storage import at_home, cache_folder, locked, private_folder, write_atomic


@pytest.fixture(params=[0o000, 0o022, 0o077, 0o002])
def umask(request: pytest.FixtureRequest) -> Iterator[int]:
    before = os.umask(request.param)
    yield request.param
    os.umask(before)


def _mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_private_files_are_never_wider_than_their_owner(tmp_path: Path, umask: int) -> None:
    write_atomic(tmp_path / "keys" / "secret", b"x", mode=0o600)
    assert _mode(tmp_path / "keys" / "secret") & 0o077 == 0
    assert _mode(tmp_path / "keys") & 0o077 == 0
    private_folder(tmp_path / "state")
    assert _mode(tmp_path / "state") & 0o077 == 0


def test_what_a_killed_writer_left_does_not_lend_its_mode(tmp_path: Path) -> None:
    left = tmp_path / f".secret.{os.getpid()}.new"
    left.write_bytes(b"old")
    left.chmod(0o666)
    write_atomic(tmp_path / "secret", b"x", mode=0o600)
    assert _mode(tmp_path / "secret") & 0o077 == 0
    other = tmp_path / "elsewhere"
    other.write_bytes(b"kept")
    left.symlink_to(other)  # nor is a link followed
    write_atomic(tmp_path / "secret", b"y", mode=0o600)
    assert other.read_bytes() == b"kept"
    assert not (tmp_path / "secret").is_symlink()


def test_locks_exclude_and_leave_nothing(tmp_path: Path) -> None:
    with locked(tmp_path / "a" / "x.lock"):
        with pytest.raises(BlockingIOError), locked(tmp_path / "a" / "x.lock", wait=False):
            pass
        with locked(tmp_path / "a" / "y.lock", wait=False):
            pass
    assert list((tmp_path / "a").iterdir()) == []


def _generate(folder: str, barrier: Barrier) -> None:
    barrier.wait()
    made = generate(Path(folder), domain="field", split="pool", n=6, seed=0, size=64)
    assert len(made) == 6


def test_processes_that_generate_into_one_fresh_folder(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    for turn in range(5):
        barrier = context.Barrier(3)
        folder = tmp_path / str(turn)
        workers = [context.Process(target=_generate, args=(str(folder), barrier)) for _ in range(3)]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join(60)
        assert [worker.exitcode for worker in workers] == [0, 0, 0]
        assert sorted(p.name for p in folder.iterdir()) == ["field-pool", "field-pool.json"]


def test_home_where_there_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/x")
    assert at_home("~/a") == "/home/x/a"
    assert at_home("a/~") == "a/~"
    assert at_home("~nobody-of-this-name/a") == "~nobody-of-this-name/a"


@pytest.mark.parametrize("cache", ["", "relative", "/proc/none"])
def test_the_cache_is_never_a_name_that_others_could_have_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cache: str
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", cache)
    monkeypatch.setenv("HOME", "/proc/none")  # cannot be made, whoever we are
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    cache_folder.cache_clear()
    try:
        found = cache_folder()
        assert found.parent == tmp_path
        assert found.name != "endedge"
        assert _mode(found) & 0o077 == 0
        assert cache_folder() == found
    finally:
        cache_folder.cache_clear()


def test_no_home_at_all(tmp_path: Path) -> None:
    """A container's user without a name and a home: the fallback goes with the process."""
    code = (
        "import os; os.environ.pop('HOME', None); os.environ.pop('XDG_CACHE_HOME', None);"
        "import pwd; pwd.getpwuid = lambda uid: {}[uid];"
        "from endedge.data.storage import cache_folder; print(cache_folder())"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "TMPDIR": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert Path(done.stdout.strip()).parent == tmp_path
    assert list(tmp_path.iterdir()) == []
