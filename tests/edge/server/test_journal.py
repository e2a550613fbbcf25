"""The ledger of a device, stopped between any two steps on disk."""

from __future__ import annotations

import errno
import hashlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from endedge.data.errors import BadInput
from endedge.edge.server.journal import DeviceRounds
from endedge.link.messages import Offer

BATCH = bytes(range(256)) * 100


def offer(round_index: int = 1, batch: bytes = BATCH) -> Offer:
    return Offer(round_index, len(batch), hashlib.sha256(batch).digest(), 7, 1000)


def upload(rounds: DeviceRounds, what: Offer, batch: bytes) -> None:
    have = rounds.begin(what)
    while have < len(batch):
        have += rounds.append(have, batch[have : have + 10_000])
    if what.round_index > rounds.state.stored_round:
        assert rounds.finish(rounds.digest())


def one_round(rounds: DeviceRounds) -> None:
    """Everything that happens to round 1, continued from wherever it was stopped."""
    if rounds.state.resolved_round >= 1:
        return
    upload(rounds, offer(), BATCH)
    if rounds.next_job() == 1:
        rounds.count_attempt(1)
        assert rounds.batch_path(1).read_bytes() == BATCH
        assert rounds.budget_bytes(1) == 1000
        rounds.save_package(1, b"package")
    assert rounds.ready_round() == 1
    rounds.resolve(1, 0.25, applied=True)


class Stopped(BaseException):
    pass


def count_calls(monkeypatch: pytest.MonkeyPatch, stop_at: int) -> Callable[[], int]:
    """Stop the process (an exception nothing catches) before the n-th step on disk."""
    calls = 0

    def wrap(real: Callable[..., Any]) -> Callable[..., Any]:
        def step(*args: Any, **kwargs: Any) -> Any:
            nonlocal calls
            calls += 1
            if calls == stop_at:
                raise Stopped
            return real(*args, **kwargs)

        return step

    for name in ("replace", "fsync", "open"):
        monkeypatch.setattr(os, name, wrap(getattr(os, name)))
    for name in ("unlink", "open", "stat"):
        monkeypatch.setattr(Path, name, wrap(getattr(Path, name)))
    return lambda: calls


def test_stopped_anywhere_it_counts_once(tmp_path: Path) -> None:
    with pytest.MonkeyPatch.context() as patch:
        calls = count_calls(patch, -1)
        one_round(DeviceRounds(tmp_path / "whole"))
        steps = calls()
    assert steps > 30
    for stop_at in range(1, steps + 1):
        folder = tmp_path / str(stop_at)
        with pytest.MonkeyPatch.context() as patch:
            count_calls(patch, stop_at)
            with pytest.raises(Stopped):
                one_round(DeviceRounds(folder))
        rounds = DeviceRounds(folder)
        one_round(rounds)
        state = rounds.state
        assert (state.batches, state.frames, state.upload_bytes) == (1, 7, len(BATCH))
        assert (state.applied_round, state.map50_95, state.missed) == (1, 0.25, 0)
        assert [path.name for path in folder.iterdir()] == ["state.json"]
        assert DeviceRounds(folder).state == state


def test_duplicates_gaps_and_excess(tmp_path: Path) -> None:
    rounds = DeviceRounds(tmp_path)
    assert rounds.begin(offer()) == 0
    assert rounds.append(0, BATCH[:1000]) == 1000
    assert rounds.append(0, BATCH[:1000]) == 0
    assert rounds.append(2000, BATCH[2000:3000]) == 0
    assert rounds.append(500, BATCH[500:1500]) == 500  # half of it is new
    assert rounds.received_bytes() == 1500
    with pytest.raises(BadInput, match="beyond"):
        rounds.append(len(BATCH) - 1, b"xx")
    assert rounds.begin(offer()) == 1500
    assert DeviceRounds(tmp_path).begin(offer()) == 1500
    other = b"y" * 3000
    upload(rounds, offer(2, other), other)  # another batch starts afresh
    assert rounds.state.upload_bytes == 3000
    assert rounds.begin(offer()) == len(BATCH)  # round 1 is over: nothing to send


def test_corrupt_upload_is_not_kept(tmp_path: Path) -> None:
    rounds = DeviceRounds(tmp_path)
    rounds.begin(offer())
    rounds.append(0, bytes(len(BATCH)))
    assert not rounds.finish(rounds.digest())
    assert rounds.begin(offer()) == 0
    assert rounds.state.batches == 0


def test_full_disk_leaves_the_upload_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rounds = DeviceRounds(tmp_path)
    rounds.begin(offer())
    rounds.append(0, BATCH[:1000])

    class Full:
        def __init__(self, path: Path, *_: object, **__: object) -> None:
            self.file = open(path, "ab", buffering=0)  # noqa: SIM115

        def __enter__(self) -> Full:
            return self

        def __exit__(self, *_: object) -> None:
            self.file.close()

        def write(self, data: bytes) -> int:
            if len(data) > 3:
                return self.file.write(data[:3])  # a short write first, as the kernel does it
            raise OSError(errno.ENOSPC, "No space left on device")

        def truncate(self, size: int) -> None:
            self.file.truncate(size)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "open", lambda path, *a, **k: Full(path, *a, **k))
        with pytest.raises(OSError, match="No space"):
            rounds.append(1000, b"abcdef")
    assert rounds.received_bytes() == 1000
    upload(rounds, offer(), BATCH)
    assert rounds.state.stored_round == 1


def test_damaged_state_is_bad_input(tmp_path: Path) -> None:
    DeviceRounds(tmp_path)
    (tmp_path / "state.json").write_text("{")
    with pytest.raises(BadInput, match="damaged"):
        DeviceRounds(tmp_path)


def test_what_is_counted_and_when_the_next_job_may_begin(tmp_path: Path) -> None:
    """Two batches of other sizes; the second waits until the device has said what it runs."""
    rounds, other = DeviceRounds(tmp_path / "cam"), BATCH[:1234]
    upload(rounds, offer(), BATCH)
    upload(rounds, offer(2, other), other)
    assert rounds.pending() == [1, 2]
    assert rounds.next_job() == 1
    rounds.save_package(1, b"package")
    assert rounds.ready_round() == 1
    assert rounds.next_job() is None  # a delta of round 2 would have no base yet
    rounds.resolve(1, 0.25, applied=True)
    assert rounds.next_job() == 2
    rounds.resolve(2)
    state = DeviceRounds(tmp_path / "cam").state  # and so after a restart
    assert (state.stored_round, state.resolved_round, state.applied_round) == (2, 2, 1)
    assert (state.batches, state.frames, state.missed) == (2, 14, 1)
    assert state.upload_bytes == len(BATCH) + len(other)
    assert state.map50_95 == 0.25
