"""The menu of students of an experiment, and which of its lines the device is fast enough for."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from endedge.data.errors import BadInput
from endedge.distill.model import DetectionModel
from endedge.distill.package.sensitivity import synthetic_frames
from endedge.distill.pruning import prune
from endedge.edge.plan import Student
from endedge.end.latency import latency
from endedge.end.runtime import torch_network, torch_threads
from endedge.lab.config import Config
from endedge.lab.store import Store

__all__ = ["Menu", "menu_of"]

_log = logging.getLogger("endedge")
_VERSION = 1  # of what is measured here; raise it when that changes
_SECONDS = 1.0  # of timing a line; 20 frames at least


@dataclass(frozen=True)
class Menu:
    """``lines``, an architecture's whole one first; those ``barred`` are trained, for others are
    cut from them, and never sent. ``latency_s``: of a frame, where it was measured."""

    lines: tuple[Student, ...]
    barred: tuple[Student, ...] = ()
    latency_s: Mapping[Student, float] = field(default_factory=dict)


def menu_of(
    config: Config, starts: Mapping[str, DetectionModel], folder: Path, hashes: Mapping[str, str]
) -> Menu:
    """The students of ``config``, from ``starts`` by architecture (``hashes``: what those are),
    without the ones that take more than ``end.max_latency_s`` a frame.

    That is measured once, on this machine with one thread (`endedge latency`), and kept in
    ``folder``: what is left out must not change when the work goes on. A pruned line is timed
    as its start is cut, not trained, for training changes no layer. Raises :class:`BadInput`
    where none is fast enough.
    """
    keeps = sorted(config.downlink.keep, key=lambda keep: keep < 1)
    lines = tuple(Student(name, keep) for name in starts for keep in keeps)
    if (most := config.end.max_latency_s) is None:
        return Menu(lines)

    def make(_: Path) -> dict[str, Any]:
        found = [_seconds(starts[x.architecture], x.keep, config.data.image_side) for x in lines]
        slow = [f"{x} ({s:.3g} s)" for x, s in zip(lines, found, strict=True) if s > most]
        if slow:
            _log.warning(
                "note: left out, as a frame takes longer than end.max_latency_s = %g s here: %s",
                most,
                ", ".join(slow),
            )
        return {"latency_s": found}

    determinants = {
        "version": _VERSION,
        "weights": dict(hashes),
        "keep": keeps,
        "side": config.data.image_side,
    }
    made = Store(folder).node("latency", determinants, make).record["latency_s"]
    measured = dict(zip(lines, made, strict=True))
    able = {line.architecture for line in lines if measured[line] <= most}
    if not able:
        best = min(lines, key=lambda line: measured[line])
        raise BadInput(
            f"end.max_latency_s {most:g} s: no student is fast enough; the fastest, {best}, takes "
            f"{measured[best]:.3g} s a frame here"
        )
    left = tuple(line for line in lines if line.architecture in able)
    return Menu(left, tuple(line for line in left if measured[line] > most), measured)


def _seconds(start: DetectionModel, keep: float, side: int) -> float:
    model = start if keep == 1 else prune(start, keep, synthetic_frames(side=side))
    network, frames = torch_network(model), synthetic_frames(side=side)
    with torch_threads(1):
        return latency(network, frames, runtime="torch", threads=1, seconds=_SECONDS).median_s
