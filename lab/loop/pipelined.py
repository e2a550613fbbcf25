"""A round of the pipelined schedule (FDD): both directions are busy all through every period.

What goes up in round k has arrived as it ends, the edge works on it in round k + 1, and the package
travels in round k + 2, as large as the split of that round has it; it serves from its end on.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from endedge.end.device import Sent
from endedge.lab.loop.day import Day
from endedge.lab.loop.deciding import answered, decide_all
from endedge.lab.loop.policies import PIPELINE
from endedge.lab.loop.policy_run import Clock, DeviceState, PolicyRun, Row
from endedge.lab.store import Node

__all__ = ["pipelined_round"]


class _Ends(Clock):
    """A package has arrived as its period ends: it has its share of the band, and no more."""

    def delivered_s(self, n_bytes: int, ready_s: float) -> float:
        return ready_s


def pipelined_round(
    run: PolicyRun, k: int, states: Sequence[DeviceState], rows: Sequence[Row]
) -> tuple[list[Row], list[DeviceState]]:
    """Round ``k`` of every device: its rows, and where the devices stand afterwards. In a row
    ``upload_bytes`` went up in this round; ``update_bytes`` came down, made from the upload of two
    rounds before."""
    period_s = run.inputs.config.link.period_s
    clock, ends_s = _Ends(run.inputs.config, k * period_s), (k + 1) * period_s
    splits, words = decide_all(run, k, rows)
    made, after = [], list(states)
    for i, (device, before, split) in enumerate(zip(run.devices, states, splits, strict=True)):
        running = run.model(before.holds)
        row = run.opened(device, k, running)
        made.append(row)
        waiting, uploaded = list(before.waiting), ""
        due = waiting.pop(0) if len(waiting) == PIPELINE else ""
        if run.away(device.number, k):
            row["reason"] = "the device is away"
        elif split.sends:
            sent = device.upload(k - 1, running, split.upload_bytes, redacted=run.redacted)
            uploaded = _on_disk(run, k, device, sent).key
            row |= {
                "frames": sent.frames,
                "upload_bytes": len(sent.batch),
                "upload_s": period_s,
                "budget_bytes": int(split.update_bytes),
                "identifiable": sent.identifiable,
                "exposed": sent.exposed,
                "curve": words[i],
            }
        state = after[i] = replace(before, waiting=(*waiting, uploaded))
        if not due or not uploaded:  # nothing has come, or nothing may go down
            continue
        answer, after[i] = answered(run, k, device, state, run.upload(due), split, row)
        if answer.record["sent"]:
            after[i] = run.delivered(device, k, row, after[i], answer, clock, ends_s)
    return made, after


def _on_disk(run: PolicyRun, k: int, device: Day, sent: Sent) -> Node:
    """An upload, until its answer has been made."""

    def make(folder: Path) -> dict[str, Any]:
        (folder / "upload.batch").write_bytes(sent.batch)
        return {"frames": sent.frames}

    digest = hashlib.sha256(sent.batch).hexdigest()
    what = {"id": f"{run.name}-{device.number}", "round": k, "seed": run.seed, "batch": digest}
    return run.store.node("upload", what, make)
