"""What the edge believes that a device keeps, from its answers alone."""

from __future__ import annotations

from pathlib import Path

from endedge.lab.loop.adaptation import _kept
from endedge.lab.store import Node


def _answer(folder: Path, k: int, model: str, base: str, recalled: str = "") -> Node:
    place = folder / str(k)
    place.mkdir()
    (place / "student.safetensors").write_bytes(bytes(100))
    record = {"round": k, "sent": True, "model": model, "base": base, "recalled": recalled}
    return Node(f"n{k}", place, record, 0.0)


def test_a_lost_model_is_never_named_again(tmp_path: Path) -> None:
    night, back = _answer(tmp_path, 1, "night", "came"), _answer(tmp_path, 2, "came", "night")
    known = {1: night, 2: back}
    assert _kept(known, back, 1000) == ([night], True)
    assert _kept(known, back, 150) == ([], True)  # no room for two
    assert _kept(known, back, 0) == ([], True)
    known[3] = _answer(tmp_path, 3, "night", "came", recalled="night")  # refused: came still runs
    assert _kept(known, back, 1000) == ([], False)
    known[4] = _answer(tmp_path, 4, "new", "came")
    assert _kept(known, known[4], 1000) == ([back], True)
