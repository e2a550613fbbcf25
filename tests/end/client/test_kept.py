"""Models that stay on the device: which, how long, and what a package builds upon."""

from __future__ import annotations

from pathlib import Path

import pytest

from endedge.data.errors import BadInput
from endedge.distill.envelope import builds_on, result_of, reuse, seal
from endedge.end.client.apply import ModelStore
from tests.end.client.test_apply import PUBLIC, signed

SIZE = 1000


def name(letter: str) -> str:
    return letter * 64


def full(letter: str) -> bytes:
    return seal(name(letter), None, 1.0, b"", b"")


def delta(letter: str, base: str) -> bytes:
    return seal(name(letter), name(base), 1.0, b"", b"")


def install(package: bytes, base: Path | None, target: Path) -> None:
    """A model file begins with its name; the device came with model 0."""
    has = base.read_text()[:32] if base else name("0")[:32]
    if builds_on(package) not in (None, has):
        raise BadInput(f"built on {builds_on(package)}, not on {has}")
    target.write_text(result_of(package).ljust(SIZE))


def update(store: ModelStore, round_index: int, package: bytes) -> None:
    ready = signed(round_index, package)
    store.check(ready, "cam", PUBLIC, 10_000)
    store.incoming(ready).write_bytes(package)
    store.apply(ready, install)


def held(store: ModelStore) -> list[str]:
    """Of the models kept, oldest first, then the one in use."""
    assert store.model is not None
    return [n[0] for n in store.kept] + [store.model.read_text()[0]]


def test_the_last_models_stay_while_there_is_room(tmp_path: Path) -> None:
    store = ModelStore(tmp_path, keep_bytes=3 * SIZE)
    for k, letter in enumerate("abcd", 1):
        update(store, k, full(letter))
    assert held(store) == ["b", "c", "d"]
    again = ModelStore(tmp_path, keep_bytes=3 * SIZE)
    assert held(again) == ["b", "c", "d"]
    assert sum(f.stat().st_size for f in tmp_path.glob("*model-*")) == 3 * SIZE
    update(again, 5, reuse(name("b")))  # in use again: it is the latest, and there once
    assert held(again) == ["c", "d", "b"]
    update(again, 6, delta("e", "c"))
    assert held(again) == ["d", "b", "e"]
    update(again, 7, reuse(name("0")))  # the one that it came with takes a file, too
    assert held(again) == ["b", "e", "0"]
    assert len(list(tmp_path.glob("*model-*"))) == 3


def test_a_model_that_is_gone_costs_the_round_and_nothing_else(tmp_path: Path) -> None:
    store = ModelStore(tmp_path, keep_bytes=2 * SIZE)
    for k, letter in enumerate("abc", 1):
        update(store, k, full(letter))
    for package in (reuse(name("a")), delta("d", "a")):
        with pytest.raises(BadInput, match="built on aaaa") as error:
            update(store, 4, package)
        assert "\n" not in str(error.value)
        assert held(ModelStore(tmp_path, keep_bytes=2 * SIZE)) == ["b", "c"]
    next(iter(store.kept.values())).unlink()  # a file that somebody removed
    with pytest.raises(BadInput, match="built on bbbb"):
        update(store, 4, reuse(name("b")))
    update(store, 4, full("e"))
    assert held(store) == ["c", "e"]


def test_without_storage_only_the_model_in_use_stays(tmp_path: Path) -> None:
    store = ModelStore(tmp_path)
    for k, letter in enumerate("ab", 1):
        update(store, k, full(letter))
    assert held(store) == ["b"]
    update(store, 3, delta("c", "b"))
    assert held(store) == ["c"]
