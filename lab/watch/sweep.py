"""What a page shows of a running sweep: counts, time left, the surface as it fills, losses."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from endedge.lab.store import Node
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
        self._nodes = folder / "nodes"
        self._live: dict[str, dict[int, float]] = {}  # losses of running trainings by node
        self._called: dict[str, str] = {}
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
            "losses": self._losses(found["running"], survey.nodes),
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

    def _losses(
        self, running: Iterable[Mapping[str, Any]], nodes: Iterable[Node]
    ) -> list[dict[str, Any]]:
        """Of each training its losses by step: those that run, as they were heard, then those
        that are over."""
        found = []
        now = {entry["node"] for entry in running}
        for entry in running:
            heard = _STEP.search(entry["says"])
            if heard:
                losses = self._live.setdefault(entry["node"], {})
                losses[int(heard[1])] = float(heard[3])
                name = entry["says"].partition(":")[0]
                found.append({"name": name, "running": True, "of": int(heard[2]), **_drawn(losses)})
        for key in [key for key in self._live if key not in now]:
            del self._live[key]
        for node in reversed(list(nodes)):
            if node.key.startswith(("teacher-", "student-")) and node.record.get("losses"):
                losses = {int(k): float(v) for k, v in node.record["losses"].items()}
                over = {"name": self._name(node.key), "running": False, "of": max(losses)}
                found.append({**over, **_drawn(losses)})
        return found[:_MOST_LOSSES]

    def _name(self, key: str) -> str:
        """``student on 64 frames, seed 1``, from what determined the node."""
        if key not in self._called:
            self._called[key] = key
            with suppress(OSError, ValueError, KeyError, TypeError):
                above = self._determinants(key)
                while "upload" not in above:
                    above = self._determinants(above["teacher"])
                upload = self._determinants(above["upload"])
                stage = key.partition("-")[0]
                self._called[key] = f"{stage} on {upload['frames']} frames, seed {upload['seed']}"
        return self._called[key]

    def _determinants(self, key: str) -> dict[str, Any]:
        text = (self._nodes / key / "record.json").read_text(encoding="utf-8")
        return dict(json.loads(text)["determinants"])


def _drawn(losses: Mapping[int, float]) -> dict[str, Any]:
    steps = sorted(losses)
    return {"steps": steps, "losses": [losses[step] for step in steps]}
