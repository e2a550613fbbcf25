"""Edge and device as two processes: the loop's rounds over a real socket.

The edge's side is :mod:`endedge.lab.loop.serving` and :mod:`endedge.lab.loop.adaptation`; a device
walks through its day if the configuration has a loop, else through the pool in the order of a seed.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch

from endedge.data.codec import Codec
from endedge.data.errors import BadInput
from endedge.distill.model import load_detector, save_detector
from endedge.end.client.client import Capture, DeviceConfig, Outcome
from endedge.end.client.main import device_main
from endedge.end.device import DeviceEnd
from endedge.lab.config import Config, loop_of
from endedge.lab.devices import check_device
from endedge.lab.inputs import Inputs
from endedge.lab.loop.adaptation import adapt
from endedge.lab.loop.day import Day
from endedge.lab.loop.policies import split_of
from endedge.lab.loop.policy_run import air_of, levels_of
from endedge.lab.loop.serving import serve
from endedge.link.channel import read_link

__all__ = ["adapt", "day", "device", "serve"]

Say = Callable[[Outcome], None]


def device(
    config: Config,
    device: DeviceConfig,
    *,
    rounds: int,
    frames: int,
    budget_bytes: int,
    seed: int,
    on_outcome: Say,
) -> list[Outcome]:
    """Run a device for ``rounds`` rounds of ``frames`` new frames each, its camera's stream in
    the order of ``seed``; mAP is measured on the evaluation frames after each update.

    Raises :class:`BadInput` when the pool has too few frames.
    """
    torch.set_num_threads(1)
    inputs = Inputs.of(config, device.folder)
    check_device(inputs.device)
    stream, end = inputs.captured(seed), _end(inputs)
    if rounds * frames > len(stream):
        raise BadInput(f"{rounds} rounds of {frames} frames; the pool has {len(stream)}")

    def capture(round_index: int, model: Path | None) -> Capture | None:
        if round_index > rounds:
            return None
        new = stream[(round_index - 1) * frames : round_index * frames]
        return Capture(end.encode(new).batch, len(new), budget_bytes)

    def measure(model: Path) -> float:
        return end.evaluate(load_detector(model), inputs.evaluation_batch, inputs.evaluation).map

    return _run(inputs, device, capture, measure, on_outcome)


def day(
    config: Config, device: DeviceConfig, *, number: int, policy: str, on_outcome: Say
) -> list[Outcome]:
    """Run device ``number`` of a loop through its day, the air split by a fixed ``policy``; mAP is
    that of each period's domain. The same rounds, bit for bit, as `endedge loop` plays them."""
    torch.set_num_threads(1)
    inputs = Inputs.of(config, device.folder)
    check_device(inputs.device)
    days = loop_of(config).days
    if not 0 <= number < len(days):
        raise BadInput(f"--day {number}; the loop has days 0 to {len(days) - 1}")
    every = [Day(inputs, i, config.seeds[0]) for i in range(len(days))]
    if config.link.schedule == "pipelined":
        raise BadInput("over sockets a day is played in turns: link.schedule=sequential")
    air, who = air_of(every), every[number]
    levels = levels_of(loop_of(config).trace, config.link.period_s)

    def capture(round_index: int, model: Path | None) -> Capture | None:
        split = split_of(policy, air.at(levels[(round_index - 1) % len(levels)]))
        if round_index > loop_of(config).rounds or not split.sends:
            return None
        running = inputs.student if model is None else load_detector(model)
        sent = who.upload(round_index - 1, running, split.upload_bytes)
        return Capture(sent.batch, sent.frames, int(split.update_bytes))

    def measure(model: Path) -> float:
        round_index = int(model.stem.rpartition("-")[2])
        return who.score(load_detector(model), who.periods[round_index].domain)

    return _run(inputs, device, capture, measure, on_outcome)


def _end(inputs: Inputs) -> DeviceEnd:
    return DeviceEnd(Codec.parse(inputs.config.uplink.codecs[0]), inputs.side, inputs.device)


def _run(
    inputs: Inputs,
    device: DeviceConfig,
    capture: Callable[[int, Path | None], Capture | None],
    measure: Callable[[Path], float],
    on_outcome: Say,
) -> list[Outcome]:
    shape = {"up": inputs.config.link.up, "down": inputs.config.link.down}
    device = replace(device, models_bytes=inputs.config.end.models_bytes)
    given = {name: channel for name, channel in shape.items() if channel is not None}
    if given:
        device = replace(device, link=read_link(given))

    def install(package: bytes, base: Path | None, target: Path) -> None:
        held = inputs.student if base is None else load_detector(base)
        save_detector(_end(inputs).apply(package, held), target)

    return device_main(device, capture, install, measure, on_outcome=on_outcome)
