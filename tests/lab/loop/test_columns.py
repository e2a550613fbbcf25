"""Every column of ``rounds.csv`` and ``summary.csv`` by hand.

Two devices play a round of the real loop code on models that are only names: what each captures,
uploads, is answered and scores was written down, and every figure differs from every other.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from endedge.allocator import Split
from endedge.data.errors import BadInput
from endedge.end.device import Sent
from endedge.lab.config import Config, load_config
from endedge.lab.loop import loop as rounds
from endedge.lab.loop import policy_run
from endedge.lab.loop.loop import one_round
from endedge.lab.loop.policy_run import DeviceState, PolicyRun
from endedge.lab.store import Node

PERIOD_S, EDGE_S, LATENCY_S = 100.0, 7.0, 0.5
UP_BYTE_S, DOWN_BYTE_S = 8 / (1000 * 2.0), 8 / (1000 * 4.0)  # at 1 kHz, 2 and 4 bit/s/Hz
LOOP = {
    "bandwidth_hz": 1000,
    "edge_s": EDGE_S,
    "latency_s": LATENCY_S,
    "domains": {"day": {}, "dusk": {"kind": "night"}},
    "days": [[{"domain": "day", "periods": 9}], [{"domain": "dusk", "periods": 9}]],
    "lost": [4],
}


@pytest.fixture(scope="module")
def config() -> Config:
    link = f"period_s={PERIOD_S}", "up_bit_per_s_per_hz=2", "down_bit_per_s_per_hz=4"
    changes = [f"link.{change}" for change in (*link, "schedule=sequential")]
    return load_config("demo", [*changes, f"loop={json.dumps(LOOP)}", "edge.memory_rounds=2"])


@dataclass(frozen=True)
class Model:
    """A model that is only a name."""

    name: str


# mAP on (results, monitor) by model and domain.
SCORES = {
    ("came", "day"): (0.20, 0.21),
    ("old", "dusk"): (0.30, 0.31),
    ("new-1", "day"): (0.50, 0.52),
    ("new-2", "dusk"): (0.60, 0.63),
}
# What each device uploads, and the answer to it.
SENT = [Sent(b"u" * 3000, 5, 9, 2), Sent(b"v" * 4000, 6, 8, 3)]
ANSWERS: list[dict[str, Any]] = [
    {"seconds": 1.5, "update_bytes": 1000, "mode": "full", "reason": "", "sent": True},
    {"seconds": 2.5, "update_bytes": 2000, "mode": "delta", "reason": "", "sent": True},
]
SPLITS = [Split(3300.0, 1100.9), Split(4400.0, 2200.9)]


class Device:
    """``number`` 0 sees ``day`` and ran nothing yet, 1 sees ``dusk`` and holds ``old``."""

    def __init__(self, number: int) -> None:
        before, now = (SimpleNamespace(name=n) for n in ("dawn", ("day", "dusk")[number]))
        self.number, self.end = number, self
        self.periods = [
            SimpleNamespace(
                start_s=k * PERIOD_S,
                domain=now if k > 2 else before,
                returning=number == 1,
                segment=k // 3,
            )
            for k in range(9)
        ]
        self.uploads: list[tuple[Any, ...]] = []

    def score(self, model: Model, domain: Any, *, monitor: bool = False) -> float:
        return SCORES[model.name, domain.name][monitor]

    def upload(self, period: int, model: Model, upload_bytes: float, *, redacted: bool) -> Sent:
        self.uploads.append((period, model.name, upload_bytes, redacted))
        return SENT[self.number]

    def apply(self, package: bytes, running: Model, kept: object) -> Model:
        if package.startswith(b"broken"):
            raise BadInput("of another model")
        return Model(f"new-{self.number + 1}")


class Edge:
    """Answers from :data:`ANSWERS`, as nodes in ``folder``."""

    def __init__(self, folder: Path, answers: list[dict[str, Any]], packages: list[bytes]) -> None:
        self.folder, self.answers, self.packages = folder, answers, packages
        self.asked: list[dict[str, Any]] = []

    def answer(
        self, device_id: str, round_index: int, batch: bytes, budget_bytes: int, **around: Any
    ) -> Node:
        number = int(device_id[-1])
        self.asked.append({"id": device_id, "round": round_index, "budget": budget_bytes, **around})
        folder = self.folder / f"answer-{number}"
        folder.mkdir(exist_ok=True)
        (folder / "update.eeu").write_bytes(self.packages[number])
        record = {"model": f"new-{number + 1}", **self.answers[number]}
        return Node(f"answer-{number}", folder, record, 0.0)

    def heard(self, answer: Node, models: list[Node | None]) -> Node | None:
        """Of the first device's upload only: the other's was too small to be labelled."""
        if answer.key == "answer-1":
            return None
        assert models == [None]
        return Node("heard-0", self.folder, {"losses": {"came": [1.0, 2.0]}}, 0.0)

    def student_of(self, answer: Node | None) -> Model:
        return Model("came") if answer is None else Model(answer.key.removeprefix("held-"))


@dataclass
class Played:
    """One round: its ``rows``, where devices stand ``after`` it, and who heard what."""

    rows: list[dict[str, Any]]
    after: list[DeviceState]
    devices: list[Device]
    edge: Edge


BEFORE = [
    DeviceState(),
    DeviceState("held-old", "held-known", certain=False, past=("held-a", "held-b")),
]


@pytest.fixture
def play(config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    def run(
        k: int = 3,
        answers: list[dict[str, Any]] = ANSWERS,
        packages: tuple[bytes, ...] = (b"x" * 1000, b"y" * 2000),
        policy: str = "fitted+redacted",
        splits: list[Split] = SPLITS,
    ) -> Played:
        monkeypatch.setattr(policy_run, "model_hash", lambda model: model.name)
        monkeypatch.setattr(rounds, "decide_all", lambda *_: (splits, ["curve one", "curve two"]))
        run: Any = object.__new__(PolicyRun)
        run.inputs = SimpleNamespace(config=config)
        losses = {"losses": {"came": [1.0, 2.0]}}
        run.store = SimpleNamespace(open=lambda key: Node(key, tmp_path, losses, 0.0))
        run.name, run.seed, run.policy = policy, 7, policy.partition("+")[0]
        run.watches, run.redacted = policy != "equal", policy.endswith("+redacted")
        run.loop, run.levels = config.loop, (2.0, 1.0, 1.0, 1.0, 1.0)
        run.devices = [Device(0), Device(1)]
        run.edge = Edge(tmp_path, answers, list(packages))
        rows, after = one_round(run, k, BEFORE, [])
        return Played(rows, after, run.devices, run.edge)

    return run


# By hand: both upload from the start of the round, one after the other, on one band.
UP_1 = 3000 * UP_BYTE_S  # leaves the bottleneck
UP_2 = UP_1 + 4000 * UP_BYTE_S
READY_1 = UP_1 + LATENCY_S + EDGE_S  # the edge makes one answer at a time
READY_2 = max(UP_2 + LATENCY_S, READY_1) + EDGE_S
DOWN_1 = max(READY_1, UP_2) + 1000 * DOWN_BYTE_S  # after all uploads
DOWN_2 = max(READY_2, DOWN_1) + 2000 * DOWN_BYTE_S
APPLIED = [DOWN_1 + LATENCY_S, DOWN_2 + LATENCY_S]
FRESH = [1 - s / PERIOD_S for s in APPLIED]
WANTED: list[dict[str, Any]] = [
    {
        "policy": "fitted+redacted",
        "seed": 7,
        "device": 0,
        "round": 3,
        "time_s": 300.0,
        "domain": "day",
        "returned": 0,
        "frames": 5,
        "upload_bytes": 3000,
        "budget_bytes": 1100,
        "update_bytes": 1000,
        "mode": "full",
        "sent": 1,
        "lost": 0,
        "refused": 0,
        "applied": 1,
        "upload_s": UP_1 + LATENCY_S,
        "applied_s": APPLIED[0],
        "model_before": "came",
        "model_after": "new-1",
        "edge_model": "new-1",
        "map_before": 0.20,
        "map_after": 0.50,
        "map": 0.20 * (1 - FRESH[0]) + 0.50 * FRESH[0],
        "monitor_before": 0.21,
        "monitor_after": 0.52,
        "identifiable": 9,
        "exposed": 2,
        "edge_seconds": 1.5,
        "curve": "curve one",
        "reason": "",
        "bandwidth_hz": 1000.0,
        "place": 0,
    },
    {
        "policy": "fitted+redacted",
        "seed": 7,
        "device": 1,
        "round": 3,
        "time_s": 300.0,
        "domain": "dusk",
        "returned": 1,
        "frames": 6,
        "upload_bytes": 4000,
        "budget_bytes": 2200,
        "update_bytes": 2000,
        "mode": "delta",
        "sent": 1,
        "lost": 0,
        "refused": 0,
        "applied": 1,
        "upload_s": UP_2 + LATENCY_S,
        "applied_s": APPLIED[1],
        "model_before": "old",
        "model_after": "new-2",
        "edge_model": "new-2",
        "map_before": 0.30,
        "map_after": 0.60,
        "map": 0.30 * (1 - FRESH[1]) + 0.60 * FRESH[1],
        "monitor_before": 0.31,
        "monitor_after": 0.63,
        "identifiable": 8,
        "exposed": 3,
        "edge_seconds": 2.5,
        "curve": "curve two",
        "reason": "",
        "bandwidth_hz": 1000.0,
        "place": "",
    },
]


def _known(row: Mapping[str, Any]) -> dict[str, Any]:
    """All that does not depend on this machine's speed."""
    assert 0 < row["device_seconds"] < 60 or not row["applied"]
    return {name: value for name, value in row.items() if name != "device_seconds"}


@pytest.mark.parametrize("device", [0, 1])
def test_a_round_of_two_devices(play: Any, device: int) -> None:
    row = _known(play().rows[device])
    assert list(row) == list(WANTED[device])
    for column, value in WANTED[device].items():
        assert row[column] == (pytest.approx(value) if isinstance(value, float) else value), column


def test_what_devices_and_edge_are_asked(play: Any) -> None:
    played = play()
    assert played.devices[0].uploads == [(2, "came", 3300.0, True)]  # of the period before
    assert played.devices[1].uploads == [(2, "old", 4400.0, True)]
    one, two = played.edge.asked
    assert (one["id"], one["round"], one["budget"]) == ("fitted+redacted-0", 3, 1100)
    assert (one["base"], one["certain"], one["past"]) == (None, True, [])
    assert (two["id"], two["budget"], two["certain"]) == ("fitted+redacted-1", 2200, False)
    assert two["base"].key == "held-known"  # what the device acknowledged, as far as one knows
    assert [node.key for node in two["past"]] == ["held-a", "held-b"]


def test_a_second_period_in_a_domain_is_no_return(play: Any) -> None:
    assert [row["returned"] for row in play(k=5).rows] == [0, 0]


def test_where_devices_stand_after_it(play: Any) -> None:
    assert play().after == [
        DeviceState("answer-0", "answer-0", True, ("answer-0",), heard=("heard-0",)),
        DeviceState("answer-1", "answer-1", True, ("held-b", "answer-1")),
    ]


def test_a_round_whose_packages_are_lost(play: Any) -> None:
    played = play(k=4)
    for row, before in zip(played.rows, ("came", "old"), strict=True):
        assert (row["sent"], row["lost"], row["applied"], row["refused"]) == (1, 1, 0, 0)
        assert row["model_before"] == row["model_after"] == before
        assert row["map"] == row["map_before"] == row["map_after"]
        assert row["monitor_before"] == row["monitor_after"]
        assert row["applied_s"] == ""
    assert [row["update_bytes"] for row in played.rows] == [1000, 2000]  # they flew
    assert [(s.holds, s.acknowledged, s.certain) for s in played.after] == [
        (None, None, False),
        ("held-old", "held-known", False),
    ]


def test_a_package_that_the_device_cannot_use(play: Any) -> None:
    played = play(packages=(b"broken" + b"x" * 994, b"y" * 2000))
    row = played.rows[0]
    assert (row["sent"], row["lost"], row["refused"], row["applied"]) == (1, 0, 1, 0)
    assert row["reason"] == "of another model"
    assert row["model_after"] == "came"
    assert row["map"] == row["map_after"] == 0.20
    assert played.after[0] == DeviceState(None, None, True, ("answer-0",), heard=("heard-0",))
    assert played.rows[1]["applied"] == 1


def test_a_device_that_runs_another_model_than_the_edge_made_is_an_error(play: Any) -> None:
    with pytest.raises(AssertionError, match="device new-1, edge other"):
        play(answers=[{**ANSWERS[0], "model": "other"}, ANSWERS[1]])


def test_an_answer_that_the_edge_keeps_at_home(play: Any) -> None:
    kept = {**ANSWERS[0], "sent": False, "reason": "no improvement"}
    played = play(answers=[kept, ANSWERS[1]])
    row = played.rows[0]
    assert (row["sent"], row["applied"], row["reason"]) == (0, 0, "no improvement")
    assert (row["upload_bytes"], row["update_bytes"]) == (3000, 1000)  # made, and not sent
    assert row["map"] == row["map_after"] == 0.20
    assert played.after[0] == DeviceState(None, None, True, ("answer-0",), heard=("heard-0",))
    # The edge is free for the other one as soon as its upload is there, and so is the band.
    applied_s = UP_2 + LATENCY_S + EDGE_S + 2000 * DOWN_BYTE_S + LATENCY_S
    assert played.rows[1]["applied_s"] == pytest.approx(applied_s)


def test_who_sends_nothing_keeps_what_it_has(play: Any) -> None:
    played = play(splits=[Split(0.0, 0.0), SPLITS[1]])
    row = played.rows[0]
    for column in ("frames", "upload_bytes", "budget_bytes", "update_bytes", "sent", "upload_s"):
        assert row[column] == 0
    assert row["map"] == row["map_before"] == 0.20
    assert played.after[0] == BEFORE[0]
    assert [asked["id"] for asked in played.edge.asked] == ["fitted+redacted-1"]


def test_a_policy_that_does_not_watch_has_no_monitor(play: Any) -> None:
    row = play(policy="equal").rows[0]
    assert (row["monitor_before"], row["monitor_after"]) == ("", "")


def test_an_update_that_comes_after_the_period_is_worth_nothing_in_it(play: Any) -> None:
    late = (b"x" * 60_000, b"y" * 2000)
    row = play(packages=late).rows[0]
    assert row["applied_s"] > PERIOD_S
    assert (row["map"], row["map_after"]) == (0.20, 0.50)


def test_standings_forget_no_answer_that_somebody_needs() -> None:
    state = DeviceState("holds", "acknowledged", False, ("past",))
    assert state.keys == {"holds", "acknowledged", "past"}
    assert replace(state, holds=None).keys == {"acknowledged", "past"}
    noted = {"holds": "a", "acknowledged": "b", "certain": False, "past": ["c"]}
    assert DeviceState.read(noted) == DeviceState("a", "b", False, ("c",))
