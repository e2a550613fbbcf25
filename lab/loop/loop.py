"""The closed loop: rounds over a drifting stream, policies side by side on the same frames.

Round k runs in period k of the stream with the frames captured in period k - 1: the devices
upload, the edge answers, the packages come down, one after the other on one band (TDD) and one
virtual clock (:mod:`pipelined`: both directions at once, a package two rounds after its frames).
Until its package is applied a device works with the model before; the mAP of a round is the average
over its period. One round is :func:`one_round`, top to bottom.

Every round of every policy is a node of the store: a killed loop goes on where it was.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from endedge.allocator.policies import from_file
from endedge.data.errors import BadInput
from endedge.lab.config import Config, loop_of
from endedge.lab.devices import check_device, kind_of_device
from endedge.lab.inputs import Inputs
from endedge.lab.loop.deciding import answered, decide_all
from endedge.lab.loop.federated import check_budgets, federated_round
from endedge.lab.loop.pipelined import pipelined_round
from endedge.lab.loop.policies import MeasuredPrior, check_policy
from endedge.lab.loop.policy_run import Clock, DeviceState, PolicyRun, Row
from endedge.lab.store import Node, Store
from endedge.lab.sweep.workers import how_many, in_processes, one_thread

__all__ = ["one_round", "play", "run"]

Rows = Sequence[Row]
DeviceStates = Sequence[DeviceState]


def play(run: PolicyRun, say: Callable[[str], None]) -> list[Row]:
    """All rounds of a policy, made or looked up: its rows of ``rounds.csv``."""
    make_round = federated_round if run.policy.startswith("federated") else one_round
    if run.air.pipelined:
        make_round = pipelined_round
    states: DeviceStates = [DeviceState() for _ in run.devices]
    rows: list[Row] = []
    parent = ""
    for k in range(1, run.loop.rounds + 1):
        before, so_far = states, tuple(rows)

        def make(_: Path, k: int = k, before: DeviceStates = before, so_far: Rows = so_far) -> Row:
            made, after = make_round(run, k, before, so_far)
            return {"rows": made, "standings": [asdict(s) for s in after]}

        what = {**run.determinants, "round": k, "parent": parent}
        node = run.store.node("round", what, make)
        parent = node.key
        rows += node.record["rows"]
        states = [DeviceState.read(noted) for noted in node.record["standings"]]
        _forget(run.store, before, states)
        mean = 100 * np.mean([r["map"] for r in node.record["rows"]])
        of = f"{run.name}, seed {run.seed}, round {k}/{run.loop.rounds}"
        say(f"{of}: mAP {mean:.1f} %")
    return rows


def one_round(
    run: PolicyRun, k: int, states: DeviceStates, rows: Rows
) -> tuple[list[Row], list[DeviceState]]:
    """Round ``k`` of every device: its rows, and where the devices stand afterwards."""
    start_s = k * run.inputs.config.link.period_s
    clock = Clock(run.inputs.config, start_s, level=run.level(k))
    splits, curves = decide_all(run, k, rows)
    made, after = [], list(states)
    answers: list[tuple[int, Node, float]] = []
    for i, (device, state, split) in enumerate(zip(run.devices, states, splits, strict=True)):
        running = run.model(state.holds)
        row = run.opened(device, k, running)
        made.append(row)
        if run.away(device.number, k):
            row["reason"] = "the device is away"
            continue
        if not split.sends:
            continue

        # Device: capture, select, encode what fits. Uplink: one device after the other.
        sent = device.upload(k - 1, running, split.upload_bytes, redacted=run.redacted)
        arrived_s = clock.up.reserve(len(sent.batch), start_s)

        # Edge: labels, teacher with replay, student, package against what the device holds.
        answer, after[i] = answered(run, k, device, state, sent.batch, split, row)
        row |= {
            "frames": sent.frames,
            "upload_bytes": len(sent.batch),
            "upload_s": arrived_s - start_s,
            "budget_bytes": int(split.update_bytes),
            "identifiable": sent.identifiable,
            "exposed": sent.exposed,
            "curve": curves[i],
        }
        if answer.record["sent"]:
            answers.append((i, answer, clock.answered_s(arrived_s)))

    # Downlink: as the packages are ready, once the band is free. Device: decode, evaluate.
    for i, answer, ready_s in answers:
        after[i] = run.delivered(run.devices[i], k, made[i], after[i], answer, clock, ready_s)
    return made, after


def _forget(store: Store, before: DeviceStates, after: DeviceStates) -> None:
    """Answers that nobody holds or remembers any more leave the disk."""
    for key in {k for s in before for k in s.keys} - {k for s in after for k in s.keys}:
        store.remove(key)


# All policies ---------------------------------------------------------------------------------


def run(
    config: Config,
    folder: Path,
    progress: Callable[[int, int, str], None],
    prior: Path | None,
    files: Sequence[Path] = (),
    finished: Callable[[list[Row]], None] = lambda rows: None,
) -> list[Row]:
    """Every policy with every seed on the same streams; all rows. Run again, it resumes. Worker
    processes run ``files``, in which policies are registered. ``finished`` hears all rows so far
    whenever a policy has been played to its end.

    Raises :class:`BadInput` for what cannot be played, before anything is measured.
    """
    if folder.exists() and not folder.is_dir():
        raise BadInput(f"--out {folder} is a file; give a folder")
    loop = loop_of(config)
    for name in loop.policies:
        check_policy(name)
    federated = any(name.startswith("federated") for name in loop.policies)
    if federated and (loop.trace is not None or loop.away):
        raise BadInput("federated averaging knows neither loop.trace nor loop.away; play it alone")
    if config.link.schedule == "pipelined":
        if federated:
            raise BadInput("federated averaging is played in turns: link.schedule=sequential")
        if (need_s := loop.edge_s * len(loop.days)) > config.link.period_s:
            raise BadInput(
                f"loop.edge_s: the edge needs {need_s:g} s for all devices, a period has "
                f"{config.link.period_s:g} s; a pipeline would grow without end"
            )
    measured = None if prior is None else MeasuredPrior.read(prior)
    inputs = Inputs.of(config, folder)
    blurs = any(name.endswith("+redacted") for name in loop.policies)
    if blurs and not set(loop.redact) & set(inputs.pool.names):
        raise BadInput(f"loop.redact names no class of these frames: {', '.join(loop.redact)}")
    first = PolicyRun(inputs, Store(folder), loop.policies[0], config.seeds[0], measured)
    if reason := first.air.at(max(first.levels)).slot.reason:  # in the best of its periods
        raise BadInput(f"loop.bandwidth_hz = {loop.bandwidth_hz:g}: {reason}")
    for name in loop.policies:
        if name.startswith("federated"):
            check_budgets(PolicyRun(inputs, Store(folder), name, config.seeds[0], measured))
    tasks = [(name, seed) for seed in config.seeds for name in loop.policies]
    rows: dict[tuple[str, int], list[Row]] = {}
    done, total = 0, len(tasks) * loop.rounds
    if loop.trace is not None and len(first.levels) < loop.rounds:
        progress(0, total, f"the trace lasts {len(first.levels)} periods and begins again")

    def hear(news: str | tuple[str, int], made: list[Row] | None = None) -> None:
        nonlocal done
        if made is not None and isinstance(news, tuple):
            rows[news] = made
            finished([row for task in tasks if task in rows for row in rows[task]])
        else:
            done += 1
            progress(done, total, str(news))

    check_device(inputs.device)
    config = config.model_copy(update={"device": inputs.device})
    workers = min(how_many(config), len(tasks))
    if workers == 1:
        with one_thread():
            for task in tasks:
                hear(task, play(PolicyRun(inputs, Store(folder), *task, measured), hear))
    else:
        alone = config.model_copy(update={"device": kind_of_device(inputs.device)})
        given = (alone, folder, measured, files)
        in_processes(workers, inputs.device, _begin, given, _task, tasks, hear)
    return [row for task in tasks for row in rows[task]]


_given: tuple[Inputs, Store, MeasuredPrior | None] | None = None  # of a worker process


def _begin(
    config: Config, folder: Path, prior: MeasuredPrior | None, files: Sequence[Path]
) -> None:
    global _given
    for file in files:
        from_file(file)
    _given = Inputs.of(config, folder), Store(folder), prior


def _task(task: tuple[str, int], news: Any) -> None:
    assert _given is not None
    inputs, store, prior = _given
    rows = play(PolicyRun(inputs, store, *task, prior), lambda message: news.put((message,)))
    news.put((task, rows))
