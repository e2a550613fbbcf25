"""A round in which no frame leaves a device: federated averaging in the packer's format."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from endedge.data.errors import BadInput
from endedge.data.frames import join
from endedge.distill.model import DetectionModel, model_hash, save_detector
from endedge.distill.package.choose import pack_for
from endedge.edge.edge import EdgeEnd
from endedge.edge.federated import average
from endedge.lab.loop.answers import round_seed
from endedge.lab.loop.day import Day
from endedge.lab.loop.policy_run import Clock, DeviceState, PolicyRun, Row
from endedge.lab.store import Node

__all__ = ["check_budgets", "federated_round"]


def federated_round(
    run: PolicyRun, k: int, states: Sequence[DeviceState], rows: Sequence[Row]
) -> tuple[list[Row], list[DeviceState]]:
    """No frame leaves a device: each fine-tunes its own model on what it captured (its owner's
    labels), sends the difference in the packer's format, and the edge sends back the mean.
    Devices train for ``edge_s`` at the same time; the air is shared equally. A mean that is the
    same package for several devices is on the air once. Nothing is held back: no frame of the
    devices is kept from training to judge a mean by, as the other policies' edge does."""
    start_s = k * run.inputs.config.link.period_s
    clock = Clock(run.inputs.config, start_s, True)  # the mean is broadcast
    up_bytes, down_bytes = _federated_budgets(run)
    made, after, local, weights = [], list(states), [], []
    arrived_s = start_s
    for device, state in zip(run.devices, states, strict=True):
        running = run.model(state.holds)
        row = run.opened(device, k, running)
        began = time.perf_counter()
        package, n = _learned(run, device, k, running, up_bytes)
        row |= {
            "upload_bytes": len(package),
            "budget_bytes": down_bytes,
            "device_seconds": time.perf_counter() - began,
        }
        arrived_s = clock.up.reserve(len(package), start_s + run.loop.edge_s)
        row["upload_s"] = arrived_s - start_s
        local.append(device.end.apply(package, running))  # a delta names its base: the edge has it
        weights.append(n)
        made.append(row)
    began = time.perf_counter()
    mean = average(local, weights)
    for i, device in enumerate(run.devices):
        answer = _mean_for(run, k, device, mean, states[i], down_bytes)
        made[i]["edge_seconds"] = (time.perf_counter() - began) / len(run.devices)
        after[i] = run.delivered(
            device, k, made[i], states[i].with_answer(answer.key, 1), answer, clock, arrived_s
        )
    return made, after


def check_budgets(run: PolicyRun) -> None:
    """Raises :class:`BadInput` for a share of the air that is too small for the least package one
    way or the other."""
    least = run.air.update.low
    for way, n_bytes in zip(("up", "down"), _federated_budgets(run), strict=True):
        if n_bytes < least:
            raise BadInput(
                f"loop.policies: {run.policy} has {max(n_bytes, 0)} B a device for the package "
                f"{way}; the least package is {least:.0f} B (downlink.budgets_bytes)"
            )


def _federated_budgets(run: PolicyRun) -> tuple[int, int]:
    share = float(run.policy.partition("-")[2] or 0.5)
    slot, most = run.air.slot, run.air.update.high
    up, down = share * slot.room / slot.up, (1 - share) * slot.room / slot.down
    return int(min(up, most)), int(min(down, most))


def _learned(
    run: PolicyRun, device: Day, k: int, running: DetectionModel, budget_bytes: int
) -> tuple[bytes, int]:
    """The package of what a device learned from its last period, and from how many frames;
    earlier frames, which it still has, are replayed as the edge does it."""
    config, seed = run.inputs.config, round_seed(run.seed, k)
    # The edge's steps, taken on the device: its own model is the one that is fine-tuned.
    own = EdgeEnd(replace(run.inputs.plan, teacher=config.student), seed)
    replayed = None
    if k > 1 and config.edge.replay_frames:
        past = join(
            [device.stacked(j) for j in range(max(0, k - 1 - config.edge.memory_rounds), k - 1)]
        )
        order = np.random.default_rng([seed, 0x4E91A7]).permutation(len(past))
        replayed = past.take([int(i) for i in order[: config.edge.replay_frames]])
    upload = own.split(device.stacked(k - 1), replayed)
    packed = pack_for(
        own.teach(running, upload).model,
        budget_bytes,
        running,
        config.downlink.mode,
        certain=True,
        frames=upload.trained.images,
        seed=seed,
        device=run.inputs.device,
    )
    return packed.data, len(upload.trained)


def _mean_for(
    run: PolicyRun,
    k: int,
    device: Day,
    mean: DetectionModel,
    state: DeviceState,
    budget_bytes: int,
) -> Node:
    """The mean as a package for one device. The edge has no frames to calibrate the packer."""
    base = run.model(state.acknowledged)
    mode = run.inputs.config.downlink.mode
    what = {
        "model": model_hash(mean),
        "base": model_hash(base),
        "certain": state.certain,
        "budget": budget_bytes,
        "mode": mode,
        "round": k,
        "id": f"{run.name}-{device.number}",
        "seed": run.seed,
    }

    def make(folder: Path) -> dict[str, Any]:
        packed = pack_for(
            mean, budget_bytes, base, mode, certain=state.certain, device=run.inputs.device
        )
        decoded = device.end.apply(packed.data, base)
        save_detector(decoded, folder / "student.safetensors")
        (folder / "update.eeu").write_bytes(packed.data)
        return {"mode": packed.report.mode, "model": model_hash(decoded)}

    return run.store.node("mean", what, make)
