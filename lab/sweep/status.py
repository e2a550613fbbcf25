"""What there is of a sweep, seen from outside: the folder says it all, no process is asked."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from endedge.lab.config import Config, config_of
from endedge.lab.inputs import Inputs
from endedge.lab.store import Node, Peek, Running
from endedge.lab.sweep.cell import Cell
from endedge.lab.sweep.executors import engine_of
from endedge.lab.sweep.grid import Survey, failure_file, grid
from endedge.lab.sweep.scheduler import TRUNK_STAGES

__all__ = ["StageSeconds", "Watched", "format_status", "status"]


def status(folder: Path) -> dict[str, Any]:
    """Counts of ``cells``, ``done``, ``failed`` and ``waiting``; ``running`` nodes; ``failures``
    with their reasons; ``seconds_left`` (``None`` until each stage was timed once).

    Raises :class:`BadInput` when ``folder`` holds no sweep.
    """
    return Watched(folder).look()[0]


class Watched:
    """A results folder that is looked at again and again: its inputs are loaded once, and a node
    that was found whole is not read again.

    Raises :class:`BadInput` when ``folder`` holds no sweep.
    """

    def __init__(self, folder: Path) -> None:
        self.folder, self.config = folder, config_of(folder)
        self._inputs, self._peek = Inputs.of(self.config, folder), Peek(folder)

    def look(self) -> tuple[dict[str, Any], Survey]:
        """What :func:`status` says, and what there is of every cell."""
        folder, config, cells = self.folder, self.config, grid(self.config)
        found = Survey(self._inputs, folder, cells, self._peek)
        failures = []
        for cell in found.missing:
            with suppress(OSError, ValueError):
                said = json.loads(failure_file(folder, cell).read_text(encoding="utf-8"))
                failures.append({"cell": str(cell), "reason": str(said["reason"])})
        running, now = self._peek.running(), time.time()
        workers = len({(r.host, r.pid) for r in running}) or engine_of(config)[1]
        said = {
            "folder": str(folder),
            "name": config.name,
            "cells": len(cells),
            "done": len(found.rows),
            "failed": len(failures),
            "waiting": len(found.missing) - len(failures),
            "workers": len({(r.host, r.pid) for r in running}),
            "seconds_left": StageSeconds.of(found.nodes, config).left(
                found.missing, running, workers
            ),
            "running": [
                {
                    "node": r.key,
                    "host": r.host,
                    "pid": r.pid,
                    "seconds": round(now - r.since, 1),
                    "says": r.says,
                }
                for r in running
            ],
            "failures": failures,
        }
        return said, found


@dataclass(frozen=True)
class StageSeconds:
    """Seconds a stage takes, from those that were measured: a step of the teacher's and of the
    student's training, one package, one evaluation."""

    config: Config
    rates: Mapping[str, float]

    @classmethod
    def of(cls, nodes: Iterable[Node], config: Config) -> StageSeconds:
        """The means over ``nodes``."""
        seconds: dict[str, float] = {}
        units: dict[str, float] = {}
        for node in nodes:
            if node.seconds > 0:
                stage = node.key.split("-")[0]
                seconds[stage] = seconds.get(stage, 0.0) + node.seconds
                units[stage] = units.get(stage, 0.0) + float(node.record.get("steps", 1))
        return cls(config, {stage: seconds[stage] / max(units[stage], 1.0) for stage in seconds})

    def trunk(self, cell: Cell, missing: str = "upload") -> float:
        """Seconds of teacher and student of a cell, from the stage ``missing`` on (s; NaN: not
        known)."""
        plan, nan = self.config, float("nan")
        steps = {
            "teacher": plan.teacher.recipe(cell.frames, cell.seed).steps,
            "student": plan.student.recipe(cell.frames, cell.seed).steps,
            "pruned": plan.recovery.recipe(cell.frames, cell.seed).steps
            * sum(kept < 1 for kept in plan.downlink.keep),
        }
        left = TRUNK_STAGES[TRUNK_STAGES.index(missing) :] if missing in TRUNK_STAGES else ()
        return sum(steps[s] * self.rates.get(s, nan) for s in left if steps.get(s))

    def leaf(self, missing: str = "package") -> float:
        """Seconds of package and evaluation, or of the evaluation only (s; NaN: not known)."""
        only = missing in ("start", "verdict", "cell")  # a verdict takes no time to speak of
        stages = ("cell",) if only else ("package", "cell")
        return sum(self.rates.get(stage, float("nan")) for stage in stages)

    def left(
        self, missing: Mapping[Cell, str], running: Iterable[Running], workers: int
    ) -> float | None:
        """Until all is done by so many workers: their share of the work, or the longest trunk."""
        trunks = {
            (cell.seed, cell.frames, cell.codec): self.trunk(cell, stage)
            for cell, stage in missing.items()
        }
        work = sum(trunks.values()) + sum(self.leaf(stage) for stage in missing.values())
        work -= sum(time.time() - r.since for r in running)
        left = max(work / workers, max(trunks.values(), default=0.0), 0.0)
        return None if left != left else left


def format_status(found: Mapping[str, Any]) -> str:
    """What :func:`status` found, for people."""
    left = found["seconds_left"]
    counts = ", ".join(f"{found[key]} {key}" for key in ("done", "failed", "waiting"))
    lines = [f"{found['name']}: {found['cells']} cells: {counts}"]
    for entry in found["running"]:
        lines.append(
            f"running  {entry['seconds']:6.0f} s  {entry['says'] or entry['node']}"
            f"  (process {entry['pid']} on {entry['host']})"
        )
    lines += [f"failed   {entry['cell']}: {entry['reason']}" for entry in found["failures"]]
    if found["done"] < found["cells"]:
        rest = "not known yet" if left is None else f"about {_spell(left)}"
        idle = "" if found["running"] else " once it runs again (nothing runs now)"
        lines.append(f"left     {rest}{idle}")
    return "\n".join(lines)


def _spell(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
