"""Carrying out decisions as they were made: trained on as many frames as fit the uplink, packed
to the bytes that fit the downlink, decoded and evaluated, as nodes of the results folder.

A decision is rounded down, never up, to a ladder of sizes, so that decisions that are nearly
equal share their trainings. Every seed runs the same sizes: the bytes of an upload are those of
the seed with the largest frames.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np

from endedge.allocator import Curves, Points, Split
from endedge.data.codec import Codec, batch_bytes, encode
from endedge.lab.benchmark.benchmark import Decision
from endedge.lab.config import Config
from endedge.lab.inputs import Inputs
from endedge.lab.store import Store
from endedge.lab.sweep.cell import Cell

__all__ = ["Ladder", "cells_of", "rungs"]

_VERSION = 1  # of what is said about frame sizes


def rungs(measured: Sequence[int], step: float) -> list[int]:
    """Whole numbers from the least to the largest of ``measured``, each about ``step`` times the
    one before, and those of ``measured``."""
    low, high = min(measured), max(measured)
    count = int(np.floor(np.log(high / low) / np.log(step) + 1e-9))
    return sorted({*measured, *(int(low * step**k) for k in range(count + 1))})


@dataclass(frozen=True)
class Ladder:
    """Every upload of the ladder with every package of it.

    ``points``: their bytes are what they take at most (a package counts as its whole budget);
    their ``map`` is the monotone reference's, a guide for policies with hindsight. ``codecs``:
    upload bytes and the codec that is best from there on, cheapest first.
    """

    points: Points
    codecs: tuple[tuple[float, str], ...]

    @classmethod
    def of(cls, config: Config, inputs: Inputs, folder: Path, curves: Curves) -> Ladder:
        """The ladder of ``config``; the sizes of encoded frames are kept in ``folder``."""
        step, most = config.benchmark.step, config.link.captured_frames or max(config.uplink.frames)
        uploads = [n for n in rungs(config.uplink.frames, step) if n <= most]
        budgets = rungs(config.downlink.budgets, step)
        bytes_of = {}
        for codec in config.uplink.codecs:
            of_seeds = [_sizes(inputs, folder, seed, codec) for seed in config.seeds]
            for n in uploads:
                bytes_of[codec, n] = float(max(batch_bytes(sizes[:n]) for sizes in of_seeds))
        rows = list(product(bytes_of.items(), budgets))
        up = np.array([size for (_, size), _ in rows])
        down = np.array([float(budget) for _, budget in rows])
        nothing = np.full(len(rows), np.nan)
        one = len({line.architecture for line in inputs.plan.menu}) == 1
        points = Points(
            frames=np.array([float(n) for ((_, n), _), _ in rows]),
            codec=np.array([codec for ((codec, _), _), _ in rows]),
            upload_bytes=up,
            budget_bytes=down,
            update_bytes=down,
            bits=nothing,
            prune=nothing,
            mode=np.full(len(rows), config.downlink.mode),
            map=curves.reference.predict(up, down),
            map_error=nothing,
            seeds=np.full(len(rows), float(len(config.seeds))),
            # Of a menu it is not known before packing which one wins a budget.
            student=np.full(len(rows), inputs.plan.menu[0].architecture if one else ""),
        )
        return cls(points, tuple((p.upload_bytes, p.codec) for p in curves.uploads))

    def round_down(self, split: Split) -> int | None:
        """The row that ``split`` comes down to: an exact match is meant; else the most frames, in
        the codec that is best for so many bytes, and then the largest package that fit."""
        points, near = self.points, 1e-9
        meant = np.isclose(points.upload_bytes, split.upload_bytes, rtol=near, atol=0)
        meant &= np.isclose(points.update_bytes, split.update_bytes, rtol=near, atol=0)
        among = (points.codec == split.codec) | (not split.codec)
        among &= (points.student == split.student) | (not split.student)
        meant &= among
        if meant.any():
            return int(np.flatnonzero(meant)[0])
        fits = among & (points.upload_bytes <= split.upload_bytes * (1 + near))
        fits &= points.update_bytes <= split.update_bytes * (1 + near)
        best = [codec for size, codec in self.codecs if size <= split.upload_bytes * (1 + near)]
        if not split.codec and best and (fits & (points.codec == best[-1])).any():
            fits &= points.codec == best[-1]
        if not fits.any():
            return None
        order = np.lexsort((points.update_bytes, points.upload_bytes))
        return int(order[fits[order]][-1])


def cells_of(decisions: Sequence[Decision], seeds: Sequence[int]) -> list[Cell]:
    """The rounds that carry the decisions out, each once, with every seed."""
    points = [d.point for d in decisions if d.point is not None]
    sizes = dict.fromkeys((p.frames, p.codec, int(p.budget_bytes)) for p in points)
    return [Cell(seed, *size) for seed in seeds for size in sizes]


def _sizes(inputs: Inputs, folder: Path, seed: int, codec: str) -> list[int]:
    """Encoded bytes of each frame in the order of upload, as many as are ever uploaded."""
    config = inputs.config
    frames = inputs.captured(seed)[: max(config.uplink.frames)]
    settings = Codec.parse(codec)

    def make(scratch: Path) -> dict[str, Any]:
        return {"bytes": [len(encode(frame.look(), settings)) for frame in frames]}

    node = Store(folder).node(
        "sizes",
        {
            "version": _VERSION,
            "pool": inputs.hashes["pool"],
            "codec": codec,
            "seed": seed,
            "camera": config.data.camera.model_dump(),
            "frames": len(frames),
        },
        make,
    )
    return [int(size) for size in node.record["bytes"]]
