"""Applying an update: the old model survives everything but a good new one."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from endedge.data.errors import BadInput
from endedge.end.client.apply import ModelStore
from endedge.end.client.spool import Spool
from endedge.link.messages import Ready, update_statement

EDGE = Ed25519PrivateKey.generate()
PUBLIC = EDGE.public_key().public_bytes_raw()


def signed(round_index: int, package: bytes, device_id: str = "cam") -> Ready:
    digest = hashlib.sha256(package).digest()
    statement = update_statement(device_id, round_index, len(package), digest)
    return Ready(round_index, len(package), digest, EDGE.sign(statement))


def install(package: bytes, base: Path | None, target: Path) -> None:
    if package.startswith(b"bad"):
        target.write_bytes(b"half")
        raise BadInput("not a package")
    target.write_bytes((base.read_bytes() if base else b"base") + b"+" + package)


def update(store: ModelStore, round_index: int, package: bytes) -> None:
    ready = signed(round_index, package)
    store.check(ready, "cam", PUBLIC, 1000)
    store.incoming(ready).write_bytes(package)
    store.apply(ready, install)


def model_bytes(store: ModelStore) -> bytes | None:
    return store.model.read_bytes() if store.model else None


def test_updates_build_on_each_other_and_leave_one_model(tmp_path: Path) -> None:
    store = ModelStore(tmp_path)
    assert store.model is None
    update(store, 1, b"one")
    update(store, 4, b"four")
    again = ModelStore(tmp_path)
    assert again.round_index == 4
    assert model_bytes(again) == b"base+one+four"
    assert again.model_sha256 == hashlib.sha256(b"base+one+four").digest()
    assert len(list(tmp_path.glob("*model*"))) == 1


def test_what_must_be_refused_before_a_byte_is_fetched(tmp_path: Path) -> None:
    store = ModelStore(tmp_path)
    update(store, 2, b"two")
    good = signed(3, b"three")
    store.check(good, "cam", PUBLIC, 1000)
    for bad, why in (
        (signed(2, b"two"), "replay"),
        (signed(1, b"older"), "replay"),
        (replace(good, round_index=9), "signed"),  # an old package under a new number
        (replace(good, size=6), "signed"),
        (replace(good, sha256=bytes(32)), "signed"),
        (replace(good, signature=bytes(64)), "signed"),
        (signed(3, b"three", "cam2"), "signed"),
        (signed(3, b"x" * 1001), "bytes"),
        (signed(3, b""), "bytes"),
    ):
        with pytest.raises(BadInput, match=why):
            store.check(bad, "cam", PUBLIC, 1000)
    with pytest.raises(BadInput, match="signed"):
        store.check(good, "cam", bytes(32), 1000)


@pytest.mark.parametrize("package", [b"bad package"])
def test_undecodable_package_keeps_the_old_model(tmp_path: Path, package: bytes) -> None:
    store = ModelStore(tmp_path)
    update(store, 1, b"one")
    with pytest.raises(BadInput, match="decoded: not a package"):
        update(store, 2, package)
    assert model_bytes(ModelStore(tmp_path)) == b"base+one"
    assert not list((tmp_path / "incoming").iterdir())


def test_tampered_bytes_keep_the_old_model(tmp_path: Path) -> None:
    store = ModelStore(tmp_path)
    update(store, 1, b"one")
    ready = signed(2, b"two")
    for tampered in (b"twO", b"two!", b""):
        store.incoming(ready).write_bytes(tampered)
        with pytest.raises(BadInput, match="hash"):
            store.apply(ready, install)
    assert model_bytes(ModelStore(tmp_path)) == b"base+one"


class Killed(BaseException):
    pass


def test_killed_anywhere_the_model_is_the_old_or_the_new_one(tmp_path: Path) -> None:
    def run(folder: Path, stop_at: int) -> int:
        store = ModelStore(folder)
        update(store, 1, b"one")
        calls = 0

        def wrap(real: Callable[..., Any]) -> Callable[..., Any]:
            def step(*args: Any, **kwargs: Any) -> Any:
                nonlocal calls
                calls += 1
                if calls == stop_at:
                    raise Killed
                return real(*args, **kwargs)

            return step

        with pytest.MonkeyPatch.context() as patch:
            for name in ("replace", "fsync", "open"):
                patch.setattr(os, name, wrap(getattr(os, name)))
            for name in ("unlink", "open", "read_bytes", "write_bytes"):
                patch.setattr(Path, name, wrap(getattr(Path, name)))
            update(store, 2, b"two")
        return calls

    steps = run(tmp_path / "whole", -1)
    assert steps > 10
    seen = set()
    for stop_at in range(1, steps + 1):
        folder = tmp_path / str(stop_at)
        with pytest.raises(Killed):
            run(folder, stop_at)
        store = ModelStore(folder)
        seen.add((store.round_index, model_bytes(store)))
        if store.round_index == 1:
            update(store, 2, b"two")
        assert model_bytes(ModelStore(folder)) == b"base+one+two"
    assert seen == {(1, b"base+one"), (2, b"base+one+two")}


def test_damaged_model_is_noticed_at_the_start(tmp_path: Path) -> None:
    store = ModelStore(tmp_path)
    update(store, 1, b"one")
    assert store.model is not None
    store.model.write_bytes(b"rot")
    with pytest.raises(BadInput, match="not the model"):
        ModelStore(tmp_path)


def test_spool_survives_a_restart_and_never_reuses_a_round(tmp_path: Path) -> None:
    spool = Spool(tmp_path, 100)
    assert [spool.add(b"a" * 40, 2, 9), spool.add(b"b" * 40, 3, 9)] == [1, 2]
    with pytest.raises(BadInput, match="spools"):
        spool.add(b"c" * 40, 1, 9)
    with pytest.raises(BadInput, match="spools"):
        spool.add(b"", 1, 9)
    spool = Spool(tmp_path, 100)
    first = spool.first()
    assert first is not None
    assert (first.round_index, first.size, first.frames) == (1, 40, 2)
    assert first.sha256 == hashlib.sha256(b"a" * 40).digest()
    spool.remove(2)
    assert spool.first() is None
    assert Spool(tmp_path, 100).add(b"d", 1, 9) == 3


def test_full_disk_while_spooling_keeps_nothing(tmp_path: Path) -> None:
    spool = Spool(tmp_path, 100)
    real, calls = os.replace, 0

    def full(source: Any, target: Any) -> None:
        nonlocal calls
        calls += 1
        if calls == 3:  # the round number, after description and batch
            raise OSError(28, "No space left on device")
        real(source, target)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "replace", full)
        with pytest.raises(OSError, match="No space"):
            spool.add(b"a", 1, 9)
    assert Spool(tmp_path, 100).first() is None
    assert spool.add(b"b", 1, 9) == 1
