"""In which precision a folder's models are trained: as the configuration says; ``auto`` measures
once which is fast here and writes it into the folder's ``config.yaml``, which decides from then on.

One surface has one precision, also when it is resumed on a processor that another would suit
better: its points could not be compared otherwise.
"""

from __future__ import annotations

import logging
import math
import platform
import time
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path

import torch
from torch import Tensor

from endedge.data.storage import locked, write_atomic
from endedge.distill.losses import heads
from endedge.distill.model import clone
from endedge.distill.precision import autocast, computing
from endedge.lab.config import Config, load_config
from endedge.lab.devices import check_device, device_of, placed
from endedge.lab.inputs import Inputs
from endedge.lab.sweep.workers import one_thread

__all__ = ["Paces", "fastest", "settled", "settled_here", "step_seconds", "warn_if_slow"]

Paces = Mapping[str, float]
"""Seconds that a small training step takes, by precision."""

_SECONDS = 2.0  # that are spent on measuring
_WORTH = 1.25  # so much faster than fp32 a less exact precision must be to be chosen
_SLOW = 1.1  # as long as fp32
_HOPELESS = 4.0  # as long, on two pictures
_log = logging.getLogger("endedge")


def settled(config: Config, folder: Path, measure: Callable[[], Paces]) -> Config:
    """``config`` with a device (:func:`~endedge.lab.devices.placed`) and a precision: where that
    is ``auto``, the one in ``config.yaml`` of ``folder``, or the :func:`fastest` by ``measure()``,
    which is then written there. Of several commands on one folder one decides. Raises
    :class:`BadInput` where that file cannot be read."""
    config = placed(config, folder)
    if config.precision != "auto":
        return config
    with locked(folder / "locks" / "precision.lock"):
        file = folder / "config.yaml"
        said = load_config(file).precision if file.is_file() else "auto"
        if said != "auto":
            return config.model_copy(update={"precision": said})
        paces = measure()
        decided = config.model_copy(update={"precision": fastest(paces)})
        write_atomic(file, decided.to_yaml().encode())
    found = ", ".join(f"{name} {seconds:.2g} s" for name, seconds in paces.items())
    _log.info("precision: %s, written into %s (a step: %s)", decided.precision, file, found)
    return decided


def settled_here(config: Config, folder: Path) -> Config:
    """:func:`settled` by this process, which then trains; it says so where that is slow. Raises
    :class:`BadInput` where it has not the device."""
    check_device(device_of(config, folder))

    @cache
    def measure() -> Paces:
        inputs = Inputs.of(config, folder)
        with one_thread():
            return step_seconds(inputs)

    config = settled(config, folder, measure)
    warn_if_slow(config, folder, measure)
    return config


def fastest(paces: Paces) -> str:
    """The most exact precision, or a less exact one (they come in that order) that is at least
    1.25 times as fast as the best before it."""
    best = next(iter(paces))
    for name, seconds in paces.items():
        if seconds * _WORTH <= paces[best]:
            best = name
    return best


def warn_if_slow(config: Config, folder: Path, measure: Callable[[], Paces]) -> str:
    """Say so where the precision is slower than fp32 on this processor; what is said, or ''."""
    if config.precision == "fp32":
        return ""
    paces = measure()
    times = paces.get(config.precision, 0.0) / paces["fp32"]
    if times <= _SLOW:
        return ""
    says = (
        f"precision {config.precision} is {times:.1f} times as slow as fp32 on this processor "
        f"({processor()}); it stays, because all points of {folder} must have the same one: go on "
        "where it is fast, or measure in another folder with precision=fp32"
    )
    _log.warning(says)
    return says


def processor() -> str:
    """The name of the processor."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(
            line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")
        )
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def _wait_for(device: str) -> None:
    """Until it has done what it was given."""
    if torch.device(device).type == "cuda":
        torch.cuda.synchronize(device)
    elif device == "mps":
        torch.mps.synchronize()


def step_seconds(inputs: Inputs, seconds: float = _SECONDS) -> dict[str, float]:
    """The shortest step (forward and backward through all layers) of the student, with its batch
    and side, in each precision that the device has, fp32 first; in turns until ``seconds`` are
    over, at least once. Two pictures go first: what is much slower for them is not tried on a
    batch. Processor time on a CPU, so that a busy machine does not decide."""
    device, kind = inputs.device, inputs.kind
    names = ("fp32", "tf32", "bf16") if kind == "cuda" else ("fp32", "bf16")
    model = clone(inputs.student).to(device).train().requires_grad_(True)
    model.to(memory_format=torch.channels_last)
    clock = time.process_time if kind == "cpu" else time.perf_counter

    def step(name: str, images: Tensor) -> float:
        _wait_for(device)
        began = clock()
        with computing(name, device):
            with autocast(device):
                found = heads(model(images))[0]
            (found["scores"].float().square().mean() + found["boxes"].float().mean()).backward()
        _wait_for(device)
        return clock() - began

    images = torch.rand(inputs.config.student.batch, 3, inputs.side, inputs.side, device=device)
    images = images.contiguous(memory_format=torch.channels_last)
    step("fp32", images[:2])  # what is done once
    few = {name: step(name, images[:2]) for name in names}
    fair = [name for name in names if few[name] <= _HOPELESS * few["fp32"]]
    best: dict[str, float] = {}
    began = time.perf_counter()
    while not best or time.perf_counter() - began < seconds:
        for name in fair:
            best[name] = min(best.get(name, math.inf), step(name, images))
    return {name: best.get(name, few[name] / few["fp32"] * best["fp32"]) for name in names}
