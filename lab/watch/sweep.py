"""What a page shows of a running sweep: counts, time left, the surface as it fills, losses."""

from __future__ import annotations

import re
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from endedge.lab.sweep.cell import Cell
from endedge.lab.sweep.grid import grid
from endedge.lab.sweep.status import Watched

__all__ = ["SweepView"]

_STEP = re.compile(r"step (\d+)/(\d+), loss (\d+(?:\.\d+)?)")
_MOST_LOSSES = 24  # trainings drawn, the newest


class SweepView:
    """The sweep of a results folder, looked at again and again.

    Raises :class:`BadInput` when there is no sweep in ``folder``.
    """

    kind = "sweep"

    def __init__(self, folder: Path) -> None:
        self.name = str(folder)
        self._watched = Watched(folder)
        # losses by step of the trainings that were heard, by node, with name and steps in all
        self._heard: dict[str, tuple[str, int, dict[int, float]]] = {}
        self._done: list[tuple[float, int]] = []

    def look(self) -> dict[str, Any]:
        """What there is now, as JSON has it."""
        found, survey = self._watched.look()
        now = time.time()
        if not self._done or self._done[-1][1] != found["done"]:
            self._done.append((now, found["done"]))
        return {
            **found,
            "m0": next((row["m0"] for row in survey.rows.values()), None),
            "surface": self._surface(survey.rows, survey.missing, found["failures"]),
            "losses": self._losses(found["running"]),
            "history": [list(entry) for entry in self._done],
        }

    def _surface(
        self,
        rows: Mapping[Cell, Mapping[str, Any]],
        missing: Mapping[Cell, str],
        failures: Iterable[Mapping[str, str]],
    ) -> dict[str, Any]:
        """Mean mAP by upload and budget over the seeds that are there."""
        failed = {entry["cell"] for entry in failures}
        places: dict[tuple[int, str, int], dict[str, Any]] = {}
        for cell in grid(self._watched.config):
            key = (cell.frames, cell.codec, cell.budget_bytes)
            place = places.setdefault(
                key,
                {
                    "frames": cell.frames,
                    "codec": cell.codec,
                    "budget_bytes": cell.budget_bytes,
                    "of": 0,
                    "failed": 0,
                    "maps": [],
                    "next": "",
                },
            )
            place["of"] += 1
            if cell in rows:
                place["maps"].append(float(rows[cell]["map"]))
            else:
                place["failed"] += str(cell) in failed
                place["next"] = missing[cell]
        return {
            "uploads": list(dict.fromkeys((p["frames"], p["codec"]) for p in places.values())),
            "budgets_bytes": sorted({p["budget_bytes"] for p in places.values()}),
            "cells": list(places.values()),
        }

    def _losses(self, running: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
        """The losses of each training that were heard, by step: those that run first, then those
        that are over, the newest first."""
        now = {entry["node"] for entry in running}
        for entry in running:
            heard = _STEP.search(entry["says"])
            if heard:
                name, of = entry["says"].partition(":")[0], int(heard[2])
                _, _, losses = self._heard.setdefault(entry["node"], (name, of, {}))
                losses[int(heard[1])] = float(heard[3])
        for key in [key for key in self._heard if key not in now][:-_MOST_LOSSES]:
            del self._heard[key]
        found = [
            {
                "name": name,
                "running": key in now,
                "of": of,
                "steps": sorted(losses),
                "losses": [losses[step] for step in sorted(losses)],
            }
            for key, (name, of, losses) in reversed(self._heard.items())
        ]
        return sorted(found, key=lambda one: not one["running"])
