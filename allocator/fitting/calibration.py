"""How wide intervals must be, learned from the levels that a curve did not see.

A family of curves is right only roughly: left without one upload size, a fit misses it by a fifth
to a third of the rise between its neighbours, which no bootstrap of the same family shows. So the
error at levels left out is split into what seeds, cells and bootstrap explain and a share of
that rise (a discrepancy of the model: M. Kennedy, A. O'Hagan, *Bayesian Calibration of Computer
Models*, J. R. Statist. Soc. B 63, 2001). A grid has few levels, so each estimate is drawn to what
would be believed without any (a level and a half): that the value lies anywhere between its
neighbours, and that the bootstrap is right.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from endedge.allocator.accuracy.joint import Joint
from endedge.allocator.accuracy.width import UNIFORM, Width
from endedge.allocator.fitting.grid import Grid

__all__ = ["calibrated"]

Floats = NDArray[np.float64]

_BELIEVED = 1.5  # levels that what is believed without any counts as
_FAR = 25.0  # five standard deviations squared: no level counts as further off


def calibrated(grid: Grid, errors: Floats, draws: Sequence[Joint]) -> Width:
    """From the squared ``errors`` of the chosen curve, fold by fold (see ``Grid.folds``), and
    its bootstrap ``draws``."""
    if not draws:
        return Width()
    values = np.array([joint.value(grid.upload, grid.update) for joint in draws])
    calibratable = (
        np.clip(values.var(axis=0) - _variance(grid.luck), 0.0, None) + grid.variance / grid.count
    )
    rooms = np.array([_room(grid, out) for out in grid.folds]).reshape(-1, 2, len(grid))
    squares = np.zeros(grid.folds.shape)
    squares[grid.folds] = errors
    excess = squares - calibratable
    width = Width(_share(grid, excess, rooms, 0), _share(grid, excess, rooms, 1))
    expected = calibratable + width.deviation((rooms[:, 0], rooms[:, 1])) ** 2
    levels = [
        min(float(np.mean(squares[f, at] / np.maximum(expected[f, at], 1e-12))), _FAR)
        for f, at, _ in _levels(grid)
    ]
    scale = (_BELIEVED + sum(levels)) / (_BELIEVED + len(levels))
    return replace(width, scale=math.sqrt(scale))


def _share(grid: Grid, excess: Floats, rooms: Floats, axis: int) -> float:
    """The share of the rise along ``axis``: the root of what is in ``excess`` over its square, at
    most all of it: what lies between its neighbours cannot be further off."""
    of = [(f, at) for f, at, along in _levels(grid) if along == axis]
    if not of:
        return UNIFORM
    rises = np.array([np.mean(rooms[f, axis, at] ** 2) for f, at in of])
    excesses = np.array([np.mean(excess[f, at]) for f, at in of])
    believed = _BELIEVED * float(rises.mean())
    if believed <= 0.0:
        return UNIFORM
    share = (believed * UNIFORM**2 + excesses.sum()) / (believed + rises.sum())
    return math.sqrt(min(max(0.0, float(share)), 1.0))


def _levels(grid: Grid) -> list[tuple[int, NDArray[np.int64], int]]:
    """Each level left out: its fold, its points, and the axis it is of."""
    levels = []
    for f, out in enumerate(grid.folds):
        axis = 0 if f < grid.row_folds else 1
        level = grid.row if axis == 0 else grid.column
        levels += [(f, np.flatnonzero(out & (level == k)), axis) for k in np.unique(level[out])]
    return levels


def _room(grid: Grid, out: NDArray[np.bool_]) -> tuple[Floats, Floats]:
    return grid.monotone(~out).room(grid.upload, grid.update)


def _variance(luck: Floats) -> Floats | float:
    return luck.var(axis=0) if len(luck) else 0.0
