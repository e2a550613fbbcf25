"""The log of events: complete for rounds, short for noise, never pushed out."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from endedge.edge.server.audit import Audit


def lines(path: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_noise_is_counted_and_rounds_are_written(tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    audit = Audit(path)
    for k in range(1000):
        audit("gap", "evil")
        audit("refused", address="198.51.100.7", why="x")
        if k < 150:
            audit("stored", "good", round=k)
    audit("gap", "good")
    audit.close()
    found = lines(path)
    assert audit.counts == {"gap": 1001, "refused": 1000, "stored": 150}
    assert [e["round"] for e in found if e["event"] == "stored"] == list(range(150))
    repeated = {(e["device"], e["of"]): e["times"] for e in found if e["event"] == "repeated"}
    assert repeated == {("evil", "gap"): 980, ("198.51.100.7", "refused"): 980}
    assert [e["device"] for e in found if e["event"] == "gap"] == ["evil"] * 20 + ["good"]
    assert len(found) < 250


def test_many_addresses_share_one_budget(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("endedge.edge.server.audit._MOST_KEYS", 10)
    audit = Audit(tmp_path / "audit.jsonl")
    for k in range(500):
        audit("refused", address=f"2001:db8::{k:x}")
    audit.tidy(all_of_it=True)
    assert len(audit._budgets) <= 11
    audit.close()
    assert len(lines(tmp_path / "audit.jsonl")) < 60


def test_escape_sequences_are_written_as_text(tmp_path: Path) -> None:
    audit = Audit(tmp_path / "audit.jsonl")
    audit("missed", "cam", why="\x1b[2J\nsecond")
    audit.close()
    text = (tmp_path / "audit.jsonl").read_text()
    assert "\x1b" not in text
    assert text.count("\n") == 1
    assert json.loads(text)["why"] == "\x1b[2J\nsecond"
