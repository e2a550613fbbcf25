"""The closed loop on a tiny experiment: what was sent is what runs, round after round."""

from __future__ import annotations

import csv
import shutil
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import yaml

from endedge.distill.model import model_hash
from endedge.distill.package.format import inspect
from endedge.edge.server.service import Job
from endedge.lab.cli.main import main
from endedge.lab.config import Config, load_config
from endedge.lab.inputs import Inputs
from endedge.lab.loop import loop as rounds
from endedge.lab.loop.loop import play
from endedge.lab.loop.policy_run import Clock, PolicyRun
from endedge.lab.loop.sockets import adapt
from endedge.lab.store import Node, Store

LOOP: dict[str, Any] = {
    "bandwidth_hz": "60kHz",
    "edge_s": 1,
    "domains": {"plain": {}, "dark": {"kind": "night", "severity": 2}},
    "days": [
        [
            {"domain": "plain", "periods": 2},
            {"domain": "dark", "periods": 1},
            {"domain": "plain", "periods": 2},
        ]
    ],
    "frames_per_period": 6,
    "eval_frames": 2,
    "monitor_frames": 2,
    "lost": [2],
    "redact": ["striped disk"],
}
SHORT = [[{"domain": "plain", "periods": 3}]]
MEASURED = ("edge_seconds", "device_seconds")


@pytest.fixture(autouse=True)
def _updates_always_help(monkeypatch: pytest.MonkeyPatch) -> None:
    """Random weights learn nothing in a step: here every update is sent."""
    monkeypatch.setattr("endedge.edge.edge.Update.helps", property(lambda update: True))


def tiny_loop(place: Path, **changes: Any) -> Config:
    document = yaml.safe_load((place / "c.yaml").read_text())
    document |= {"link": {"schedule": "sequential"}, "edge": {"replay_frames": 4}}
    document["downlink"] = {"budgets_bytes": [4000, 60_000], "mode": "delta"}
    document["loop"] = LOOP | changes
    (place / "loop.yaml").write_text(yaml.safe_dump(document))
    return load_config(place / "loop.yaml")


def run(place: Path, policy: str, **changes: Any) -> PolicyRun:
    config = tiny_loop(place, **changes)
    return PolicyRun(Inputs.of(config, place), Store(place / "out"), policy, 0, None)


def played(who: PolicyRun) -> list[dict[str, Any]]:
    return play(who, lambda message: None)


# Parts ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"policies": ["best"]}, "no policy 'best'"),
        ({"policies": ["equal", "equal"]}, "no policy twice"),
        ({"days": [[{"domain": "plain", "periods": 1}]]}, "at least 2 periods"),
        ({"days": [[{"domain": "mars", "periods": 3}]]}, "visits 'mars'"),
        ({"bandwidth_hz": 10}, "the least upload and package need"),
        ({"redact": ["person"], "policies": ["equal+redacted"]}, "names no class"),
        ({"frames_per_period": 60}, "frames to capture"),
        ({"trace": "/nowhere/trace"}, "cannot read trace"),
        ({"trace": "endedge:traces/walk", "policies": ["federated"]}, "play it alone"),
        ({"away": [{"device": 3, "first": 1, "last": 2}]}, "away names device 3"),
        ({"away": [{"device": 0, "first": 3, "last": 2}]}, "first 3 comes after last 2"),
    ],
)
def test_bad_loops_are_refused(
    place: Path, capsys: pytest.CaptureFixture[str], changes: dict[str, Any], message: str
) -> None:
    document = yaml.safe_load((place / "c.yaml").read_text())
    document |= {"loop": LOOP | changes, "link": {"schedule": "sequential"}}
    (place / "loop.yaml").write_text(yaml.safe_dump(document))
    assert main(["loop", str(place / "loop.yaml"), "--out", str(place / "bad")]) == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"edge_s": 61}, "a pipeline would grow without end"),
        ({"policies": ["equal", "federated"]}, "is played in turns"),
    ],
)
def test_a_pipeline_that_cannot_be_played(
    place: Path, capsys: pytest.CaptureFixture[str], changes: dict[str, Any], message: str
) -> None:
    document = yaml.safe_load((place / "c.yaml").read_text()) | {"loop": LOOP | changes}
    (place / "pipelined.yaml").write_text(yaml.safe_dump(document))
    assert main(["loop", str(place / "pipelined.yaml"), "--out", str(place / "bad")]) == 2
    assert message in capsys.readouterr().err


def test_without_a_loop_section() -> None:
    assert main(["loop", "demo", "--out", "/nowhere"]) == 2


def test_the_clock_is_that_of_the_link(place: Path) -> None:
    config = tiny_loop(place, latency_s=0.5)
    clock = Clock(config, 60.0)
    rate = 60_000 * 2.55 / 8
    first = clock.up.reserve(19_125, 60.0)
    second = clock.up.reserve(19_125, 60.0)
    assert first == pytest.approx(60 + 19_125 / rate + 0.5)
    assert second == pytest.approx(60 + 2 * 19_125 / rate + 0.5)
    assert clock.answered_s(first) == pytest.approx(first + 1)
    assert clock.answered_s(first + 0.2) == pytest.approx(first + 2)  # the edge was busy
    down_s = 37_500 / (60_000 * 5 / 8)
    assert clock.delivered_s(37_500, 0.0) == pytest.approx(second - 0.5 + down_s + 0.5)


# Played ---------------------------------------------------------------------------------------


def test_rounds_start_from_what_was_applied_and_a_lost_update_is_recovered(place: Path) -> None:
    who = run(place, "equal")  # its second package is lost
    rows = played(who)
    assert [r["round"] for r in rows] == [1, 2, 3, 4]
    assert [r["domain"] for r in rows] == ["plain", "dark", "plain", "plain"]
    assert [r["returned"] for r in rows] == [0, 0, 1, 0]
    assert [r["sent"] for r in rows] == [1, 1, 1, 1]
    assert [r["lost"] for r in rows] == [0, 1, 0, 0]
    assert [r["applied"] for r in rows] == [1, 0, 1, 1]

    # Round 2's update starts, on both sides, from the model that round 1 applied.
    answers = _answers(who)
    packages = [inspect((n.folder / "update.eeu").read_bytes()) for n in answers]
    first = rows[0]["model_after"]
    assert rows[0]["model_before"] == model_hash(who.inputs.student) != first
    assert first == rows[0]["edge_model"] == rows[1]["model_before"] == answers[1].record["base"]
    assert packages[1]["base"] == first[:32]  # a delta names its base

    # It is lost, so nobody acknowledges it: the edge sends a full package, and goes on from it.
    assert rows[1]["model_after"] == rows[2]["model_before"] == first
    assert (rows[2]["mode"], packages[2]["base"]) == ("full", None)
    assert rows[2]["model_after"] == rows[2]["edge_model"] == rows[3]["model_before"]
    assert answers[3].record["base"] == rows[3]["model_before"]
    assert rows[3]["model_after"] == rows[3]["edge_model"]

    for row in rows:  # bytes on the wire, within the split; mAP averaged over the period
        assert 0 < row["update_bytes"] <= row["budget_bytes"]
        fresh = 1 - row["applied_s"] / 60 if row["applied"] else 0
        mean = row["map_before"] * (1 - fresh) + row["map_after"] * fresh
        assert row["map"] == pytest.approx(mean)
    assert played(who) == rows  # nothing is made again


def test_a_pipeline_serves_two_rounds_later_and_waits_for_who_is_away(place: Path) -> None:
    """Up in round k, down in round k + 2, upon what the device holds then."""
    config = tiny_loop(place, lost=[], away=[{"device": 0, "first": 4, "last": 4}])
    days = [[{"domain": "plain", "periods": 8}]]
    loop = config.model_dump()["loop"] | {"days": days}
    link = config.model_dump()["link"] | {"schedule": "pipelined"}
    config = type(config).model_validate(config.model_dump() | {"loop": loop, "link": link})
    who = PolicyRun(Inputs.of(config, place), Store(place / "out"), "equal", 0, None)
    rows = played(who)
    assert [r["upload_bytes"] > 0 for r in rows] == [True, True, True, False, True, True, True]
    assert [r["applied"] for r in rows] == [0, 0, 1, 0, 1, 0, 1]  # what went up in 1, 3, 5
    assert rows[3]["reason"] == "the device is away"
    for row in rows:
        assert row["map"] == row["map_before"]  # it serves from the end of the period on
        if row["applied"]:
            assert row["applied_s"] == 60
            assert row["model_after"] == row["edge_model"] != row["model_before"]
    for row, following in pairwise(rows):
        assert following["model_before"] == row["model_after"]
    assert not list(Store(place / "out").nodes("upload"))[2:]  # those done with leave the disk
    assert played(who) == rows


def test_a_device_gone_for_three_rounds(place: Path) -> None:
    """The loop goes on and says so; on its return it runs what it ran, and learns upon that."""
    day = [{"domain": "plain", "periods": 6}]
    gone = [{"device": 1, "first": 2, "last": 4}]
    rows = played(run(place, "adaptive", days=[day, day], lost=[], away=gone))
    other, mine = ([r for r in rows if r["device"] == i] for i in (0, 1))
    assert [r["applied"] for r in other] == [1] * 5
    assert [r["applied"] for r in mine] == [1, 0, 0, 0, 1]
    assert [r["reason"] for r in mine[1:4]] == ["the device is away"] * 3
    assert mine[4]["model_before"] == mine[0]["model_after"]
    assert [r["place"] for r in mine] == [0, "", "", "", 0]


def test_the_bandwidth_of_a_trace(place: Path) -> None:
    """Periods of a third, one and five thirds of the mean; then it begins again."""
    counts, lines = (1, 3, 5), []
    for k, n in enumerate(counts):
        lines += [60_000 * k + 60_000 * (i + 1) // n for i in range(n)]
    (place / "trace").write_text("\n".join(map(str, lines)))
    rows = played(run(place, "equal", trace=str(place / "trace"), lost=[]))
    hz = [r["bandwidth_hz"] for r in rows]
    assert hz == pytest.approx([20_000, 60_000, 100_000, 20_000])
    for row in rows:
        seconds = row["upload_s"] - 0.03
        assert row["upload_bytes"] / seconds == pytest.approx(row["bandwidth_hz"] * 2.55 / 8)


def _answers(who: PolicyRun) -> list[Node]:
    return sorted(who.store.nodes("answer"), key=lambda node: int(node.record["round"]))


def test_the_service_behind_sockets_gives_the_same_packages(place: Path) -> None:
    who = run(place, "equal", days=SHORT, lost=[])
    rows = played(who)
    for row, answer in zip(rows, _answers(who), strict=True):
        k, batch = row["round"], (answer.folder / "upload.batch").read_bytes()
        job = Job("cam-1", k, k - 1, batch, row["budget_bytes"])
        for _ in range(2):  # a job that runs again after a crash, too
            package = adapt(who.inputs, place / "models", job)
            assert package == (answer.folder / "update.eeu").read_bytes()
    assert len(Store(place / "models" / "cam-1").nodes("answer")) == 2
    job = Job("cam-1", 1, 0, batch, row["budget_bytes"])
    adapt(who.inputs, place / "models", job)  # enrolled anew: what was before is forgotten
    assert len(Store(place / "models" / "cam-1").nodes("answer")) == 1


def test_killed_in_any_round_it_goes_on_and_ends_the_same(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    who = run(place, "equal", days=SHORT, lost=[])
    calm = played(who)
    shutil.rmtree(place / "out")
    real, calls = rounds.one_round, 0

    def dies(*arguments: Any) -> Any:
        nonlocal calls
        calls += 1
        made = real(*arguments)
        if calls % 2:
            raise KeyboardInterrupt  # after all of the round's work, before it is noted
        return made

    monkeypatch.setattr(rounds, "one_round", dies)
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            played(who)
    again = played(who)
    assert calls == 4  # each death costs its round only
    for one, two in zip(calm, again, strict=True):
        assert {**one, **dict.fromkeys(MEASURED)} == {**two, **dict.fromkeys(MEASURED)}


def test_federated_sends_no_frame(place: Path) -> None:
    day = [{"domain": "plain", "periods": 2}]
    one, two = played(run(place, "federated-0.4", days=[day, day]))
    assert one["frames"] == two["frames"] == 0
    assert min(one["upload_bytes"], one["update_bytes"], two["upload_bytes"]) > 0
    assert one["model_after"] == two["model_after"] != one["model_before"]  # both hold the mean


def test_the_verb_writes_all_files_and_resumes(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tiny_loop(place, policies=["adaptive", "no-update"], days=SHORT)
    command = ["loop", str(place / "loop.yaml"), "--out", str(place / "out")]
    assert main(command) == 0
    assert "adaptive" in capsys.readouterr().out
    files = ("config.yaml", "rounds.csv", "summary.csv", "loop.svg")
    before = {name: (place / "out" / name).read_bytes() for name in files}
    assert b"<svg" in before["loop.svg"]
    with (place / "out" / "rounds.csv").open(newline="") as file:
        assert len(list(csv.DictReader(file))) == 2 * 2
    assert main(command) == 0
    assert {name: (place / "out" / name).read_bytes() for name in files} == before


MINE = """
from endedge.allocator import Known, Split, register


@register("mine-of-a-file")
def mine(known: Known) -> Split:
    return Split(0.0, 0.0) if known.history else known.budget.with_share(0.5)  # once is enough
"""


def test_a_policy_from_a_file_plays_in_the_loop(place: Path) -> None:
    tiny_loop(place, policies=["no-update"], days=SHORT)
    (place / "mine.py").write_text(MINE)
    command = ["loop", str(place / "loop.yaml"), "--out", str(place / "out")]
    assert main([*command, "--policy", str(place / "mine.py")]) == 0
    with (place / "out" / "rounds.csv").open(newline="") as file:
        rows = [r for r in csv.DictReader(file) if r["policy"] == "mine-of-a-file"]
    assert [int(r["round"]) for r in rows] == [1, 2]
    assert [int(r["update_bytes"]) > 0 for r in rows] == [True, False]


def test_redacted_frames_leave_blurred_and_are_counted(place: Path) -> None:
    who = run(place, "equal+redacted")
    device, model = who.devices[0], who.inputs.student
    plain = device.upload(0, model, 1e6)
    redacted = device.upload(0, model, 1e6, redacted=True)
    assert (plain.identifiable, plain.exposed) == (0, 0)
    assert redacted.frames == plain.frames == 6
    assert 0 <= redacted.exposed <= redacted.identifiable > 0
    assert redacted.batch != plain.batch or redacted.exposed == redacted.identifiable
