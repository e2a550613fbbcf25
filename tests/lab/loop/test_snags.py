"""What went wrong in loops of several devices, each held by a test."""

from __future__ import annotations

import csv
import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from endedge.data.errors import BadInput
from endedge.end.client.outcomes import HELD_BACK, Outcome
from endedge.lab.config import load_config
from endedge.lab.loop import adaptation, summary
from endedge.lab.loop.federated import check_budgets
from endedge.lab.loop.policy_run import Clock
from endedge.lab.loop.summary import loop_stage


def test_a_mean_that_is_the_same_for_several_is_on_the_air_once() -> None:
    config = load_config("demo-loop")
    clock, alone = Clock(config, 0.0, True), Clock(config, 0.0)
    first = clock.arrives_s(b"m" * 30_000, 5.0)
    assert first > 5.0
    assert clock.arrives_s(b"m" * 30_000, 5.0) == first
    assert clock.arrives_s(b"n" * 30_000, 5.0) > first  # another package waits for the band
    assert alone.arrives_s(b"m" * 30_000, 5.0) == first
    assert alone.arrives_s(b"m" * 30_000, 5.0) > first


@pytest.mark.parametrize(
    ("policy", "way"), [("federated-0.02", "up"), ("federated-0.99", "down"), ("federated", "")]
)
def test_a_share_without_room_for_a_package_is_refused_beforehand(policy: str, way: str) -> None:
    slot = SimpleNamespace(room=40.0, up=0.004, down=0.002)
    air = SimpleNamespace(slot=slot, update=SimpleNamespace(low=3000, high=30_000))
    run: Any = SimpleNamespace(policy=policy, air=air)
    if not way:
        check_budgets(run)
        return
    with pytest.raises(BadInput, match=f"{policy} has .* for the package {way}; .* is 3000 B"):
        check_budgets(run)


def _row(policy: str, k: int) -> dict[str, Any]:
    row: dict[str, Any] = dict.fromkeys(
        ("frames", "upload_bytes", "update_bytes", "sent", "applied", "identifiable", "exposed"), 0
    )
    row |= {"policy": policy, "seed": 0, "device": 0, "round": k, "domain": "dusk", "returned": 0}
    maps = dict.fromkeys(("map", "map_before", "map_after"), 0.2)
    return {**row, **maps, "edge_seconds": 0.0, "device_seconds": 0.0}


def test_what_was_played_is_written_before_the_next_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def run(*given: Any) -> list[dict[str, Any]]:
        given[-1]([_row("equal", 1), _row("equal", 2)])
        raise BadInput("the next policy cannot be played")

    monkeypatch.setattr(summary, "run", run)
    with pytest.raises(BadInput, match="next policy"):
        loop_stage(load_config("demo-loop"), tmp_path, None, lambda *_: None)
    with (tmp_path / "rounds.csv").open(newline="") as file:
        assert [r["round"] for r in csv.DictReader(file)] == ["1", "2"]
    assert (tmp_path / "summary.csv").is_file()
    assert (tmp_path / "loop.svg").is_file()
    assert (tmp_path / "config.yaml").is_file()


def test_where_no_domain_came_back_there_is_a_dash() -> None:
    table = summary._table(summary.summarize([_row("equal", 1), _row("equal", 2)]))
    assert "nan" not in table
    assert "–" in table
    assert summary._returned(0.0123) == "  +1.23"


def test_held_back_reads_as_that_on_the_device(monkeypatch: pytest.MonkeyPatch) -> None:
    why = "the held-back frames show no improvement"
    held = Outcome(3, "missed", HELD_BACK + why, 8.06, math.nan)
    assert str(held) == f"round 3: held back after 8.1 s, {why}"
    lost = Outcome(4, "missed", "overtaken", 1.0, math.nan)
    assert str(lost) == "round 4: missed after 1.0 s, overtaken"
    assert str(Outcome(5, "applied", "", 2.0, 0.321)) == "round 5: applied after 2.0 s, mAP 32.1 %"

    def answered(record: dict[str, Any]) -> str:
        store = SimpleNamespace(nodes=lambda kind: [], remove=lambda key: None)
        answer = SimpleNamespace(record=record, key="k", folder=Path())
        monkeypatch.setattr(adaptation, "Store", lambda folder: store)
        maker = SimpleNamespace(answer=lambda *_, **__: answer)
        monkeypatch.setattr(adaptation, "Answers", lambda *_: maker)
        monkeypatch.setattr(adaptation, "unpack_batch", lambda *_, **__: iter(()))
        inputs: Any = SimpleNamespace(
            config=SimpleNamespace(
                serve=SimpleNamespace(frames=9),
                edge=SimpleNamespace(memory_rounds=1),
                end=SimpleNamespace(models_bytes=0),
                seeds=(0,),
            )
        )
        job: Any = SimpleNamespace(
            batch=b"", device_id="cam", round_index=1, base_round=0, budget_bytes=9
        )
        with pytest.raises(BadInput) as caught:
            adaptation.adapt(inputs, Path(), job)
        return str(caught.value)

    assert answered({"sent": False, "reason": why, "loss_before": 1.0}) == HELD_BACK + why
    assert answered({"sent": False, "reason": "2 usable frames"}) == "2 usable frames"
