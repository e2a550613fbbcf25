"""The menu of students, and which of its lines the device is fast enough for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from endedge.data.errors import BadInput
from endedge.distill.model import DetectionModel
from endedge.distill.package.sensitivity import synthetic_frames
from endedge.distill.pruning import prune
from endedge.edge.plan import Student
from endedge.end.latency import latency
from endedge.end.runtime import torch_network, torch_threads

__all__ = ["Menu", "fast_enough", "seconds_of"]

_SECONDS = 1.0  # of timing a line; 20 frames at least


@dataclass(frozen=True)
class Menu:
    """``lines``, an architecture's whole one first; those ``barred`` are trained, for others are
    cut from them, and never sent. ``latency_s``: of a frame, where it was measured."""

    lines: tuple[Student, ...]
    barred: tuple[Student, ...] = ()
    latency_s: Mapping[Student, float] = field(default_factory=dict)


def seconds_of(line: Student, start: DetectionModel, side: int) -> float:
    """What a frame of ``side`` px takes on this machine with one thread (`endedge latency`). A
    pruned line is timed as its ``start`` is cut, for training changes no layer."""
    frames = synthetic_frames(side=side)
    network = torch_network(start if line.keep == 1 else prune(start, line.keep, frames))
    with torch_threads(1):
        return latency(network, frames, runtime="torch", threads=1, seconds=_SECONDS).median_s


def fast_enough(lines: Sequence[Student], took_s: Sequence[float], most_s: float) -> Menu:
    """The menu of those ``lines`` of which a frame ``took_s`` at most ``most_s``. Raises
    :class:`BadInput` where there is none."""
    measured = dict(zip(lines, took_s, strict=True))
    able = {line.architecture for line in lines if measured[line] <= most_s}
    if not able:
        best = min(lines, key=lambda line: measured[line])
        raise BadInput(
            f"end.max_latency_s {most_s:g} s: no student is fast enough; the fastest, {best}, "
            f"takes {measured[best]:.3g} s a frame here"
        )
    left = tuple(line for line in lines if line.architecture in able)
    return Menu(left, tuple(line for line in left if measured[line] > most_s), measured)
