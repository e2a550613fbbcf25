"""Before and after an answer: who decides what may flow, and what the edge makes of an upload."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from endedge.allocator import Split
from endedge.lab.loop.day import Day
from endedge.lab.loop.policies import adaptive, told
from endedge.lab.loop.policy_run import DeviceState, PolicyRun, Row
from endedge.lab.store import Node

__all__ = ["answered", "decide_all"]

REMEMBERED = 4  # later models that the edge runs on every upload


def decide_all(run: PolicyRun, k: int, rows: Sequence[Row]) -> tuple[list[Split], list[str]]:
    """The split of every device, and the curves behind it in words."""
    histories = [[r for r in rows if r["device"] == d.number] for d in run.devices]
    air = run.air.at(run.level(k))
    if run.policy == "adaptive":
        return adaptive(histories, air, run.prior, recalls=run.inputs.config.end.models_bytes > 0)
    decided = [told(run.policy, k, own, air, run.prior, run.seed) for own in histories]
    return [split for split, _ in decided], [words for _, words in decided]


def answered(
    run: PolicyRun, k: int, device: Day, state: DeviceState, batch: bytes, split: Split, row: Row
) -> tuple[Node, DeviceState]:
    """Labels, teacher with replay, student, package against what the device holds; noted in the
    ``row``. Gives back the answer, and what the edge remembers.

    Args:
        run: the policy that is played.
        k: the round.
        device: whose upload came.
        state: what it holds and what the edge remembers of it.
        batch: the upload.
        split: ``update_bytes`` bounds the package.
        row: of the device in this round; seconds, bytes, reason and place are filled in.
    """
    answer = run.edge.answer(
        f"{run.name}-{device.number}",
        k,
        batch,
        int(split.update_bytes),
        base=run.answer(state.acknowledged),
        certain=state.certain,
        past=run.answers(state.past),
        kept=run.answers(state.kept),
    )
    row |= {
        "edge_seconds": answer.record["seconds"],
        "update_bytes": answer.record["update_bytes"],
        "reason": answer.record["reason"],
    }
    return answer, _remembered(run, state, answer, row)


def _remembered(run: PolicyRun, state: DeviceState, answer: Node, row: Row) -> DeviceState:
    """The edge remembers an answer; for a policy that watches it runs the models that it has on
    what came, the one that the device came with among them, and says which place it was."""
    after = state.with_answer(answer.key, run.inputs.config.edge.memory_rounds)
    if not run.watches:
        return after
    models = [None, *run.answers(state.past[-REMEMBERED:])]
    heard = run.edge.heard(answer, models)
    if heard is None:
        return after
    after = replace(after, heard=(*after.heard, heard.key))
    row["place"] = run.place(after.heard)
    return after
