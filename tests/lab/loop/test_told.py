"""What policies are told in the loop, what they decide, and the air that they share."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from endedge.allocator import Known, Link, Range, Split, register
from endedge.data.errors import BadInput
from endedge.lab.loop.answers import HELD_BACK
from endedge.lab.loop.policies import Air, adaptive, history_of, split_of, told, watches

AIR = Air(
    100.0,
    2,
    1e-3,
    0.5e-3,
    Range(5000.0, 60_000.0),
    Range(4000.0, 80_000.0),
    Link(3137.0, 100.0, 2.55, 5.1),
    12,
)


@pytest.mark.parametrize(
    "name", ["equal", "data-only", "model-only", "static-0.8", "static-0.1", "no-update"]
)
def test_splits_fit_the_air(name: str) -> None:
    split = split_of(name, AIR)
    assert AIR.cost_s(split) <= AIR.room_s / 2 * (1 + 1e-9)
    assert split.sends == (name != "no-update")


def _rounds(gain: Any) -> list[dict[str, Any]]:
    """What a device noted of seven rounds, each with another share of the air."""
    found = []
    for k, share in enumerate((0.1, 0.3, 0.5, 0.7, 0.9, 0.2, 0.8), start=1):
        split = AIR.slot.with_share(share)
        found.append(
            {
                "round": k,
                "frames": k,
                "upload_bytes": split.upload_bytes,
                "update_bytes": split.update_bytes,
                "budget_bytes": split.update_bytes,
                "monitor_before": 0.2,
                "monitor_after": 0.2 + gain(split),
                "applied": 1,
                "reason": "",
                "place": 0,
            }
        )
    return found


@pytest.mark.parametrize("name", ["fitted", "fitted-bytes", "robust", "monotone", "thief"])
def test_policies_of_the_benchmark_learn_in_the_loop(name: str) -> None:
    """The same policies: told what frames gained they send frames, what the model gained, a model;
    told nothing yet, they explore."""
    frames = _rounds(lambda s: 0.3 * s.upload_bytes / AIR.upload.high)
    model = _rounds(lambda s: 0.3 * s.update_bytes / AIR.update.high)
    air = replace(AIR, room_s=50.0)  # at the very end of a period nothing is worth anything
    (up, words), (down, _) = (told(name, 8, r, air, None, 0) for r in (frames, model))
    assert words
    assert up.upload_bytes > down.upload_bytes
    assert down.update_bytes > up.update_bytes
    early = [told(name, k, [], AIR, None, 0) for k in (1, 2)]
    assert [words for _, words in early] == ["", ""]
    assert early[0][0] == AIR.slot.with_share(0.5) != early[1][0]


def test_a_policy_is_told_what_its_rounds_gained() -> None:
    heard: list[Known] = []

    @register("listener")
    def listener(known: Known) -> Split:
        heard.append(known)
        return known.budget.with_share(0.25)

    rows = _rounds(lambda s: 0.1)
    split, _ = told("listener", 8, rows, AIR, None, 0)
    assert split == AIR.slot.with_share(0.25)
    assert [h.period for h in heard[0].history] == [1, 2, 3, 4, 5, 6, 7]
    assert heard[0].history[2].after - heard[0].history[2].before == pytest.approx(0.1)
    told("listener", 1, [], AIR, None, 0)  # it asks no curves, so it plays from the first
    assert heard[1].history == ()
    assert watches("listener")
    assert not watches("equal")


def test_the_adaptive_policy_learns_which_side_pays() -> None:
    """Where only frames help it moves the air to frames, where only the model helps, to it."""
    air = AIR
    frames = _rounds(lambda s: 0.3 * s.upload_bytes / air.upload.high)
    model = _rounds(lambda s: 0.3 * s.update_bytes / air.update.high)
    splits, words = adaptive([frames, model], air, None)
    assert splits[0].upload_bytes > splits[1].upload_bytes
    assert splits[1].update_bytes > splits[0].update_bytes
    assert all(words)
    assert sum(map(air.cost_s, splits)) <= air.room_s * (1 + 1e-6)
    fresh, _ = adaptive([[], []], air, None)  # nothing known
    assert fresh[0].sends
    assert fresh[1].sends
    assert sum(map(air.cost_s, fresh)) <= air.room_s * (1 + 1e-6)
    alone, _ = adaptive([frames], replace(air, devices=1), None)
    assert AIR.cost_s(alone[0]) <= AIR.room_s * (1 + 1e-9)


def test_what_policies_are_told_of_a_round() -> None:
    """Held back, lost, never made, across a change; places are known a round later."""

    def row(k: int, place: Any, **more: Any) -> dict[str, Any]:
        return {
            "round": k,
            "upload_bytes": 100 * k,
            "update_bytes": 10 * k,
            "budget_bytes": 20 * k,
            "monitor_before": 0.2,
            "monitor_after": 0.3,
            "applied": 1,
            "reason": "",
            "place": place,
            **more,
        }

    rows = [
        row(1, 0),
        row(2, 0, applied=0, reason=HELD_BACK),
        row(3, 1, applied=0),  # lost
        row(4, 1, applied=0, reason="3 usable frames (0 refused); an update needs 4"),
        row(5, "", upload_bytes=0),
        row(6, 0),
    ]
    found = history_of(rows, AIR)
    assert [h.learned_in for h in found] == [0, 0, -1, -1, -1, 0]
    assert [h.judged_in for h in found] == [0, 1, 1, -1, 0, -1]
    assert [h.refused for h in found] == [False, True, False, False, False, False]
    assert found[1].update_bytes == 40  # what it would have been, about
    piped = history_of(rows, replace(AIR, pipelined=True))
    assert [h.upload_bytes for h in piped] == [0, 0, 100, 200, 300, 400]
    assert [h.learned_in for h in piped] == [-1, -1, -1, -1, -1, 0]
    assert [h.judged_in for h in piped] == [1, -1, 0, -1, -1, -1]


def test_the_air_of_both_schedules() -> None:
    """In turns a byte costs seconds in which the old model serves; in a pipeline it costs hertz."""
    turns = replace(AIR, overhead_s=10.0).slot
    assert turns.fresh == pytest.approx(0.9)
    assert turns.fresh_share(1000.0, 2000.0) == pytest.approx(0.9 - 2 * (1.0 + 1.0) / 100)
    piped = replace(AIR, pipelined=True).slot
    assert piped.room == pytest.approx(3137 / 2)
    assert piped.cost(1000.0, 0.0) == pytest.approx(8 * 1000 / (100 * 2.55), rel=1e-3)
    assert piped.fresh_share(1000.0, 2000.0) == 1
    thick = AIR.at(2.0)
    assert thick.cost_s(Split(1000, 1000)) == pytest.approx(0.75)
    assert thick.link.bandwidth_hz == 2 * AIR.link.bandwidth_hz
    assert AIR.at(1e-4).slot.reason


def test_a_policy_of_the_loop_must_exist() -> None:
    from endedge.lab.loop.policies import check_policy

    for name in ("static-0.75+redacted", "federated", "adaptive+redacted", "fitted", "thief"):
        check_policy(name)
    with pytest.raises(BadInput, match="has to know how every round ends"):
        check_policy("oracle")
    for name in ("static-1.5", "federated+redacted", "static", ""):
        with pytest.raises(BadInput, match="there are adaptive"):
            check_policy(name)
