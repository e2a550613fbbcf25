"""A federated round by hand: what goes into the mean, with which weights, and when."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from endedge.lab.loop import federated
from endedge.lab.loop.federated import federated_round
from endedge.lab.loop.policy_run import DeviceState
from endedge.lab.store import Node

START_S, TRAIN_S, UP_BYTE_S = 300.0, 7.0, 0.004


@pytest.fixture
def played(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """Two devices that run ``run-0`` and ``run-1``, learned from 5 and 9 frames, and send 3000 and
    4000 bytes."""
    heard = SimpleNamespace(mean=[], delivered=[])

    class Uplink:
        free_s = 0.0

        def reserve(self, n_bytes: int, ready_s: float) -> float:
            self.free_s = max(self.free_s, ready_s) + UP_BYTE_S * n_bytes
            return self.free_s

    def learned(run: Any, device: Any, k: int, running: str, budget: int) -> tuple[bytes, int]:
        assert (running, budget) == (f"run-{device.number}", 7000)
        return (b"u" * 3000, 5) if device.number == 0 else (b"v" * 4000, 9)

    def average(models: list[str], weights: list[float]) -> str:
        heard.mean.append((models, weights))
        return "mean"

    def mean_for(run: Any, k: int, device: Any, mean: str, state: DeviceState, budget: int) -> Node:
        assert (mean, budget) == ("mean", 9000)
        return Node(f"mean-{device.number}", Path("nowhere"), {}, 0.0)

    monkeypatch.setattr(federated, "Clock", lambda *_: SimpleNamespace(up=Uplink()))
    monkeypatch.setattr(federated, "_federated_budgets", lambda run: (7000, 9000))
    monkeypatch.setattr(federated, "_learned", learned)
    monkeypatch.setattr(federated, "average", average)
    monkeypatch.setattr(federated, "_mean_for", mean_for)

    def device(number: int) -> SimpleNamespace:
        def apply(package: bytes, running: str) -> str:
            return f"{running} and {package[:1].decode()}"

        return SimpleNamespace(number=number, end=SimpleNamespace(apply=apply))

    def delivered(
        device: Any, k: int, row: Any, state: Any, answer: Any, clock: Any, ready_s: float
    ) -> DeviceState:
        heard.delivered.append((device.number, state.past, answer.key, ready_s))
        return DeviceState(answer.key, answer.key, True, (answer.key,))

    run: Any = SimpleNamespace(
        inputs=SimpleNamespace(config=SimpleNamespace(link=SimpleNamespace(period_s=100.0))),
        loop=SimpleNamespace(edge_s=TRAIN_S),
        devices=[device(0), device(1)],
        model=lambda key: key,
        opened=lambda device, k, running: {"device": device.number},
        delivered=delivered,
    )
    rows, after = federated_round(run, 3, [DeviceState("run-0"), DeviceState("run-1")], [])
    return SimpleNamespace(rows=rows, after=after, heard=heard)


def test_the_mean_is_of_what_was_learned_weighted_by_frames(played: SimpleNamespace) -> None:
    assert played.heard.mean == [(["run-0 and u", "run-1 and v"], [5, 9])]


def test_uploads_begin_after_the_training_and_share_the_air(played: SimpleNamespace) -> None:
    first = TRAIN_S + 3000 * UP_BYTE_S
    assert [row["upload_s"] for row in played.rows] == [
        pytest.approx(first),
        pytest.approx(first + 4000 * UP_BYTE_S),
    ]
    assert [row["upload_bytes"] for row in played.rows] == [3000, 4000]
    assert [row["budget_bytes"] for row in played.rows] == [9000, 9000]


def test_the_mean_comes_back_to_each_when_the_last_upload_is_there(
    played: SimpleNamespace,
) -> None:
    ready_s = START_S + TRAIN_S + 7000 * UP_BYTE_S
    assert played.heard.delivered == [
        (0, ("mean-0",), "mean-0", pytest.approx(ready_s)),
        (1, ("mean-1",), "mean-1", pytest.approx(ready_s)),
    ]
    assert [state.holds for state in played.after] == ["mean-0", "mean-1"]


def test_the_air_is_shared_as_the_name_says() -> None:
    slot = SimpleNamespace(room=40.0, up=0.004, down=0.002)
    for name, up, down in (("federated", 5000, 10_000), ("federated-0.2", 2000, 16_000)):
        air = SimpleNamespace(slot=slot, update=SimpleNamespace(high=30_000))
        run: Any = SimpleNamespace(policy=name, air=air)
        assert federated._federated_budgets(run) == (up, down)


def test_a_device_trains_the_model_that_it_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    """On its last period, and on earlier ones that it still has."""
    told: list[Any] = []

    class Frames(list[int]):
        def take(self, at: list[int]) -> Frames:
            return Frames(self[i] for i in at)

    class Known:
        images = "images"

        def __len__(self) -> int:
            return 14

    class Own:
        def __init__(self, plan: Any, seed: int) -> None:
            told.append(("seed", seed))

        def split(self, fresh: Frames, replayed: Frames | None) -> Any:
            told.append(("split", list(fresh), sorted(replayed or [])))
            return SimpleNamespace(trained=Known())

        def teach(self, running: str, known: Any) -> Any:
            told.append(("teach", running))
            return SimpleNamespace(model=f"{running}, taught")

    monkeypatch.setattr(federated, "EdgeEnd", Own)
    monkeypatch.setattr(federated, "join", lambda parts: Frames(x for p in parts for x in p))
    monkeypatch.setattr(federated, "replace", lambda plan, **changes: (plan, changes))

    def pack_for(model: str, budget: int, base: str, mode: str, **_: Any) -> Any:
        told.append(("pack", model, budget, base, mode))
        return SimpleNamespace(data=b"package")

    monkeypatch.setattr(federated, "pack_for", pack_for)
    config = SimpleNamespace(
        student="schedule",
        edge=SimpleNamespace(replay_frames=2, memory_rounds=1),
        downlink=SimpleNamespace(mode="auto"),
    )
    run: Any = SimpleNamespace(
        inputs=SimpleNamespace(config=config, plan="plan", device="cpu"), seed=4, devices=[]
    )
    device: Any = SimpleNamespace(stacked=lambda k: Frames([10 * k, 10 * k + 1]))
    assert federated._learned(run, device, 3, "run", 500) == (b"package", 14)
    assert told == [
        ("seed", 4003),
        ("split", [20, 21], [10, 11]),
        ("teach", "run"),
        ("pack", "run, taught", 500, "run", "auto"),
    ]
