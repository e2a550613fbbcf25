"""What the edge's half of a round is given and what comes out of its steps."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import wraps
from typing import Concatenate, ParamSpec, Protocol, TypeVar

from endedge.data.coco import Frame
from endedge.data.frames import Batch
from endedge.distill.graphs import recording
from endedge.distill.loss import Loss
from endedge.distill.model import DetectionModel
from endedge.distill.package.packing import Packed
from endedge.distill.precision import computing
from endedge.distill.training import Recipe
from endedge.edge.adapt import Adapted, Verdict
from endedge.edge.evidence import Evidence

__all__ = ["Plan", "Received", "Schedule", "Student", "Update", "in_its_precision", "with_shallow"]


class Schedule(Protocol):
    """How long and how fast to train on so many frames."""

    def recipe(self, n_frames: int, seed: int) -> Recipe: ...


@dataclass(frozen=True)
class Student:
    """A line of the menu: the detector of ``architecture`` (the name of its weights) with the
    share ``keep`` in (0, 1] of its parameters; ``shallow``: that one of which the first layers
    alone have learned, where the frames choose how deep."""

    architecture: str
    keep: float = 1.0
    shallow: bool = False

    def __str__(self) -> str:
        return self.kin + f" at {self.keep:.0%}" * (self.keep < 1)

    @property
    def kin(self) -> str:
        """What it shares with those that are cut from it."""
        return self.architecture + ", first layers" * self.shallow


def with_shallow(lines: Sequence[Student]) -> tuple[Student, ...]:
    """``lines``, and after each whole one its shallow one."""
    shallow = {line: [replace(line, shallow=True)] * (line.keep == 1) for line in lines}
    return tuple(each for line in lines for each in (line, *shallow[line]))


@dataclass(frozen=True)
class Plan:
    """How the edge answers, whatever is uploaded.

    ``teacher``, ``student``, ``recovery``: schedules of the three trainings; ``loss`` of the
    student; ``menu``: the students that compete for every budget, an architecture's whole one
    before its shallow and its pruned ones; those ``barred`` are never sent. The last
    ``held_share`` of an upload, at most ``held_most`` frames, is trained on by nobody: it chooses
    among ``shares`` of the way, and an answer needs ``least`` such frames. ``chosen``: instead, all
    frames are trained on and judged in turn, and choose the input adapter, depth and strength of
    the student too (:mod:`endedge.edge.choosing`); an answer then needs a gain of ``sure`` standard
    errors.
    ``labels``: whose (``truth``, ``pseudo``, ``mix-N``); ``mode`` of the packer; ``side`` px of the
    detectors' square input; ``device``: where it computes, in which ``precision`` it trains
    and judges, and whether a training step is one of ``cuda_graphs``.
    """

    teacher: Schedule
    student: Schedule
    recovery: Schedule
    loss: Loss
    menu: tuple[Student, ...]
    held_share: float
    held_most: int
    shares: tuple[float, ...]
    least: int
    labels: str
    mode: str
    side: int
    device: str
    chosen: bool = False
    sure: float = 1.0
    barred: tuple[Student, ...] = ()
    precision: str = "fp32"
    cuda_graphs: bool = False


@dataclass(frozen=True, eq=False)
class Received:
    """An upload as the edge decoded it: the usable ``frames`` in their order, their ``pictures``,
    and why others were ``refused``, a line each."""

    frames: tuple[Frame, ...]
    pictures: Batch
    refused: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class Update:
    """The answer. ``teacher`` and ``students`` before packing; ``decoded`` is what the device will
    hold, of the menu's ``line``; ``verdict``: the device's model now against ``decoded``, on the
    held-back frames; ``recalled``: the hash of the kept model that it builds upon or goes back to,
    if it is not the one that the device runs; ``evidence`` for the student where the frames chose
    it."""

    teacher: Adapted
    students: tuple[DetectionModel, ...]
    packed: Packed
    decoded: DetectionModel
    verdict: Verdict
    line: Student
    recalled: str = ""
    evidence: Evidence | None = None

    @property
    def helps(self) -> bool:
        """Whether the frames that no training saw say that it should be sent."""
        return self.verdict.helps


class _Planned(Protocol):
    @property
    def plan(self) -> Plan: ...


E = TypeVar("E", bound=_Planned)
P = ParamSpec("P")
R = TypeVar("R")


def in_its_precision(step: Callable[Concatenate[E, P], R]) -> Callable[Concatenate[E, P], R]:
    """A step whose networks compute in the precision of its edge's plan."""

    @wraps(step)
    def inside(edge: E, /, *arguments: P.args, **named: P.kwargs) -> R:
        plan = edge.plan
        with computing(plan.precision, plan.device), recording(plan.cuda_graphs):
            return step(edge, *arguments, **named)

    return inside
